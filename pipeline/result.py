"""What a run came to, read back from ML Metadata and from the Evaluator's files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import evaluation
from pipeline.config import RunConfig

if TYPE_CHECKING:
    import tensorflow_model_analysis as tfma
    from ml_metadata.metadata_store import MetadataStore

OVERALL = "all examples"


@dataclass(frozen=True)
class Step:
    """One component in one run.

    Attributes:
        component: Its id in the pipeline.
        seconds: From its registration to its publication in ML Metadata.
        state: Whether it ran, was served from the cache, or failed.
    """

    component: str
    seconds: float
    state: Literal["run", "cached", "failed"]


@dataclass(frozen=True)
class SliceMetrics:
    """How one model does on one slice of the test split.

    Attributes:
        examples: Number of examples.
        accuracy: Share classified correctly.
        crossentropy: Mean cross-entropy, in nats.
    """

    examples: int
    accuracy: float
    crossentropy: float


@dataclass(frozen=True)
class Gate:
    """A bound and what was measured against it.

    Attributes:
        rule: What is bounded, in words.
        value: What was measured.
        bound: Smallest value that passes.
        passed: What the Evaluator decided.
    """

    rule: str
    value: float
    bound: float
    passed: bool

    @property
    def margin(self) -> float:
        """By how much the value lies above the bound."""
        return self.value - self.bound


@dataclass(frozen=True)
class Evaluation:
    """What the Evaluator found on the test split.

    Attributes:
        candidate: The trained model over all examples.
        baseline: The last blessed model on the same examples; None where there was none.
        classes: The trained model in each class, the worst accuracy first.
        gates: Every bound, overall ones first.
        problems: What failed the model beyond the gates, such as a metric that is missing.
    """

    candidate: SliceMetrics
    baseline: SliceMetrics | None
    classes: tuple[tuple[str, SliceMetrics], ...]
    gates: tuple[Gate, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        steps: The components in the order they ran.
        evaluation: What the Evaluator found.
        blessed: Whether the model passed every gate.
        model: Folder of the trained model.
        pushed: Folder the model was pushed to; None if it was not.
        log: The log file.
        seconds: Wall time of the whole run, imports included.
        bad_images: Pictures left out because they cannot be decoded.
        converted_images: Pictures stored as plain PNG because of their format.
    """

    steps: tuple[Step, ...]
    evaluation: Evaluation
    blessed: bool
    model: Path
    pushed: Path | None
    log: Path
    seconds: float
    bad_images: int = 0
    converted_images: int = 0


@dataclass(frozen=True)
class _Execution:
    step: Step
    outputs: dict[str, Any]


def read_run(
    metadata: Path, run_id: str, config: RunConfig, *, log: Path, seconds: float
) -> RunResult:
    """Read a finished run.

    Args:
        metadata: SQLite file of ML Metadata.
        run_id: The pipeline run's id.
        config: The run, with `classes` filled in.
        log: The log file.
        seconds: Wall time of the run.
    """
    import tensorflow_model_analysis as tfma

    store = _open(metadata)
    executions = {e.step.component: e for e in _executions(store, run_id)}
    evaluator = executions["Evaluator"].outputs
    folder = evaluator["evaluation"].uri
    push = executions["Pusher"].outputs["pushed_model"].custom_properties
    return RunResult(
        steps=tuple(execution.step for execution in executions.values()),
        evaluation=summarise(
            tfma.load_metrics(folder), tfma.load_validation_result(folder), config
        ),
        blessed=evaluator["blessing"].custom_properties["blessed"].int_value == 1,
        model=Path(executions["Trainer"].outputs["model"].uri),
        pushed=(
            Path(push["pushed_destination"].string_value) if push["pushed"].int_value == 1 else None
        ),
        log=log,
        seconds=seconds,
        **_picture_counts(executions),
    )


def _picture_counts(executions: dict[str, _Execution]) -> dict[str, int]:
    if "ImageExampleGen" not in executions:
        return {}
    properties = executions["ImageExampleGen"].outputs["examples"].custom_properties
    return {name: properties[name].int_value for name in ("bad_images", "converted_images")}


