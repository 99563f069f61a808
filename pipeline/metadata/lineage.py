"""One run, whole: its steps, and where its model comes from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from schemas import columns

from . import runs, store
from .runs import Run, RunState
from .store import Artifact, Execution, Records

# What judged a model, or what its weights began as, has a story of its own.
_ENDS = ("ModelBlessing", "InfraBlessing")
_BEGINNING = "base_model"
# Where TFX's Trainer puts the SavedModel in its output.
_SERVING = "Format-Serving"
# Written by TFX into every artifact, or of use to it only.
_PLUMBING = ("tfx_version", "is_external", "name", "state", "producer_component")
_NO_CONFIG = ("train_config", "custom_config", "code", "checkpoints", "train_args", "eval_args")


@dataclass(frozen=True)
class ShowConfig:
    """What `plateau runs show` needs to know.

    Attributes:
        id: Id of the run as `plateau runs` prints it, or its time, or the beginning of either;
            if not given, the newest run.
        output: Output folder to read; if not given, every one under ./runs.
        json: Print JSON instead of a page.
    """

    id: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[ID]")] = None
    output: Path | None = None
    json: bool = False


@dataclass(frozen=True)
class Made:
    """An artifact of a step.

    Attributes:
        key: Under which name the component has it.
        type: Its type.
        path: Where it lies.
        run: Short id of the run that made it, which is an earlier one if it was cached.
    """

    key: str
    type: str
    path: Path
    run: str


@dataclass(frozen=True)
class Step:
    """One component in a run.

    Attributes:
        component: Its id in the pipeline.
        state: As ML Metadata has it; "interrupted" if its process died.
        seconds: From its registration to its last change; None if it did not end.
        made: Its outputs.
    """

    component: str
    state: str
    seconds: float | None
    made: tuple[Made, ...]


@dataclass(frozen=True)
class Origin:
    """An artifact and what it was made from.

    Attributes:
        type: Its type.
        path: Where it lies.
        component: What made it.
        run: Short id of the run that made it; empty if no run did.
        note: What there is to know of it, in words.
        sources: What it was made from, with the keys under which it was read.
    """

    type: str
    path: Path
    component: str
    run: str
    note: str = ""
    sources: tuple[tuple[str, "Origin"], ...] = ()


@dataclass(frozen=True)
class Detail:
    """One run, whole.

    Attributes:
        run: The run.
        output: Its output folder.
        log: Its log file; None if it is gone.
        steps: In the order they began.
        lineage: From the pushed model back, or from the model if it was not pushed; None if
            there is no model.
        data: What is known of the examples, by name.
        config: Parameters of the component that made the model, by group and name.
        code: Fingerprint of the training code; empty if not recorded.
        renamed: Columns of a table that the model serves under another name, by that name.
    """

    run: Run
    output: Path
    log: Path | None
    steps: tuple[Step, ...]
    lineage: Origin | None
    data: Mapping[str, store.Scalar]
    config: Mapping[str, Mapping[str, Any]]
    code: str
    renamed: Mapping[str, str] = field(default_factory=dict)


def read(outputs: Iterable[Path], wanted: str | None) -> Detail:
    """Find a run and read all about it.

    Args:
        outputs: Output folders to look in.
        wanted: Beginning of its id or of its time; the newest run if None.

    Raises:
        ValueError: There is no such run, or several.
    """
    found, looked = [], []
    for output in outputs:
        looked.append(str(output))
        records = store.read(store.store_of(output))
        folder = runs.listed(records, output)
        found += [(run, output, records) for run in folder.runs if _is_meant(run, wanted)]
    if not found and wanted is None:
        raise ValueError(
            f"there must be a run to show, found none in {', '.join(looked) or './runs'}. "
            "Start one with `plateau run`, or name another folder with --output."
        )
    found.sort(key=lambda item: item[0].began, reverse=True)
    if wanted is None:
        found = found[:1]
    if len(found) != 1:
        named = ", ".join(f"{run.id} ({output})" for run, output, _ in found)
        wrong = f"which begins {named}" if found else "which no run has"
        raise ValueError(
            "ID must be that of one run, or the beginning of it, got "
            f"{wanted}, {wrong}. `plateau runs` lists them."
        )
    run, output, records = found[0]
    return _detail(records, output, run)


def _is_meant(run: Run, wanted: str | None) -> bool:
    return wanted is None or run.id.startswith(wanted.lower()) or run.name.startswith(wanted)


def _detail(records: Records, output: Path, run: Run) -> Detail:
    [found] = [item for item in records.runs if item.id == run.name]
    artifacts = dict(reversed([(a.type, a) for _, a in records.outputs(*found.executions)]))
    examples, model = artifacts.get("Examples"), artifacts.get("Model")
    pushed = run.pushed is not None and not run.reason
    root = artifacts.get("PushedModel") if pushed else model
    trainer = records.maker(model.id) if model else runs.trainer(records, found)
    return Detail(
        run=run,
        output=output,
        log=_log(output, found.began),
        steps=tuple(_step(records, output, execution, run.state) for execution in found.executions),
        lineage=_origin(records, output, root) if root else None,
        data=_facts(examples.properties) if examples else {},
        config=_config(trainer.properties) if trainer else {},
        code=runs.code(trainer.properties) if trainer else "",
        renamed=_renamed(runs.place(model, output)) if model else {},
    )


def _renamed(model: Path) -> dict[str, str]:
    """What an exported model says of the columns it takes; nothing if it is gone."""
    file = model / _SERVING / columns.FILE
    inputs = columns.parse(file.read_bytes()) if file.is_file() else {}
    return {name: given.column for name, given in inputs.items() if name != given.column}


def _step(records: Records, output: Path, execution: Execution, state: RunState) -> Step:
    ended = execution.state not in ("new", "running")
    made = []
    for key, artifact in records.outputs(execution):
        maker = records.maker(artifact.id)
        by = runs.short_id(maker.run) if maker and maker.run else ""
        made.append(Made(key, artifact.type, runs.place(artifact, output), by))
    return Step(
        component=execution.component or execution.type,
        state=execution.state if ended or state == "running" else "interrupted",
        seconds=execution.seconds if ended else None,
        made=tuple(made),
    )


def _origin(records: Records, output: Path, artifact: Artifact) -> Origin:
    """An artifact with all that it comes from, cached executions seen through."""
    maker = records.maker(artifact.id)
    sources: list[tuple[str, Origin]] = []
    if maker is not None and artifact.type not in _ENDS:
        for key, source in records.inputs(maker):
            follow = _leaf if key == _BEGINNING else _origin
            sources.append((key, follow(records, output, source)))
    leaf = _leaf(records, output, artifact)
    return Origin(leaf.type, leaf.path, leaf.component, leaf.run, leaf.note, tuple(sources))


def _leaf(records: Records, output: Path, artifact: Artifact) -> Origin:
    maker = records.maker(artifact.id)
    return Origin(
        type=artifact.type,
        path=runs.place(artifact, output),
        component=(maker.component or maker.type) if maker else "",
        run=runs.short_id(maker.run) if maker and maker.run else "",
        note=_note(records, artifact),
    )


def _note(records: Records, artifact: Artifact) -> str:
    properties = artifact.properties
    if artifact.type == "Examples":
        return runs.short_data(properties)
    if artifact.type == "PushedModel":
        return f"version {properties.get('pushed_version', '?')}"
    if artifact.type == "ModelBlessing":
        verdict = "blessed" if properties.get("blessed") == 1 else "not blessed"
        baseline = records.maker(int(properties.get("baseline_model_id", 0)))
        other = f"the model of run {runs.short_id(baseline.run)}" if baseline else "no other model"
        return f"{verdict}, compared with {other}"
    return str(properties.get("blessing_status", ""))


def _facts(properties: Mapping[str, store.Scalar]) -> dict[str, store.Scalar]:
    return {name: value for name, value in properties.items() if name not in _PLUMBING}


def _config(properties: Mapping[str, store.Scalar]) -> dict[str, dict[str, Any]]:
    """A trainer's parameters: the groups of its config, and those that stand by themselves."""
    flat = {
        name: value
        for name, value in properties.items()
        if name not in _NO_CONFIG and not name.startswith("__")
    }
    groups: dict[str, dict[str, Any]] = {}
    for name, value in runs.train_config(properties).items():
        group = value if isinstance(value, dict) else {name: value}
        nested = group.get("plateau", {})
        groups[name] = {key: v for key, v in (group | nested).items() if key != "plateau"}
    # The schedule's fields are parameters of PlateauTrainer; TFX's Trainer has other ones.
    own = "schedule" if "strategy" in flat else "parameters"
    return {**groups, own: flat} if flat else groups


def _log(output: Path, began: datetime) -> Path | None:
    """The newest log that was begun before a run was registered."""
    logs = [log for log in (output / "logs").glob("*.log") if log.stem <= f"{began:%Y%m%d-%H%M%S}"]
    return max(logs, default=None)
