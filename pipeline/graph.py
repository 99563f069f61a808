"""Pipeline graph: the components and the channels between them, for every runner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tfx.components import (
    CsvExampleGen,
    Evaluator,
    ExampleValidator,
    StatisticsGen,
    Transform,
    Tuner,
)
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, pusher_pb2, trainer_pb2
from tfx.types import BaseChannel, Channel
from tfx.types.standard_artifacts import ExampleStatistics, Model, ModelBlessing

from components import known_classes
from components.anomaly_gate.component import AnomalyGate
from components.drift_gate.baseline import LatestBlessedStatistics
from components.drift_gate.component import DriftGate
from components.image_example_gen.component import ImageExampleGen
from components.inline_schema_gen.component import InlineSchemaGen
from components.latest_blessed.component import LatestBlessed
from components.plateau_trainer.component import PlateauTrainer
from components.servable.component import Servable
from components.serving_pusher.component import ServingPusher
from components.table_example_gen.component import TableExampleGen
from components.training_report.component import TrainingReport
from schemas import LABEL, parameter
from trainer_module.config import ImageFeatures, TableFeatures

from . import evaluation
from .config import RunConfig
from .data import fingerprint
from .data import statistics as counting
from .data.dataset import EVAL, TABLE_SPLITS, TEST, TRAIN
from .metadata import store as metadata
from .metadata.store import Store

Place: TypeAlias = str | RuntimeParameter
"""A folder that is known now, or named when a compiled pipeline is run."""


@dataclass(frozen=True)
class PipelinePaths:
    """Local paths or URIs that a pipeline reads and writes."""

    data: Place
    """Folder of images by class, or of CSV files."""
    artifacts: str
    """Folder under which every component writes."""
    pushed: Place
    """Folder that receives a numbered subfolder for each pushed model."""
    checkpoints: str | None = None
    """Folder from which an interrupted Trainer resumes; None where none outlives it."""
    source: str | None = None
    """Where people know the data, for the report; `data` if not given."""
    metadata: Store | None = None
    """ML Metadata; None where the runner has a store of its own, and the last blessed model is
    looked up in the folder of pushed ones."""


class _Baseline(NamedTuple):
    """Channels of the last blessed model and its statistics, with the nodes that resolve them."""

    nodes: tuple[BaseNode, ...]
    model: BaseChannel
    statistics: BaseChannel


def pipeline_name(config: RunConfig, store: Store | None = None) -> str:
    """Returns the name under which ML Metadata records the runs.

    Blessed models and cached results are looked up by it. All runs in an output folder share one,
    so that the baseline is the model that a push replaces, whatever the preset and the classes. In
    a database that several output folders share, the name has a mark of the folder.
    """
    return f"plateau-{config.name}" if store is None else metadata.mark("plateau", store)


def create_pipeline(
    config: RunConfig,
    paths: PipelinePaths,
    schema: str,
    command: str = "",
    runtime: Mapping[str, RuntimeParameter] | None = None,
    beam_args: Sequence[str] = (),
) -> Pipeline:
    """Returns the pipeline of one run, as new objects on every call.

    Args:
        config: The run, with `classes` filled in.
        paths: Where to read and write.
        schema: The schema of the data, as text (.pbtxt).
        command: Command that repeats the run, for the report.
        runtime: Fields of the schedule whose values a run of the compiled pipeline gives.
        beam_args: Beam's options, which `config.beam` stands for (`runners.beam`).

    Raises:
        ValueError: Classes are missing, or a dotted model path cannot be found.
    """
    train_config = config.train_config()
    code = fingerprint.of_sources(config.network.model)
    label = config.features.label if isinstance(config.features, TableFeatures) else LABEL

    examples = _example_gen(config, paths.data)
    if config.beam.engine.kind == "dataflow":
        # The data may lie in a folder that is mounted for this task alone.
        examples.with_beam_pipeline_args(["--runner=DirectRunner"])
    statistics = StatisticsGen(
        examples=examples.outputs["examples"], stats_options=counting.options(config.features)
    )
    contract = InlineSchemaGen(schema)
    validator = ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=contract.outputs["schema"]
    )
    gate = AnomalyGate(
        anomalies=validator.outputs["anomalies"],
        statistics=statistics.outputs["statistics"],
        schema=contract.outputs["schema"],
        label=label,
    )
    baseline = _baseline(config, paths)
    drift = DriftGate(
        statistics=statistics.outputs["statistics"],
        schema=contract.outputs["schema"],
        baseline_statistics=baseline.statistics,
        max_drift=config.gates.max_drift,
        max_skew=config.gates.max_skew,
        split=TRAIN,
        other_split=TEST,
    )
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=contract.outputs["schema"],
        preprocessing_fn="trainer_module.preprocessing.preprocessing_fn",
        custom_config={
            "preprocessing": parameter.compressed(train_config.preprocessing_json()),
            "code": code,
        },
        materialize=False,
        disable_statistics=True,
    )
    # Nothing flows from the gates to Transform, so the order has to be stated.
    transform.add_upstream_nodes([gate, drift])
    tuner = Tuner(
        tuner_fn="trainer_module.run_fn.tuner_fn",
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        train_args=trainer_pb2.TrainArgs(splits=[TRAIN]),
        eval_args=trainer_pb2.EvalArgs(splits=[EVAL]),
        custom_config={
            "train_config": train_config.to_json(),
            "code": code,
            "checkpoints": paths.checkpoints,
            "trials": config.tune,
        },
    )
    trainer = PlateauTrainer(
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        config=train_config,
        schema=contract.outputs["schema"],
        base_model=baseline.model if config.warm_start else None,
        hyperparameters=tuner.outputs["best_hyperparameters"] if config.tune else None,
        runtime=runtime,
        train_args=trainer_pb2.TrainArgs(splits=[TRAIN]),
        eval_args=trainer_pb2.EvalArgs(splits=[EVAL]),
        code=code,
        checkpoints=paths.checkpoints,
    ).with_id("Trainer")
    evaluator = Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=baseline.model,
        eval_config=evaluation.eval_config(config.features, config.gates, config.classes),
        example_splits=[TEST],
    )
    servable = Servable(
        model=trainer.outputs["model"],
        examples=examples.outputs["examples"],
        evaluation=evaluator.outputs["evaluation"],
        split=TEST,
        max_latency_ms_p99=config.gates.max_latency,
        max_model_mib=config.gates.max_model_mib,
        label=label,
    )
    pusher = ServingPusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=servable.outputs["blessing"],
        push_destination=_destination(paths.pushed),
        # Where ML Metadata cannot be asked, the next run finds them beside the model.
        statistics=None if paths.metadata else statistics.outputs["statistics"],
    ).with_id("Pusher")
    report = TrainingReport(
        history=trainer.outputs["training_history"],
        evaluation=evaluator.outputs["evaluation"],
        blessing=evaluator.outputs["blessing"],
        statistics=statistics.outputs["statistics"],
        schema=contract.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        drift=drift.outputs["drift"],
        model=trainer.outputs["model"],
        examples=examples.outputs["examples"],
        infra_blessing=servable.outputs["blessing"],
        classes=config.classes,
        split=TEST,
        label=label,
        title=config.title,
        source=paths.data if paths.source is None else paths.source,
        network=config.network.model,
        command=command,
        fingerprint=code,
        rounding=evaluation.ROUNDING,
    )
    return Pipeline(
        pipeline_name=pipeline_name(config, paths.metadata),
        pipeline_root=paths.artifacts,
        components=[
            examples,
            statistics,
            contract,
            validator,
            gate,
            *baseline.nodes,
            drift,
            transform,
            *([tuner] if config.tune else []),
            trainer,
            evaluator,
            servable,
            report,
            pusher,
        ],
        enable_cache=True,
        beam_pipeline_args=list(beam_args),
        metadata_connection_config=(
            metadata.connection(paths.metadata) if paths.metadata else None
        ),
    )


def _baseline(config: RunConfig, paths: PipelinePaths) -> _Baseline:
    if paths.metadata is None:
        latest = LatestBlessed(
            paths.pushed,
            known=known_classes.of(config.features, config.classes),
            allow_class_change=config.gates.allow_class_change,
        )
        return _Baseline((latest,), latest.outputs["model"], latest.outputs["statistics"])
    data = Resolver(
        strategy_class=LatestBlessedStatistics,
        statistics=Channel(type=ExampleStatistics),
        model_blessing=Channel(type=ModelBlessing),
    ).with_id("LatestBlessedStatistics")
    model = Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
    ).with_id("LatestBlessedModel")
    return _Baseline((data, model), model.outputs["model"], data.outputs["statistics"])


def _destination(pushed: Place) -> pusher_pb2.PushDestination | RuntimeParameter:
    if isinstance(pushed, RuntimeParameter):
        return pushed
    return pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=pushed)
    )


def _example_gen(config: RunConfig, data: Place) -> BaseBeamComponent:
    if isinstance(config.features, ImageFeatures):
        return ImageExampleGen(
            input_base=data, on_bad_image=config.on_bad_image, group_by=config.group_by
        )
    buckets = [
        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=share)
        for name, share in TABLE_SPLITS.items()
    ]
    arguments = {
        "input_base": data,
        # The default pattern would parse a README beside the table.
        "input_config": example_gen_pb2.Input(
            splits=[example_gen_pb2.Input.Split(name="all", pattern="*.csv")]
        ),
        "output_config": example_gen_pb2.Output(
            split_config=example_gen_pb2.SplitConfig(splits=buckets)
        ),
    }
    if config.on_missing_label == "skip":
        return TableExampleGen(**arguments, labels=config.features.labels).with_id("CsvExampleGen")
    return CsvExampleGen(**arguments)