def summarise(
    metrics: "Iterable[tfma.proto.metrics_for_slice_pb2.MetricsForSlice]",
    validation: "tfma.proto.validation_result_pb2.ValidationResult",
    config: RunConfig,
) -> Evaluation:
    """Put the Evaluator's protos in our terms.

    Args:
        metrics: One proto a slice.
        validation: What the thresholds decided.
        config: The run, with `classes` filled in.
    """
    sliced: dict[str, dict[str, dict[str, float]]] = {}
    for proto in metrics:
        by_model = sliced.setdefault(_slice_name(proto.slice_key, config), {})
        for item in proto.metric_keys_and_values:
            if not item.key.is_diff and item.value.WhichOneof("type") == "double_value":
                values = by_model.setdefault(item.key.model_name or "candidate", {})
                values[item.key.name] = item.value.double_value.value
    candidates = {name: _slice_metrics(models["candidate"]) for name, models in sliced.items()}
    overall = candidates.pop(OVERALL)
    baseline = sliced[OVERALL].get("baseline")
    classes = tuple(sorted(candidates.items(), key=lambda item: (item[1].accuracy, item[0])))

    failed, problems = set(), []
    for per_slice in validation.metric_validations_per_slice:
        name = _slice_name(per_slice.slice_key, config)
        for failure in per_slice.failures:
            failed.add((name, failure.metric_key.is_diff))
            if failure.message:
                problems.append(f"{failure.metric_key.name} on {name}: {failure.message.strip()}")
    problems += [f"no test example for {spec}" for spec in validation.missing_slices]

    bounds = config.gates
    gates = [
        Gate(
            f"accuracy, {OVERALL}",
            overall.accuracy,
            bounds.min_accuracy,
            (OVERALL, False) not in failed,
        )
    ]
    if baseline is not None:
        gates.append(
            Gate(
                "accuracy - baseline's",
                overall.accuracy - baseline[evaluation.ACCURACY],
                -bounds.max_accuracy_drop,
                (OVERALL, True) not in failed,
            )
        )
    if bounds.min_class_accuracy > 0:
        gates += [
            Gate(
                f"accuracy, class {name}",
                values.accuracy,
                bounds.min_class_accuracy,
                (name, False) not in failed,
            )
            for name, values in classes
        ]
    return Evaluation(
        candidate=overall,
        baseline=_slice_metrics(baseline) if baseline else None,
        classes=classes,
        gates=tuple(gates),
        problems=tuple(problems),
    )


def _slice_metrics(values: dict[str, float]) -> SliceMetrics:
    return SliceMetrics(
        examples=round(values["example_count"]),
        accuracy=values[evaluation.ACCURACY],
        crossentropy=values[evaluation.CROSSENTROPY],
    )


def _slice_name(key: Any, config: RunConfig) -> str:
    if not key.single_slice_keys:
        return OVERALL
    part = key.single_slice_keys[0]
    value = getattr(part, part.WhichOneof("kind"))
    if isinstance(value, bytes):
        value = value.decode()
    return evaluation.class_name(value, config.features, config.classes)


def _open(metadata: Path) -> "MetadataStore":
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2

    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(metadata)
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
    return MetadataStore(connection)


def _executions(store: "MetadataStore", run_id: str) -> Iterator[_Execution]:
    """The executions of one run, in the order they began."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    states: dict[int, Literal["run", "cached"]] = {
        mlmd.Execution.COMPLETE: "run",
        mlmd.Execution.CACHED: "cached",
    }
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    executions = store.get_executions_by_context(run.id)
    for execution in sorted(executions, key=lambda e: e.id):
        contexts = store.get_contexts_by_execution(execution.id)
        node = next(context.name for context in contexts if context.type == "node")
        milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        yield _Execution(
            step=Step(
                component=node.rpartition(".")[2],
                seconds=milliseconds / 1000,
                state=states.get(execution.last_known_state, "failed"),
            ),
            outputs=_outputs(store, execution.id),
        )


def _outputs(store: "MetadataStore", execution: int) -> dict[str, Any]:
    """The first output artifact of each key."""
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    keys = {
        event.artifact_id: event.path.steps[0].key
        for event in store.get_events_by_execution_ids([execution])
        if event.type == mlmd.Event.OUTPUT
    }
    return {keys[artifact.id]: artifact for artifact in store.get_artifacts_by_id(list(keys))}
