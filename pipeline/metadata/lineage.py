"""Lineage of one run: its steps, and what its model was made from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from schemas import columns
from trainer_module.util.checks import UserError

from . import runs, store
from .runs import IsBusy, Run
from .store import Artifact, Execution, Records, Scalar

SERVING = "Format-Serving"
"""Folder of the SavedModel in the output of TFX's Trainer."""

# Artifacts whose own inputs are not followed.
_VERDICTS = ("ModelBlessing", "InfraBlessing")
# Written by TFX into every artifact, or of use to it only.
_TFX_PROPERTIES = ("tfx_version", "is_external", "name", "state", "producer_component")
_NO_CONFIG = ("train_config", "custom_config", "code", "checkpoints", "train_args", "eval_args")


@dataclass(frozen=True)
class Made:
    """Output of a step."""

    key: str
    """Name under which the component has it."""
    type: str
    path: Path
    run: str
    """Short id of the run that made it, which is an earlier one if it was cached."""


@dataclass(frozen=True)
class Step:
    """One component in a run."""

    component: str
    state: str
    """As ML Metadata has it; "interrupted" if its process died."""
    seconds: float | None
    """From its registration to its last change; None if it did not end."""
    made: tuple[Made, ...]


@dataclass(frozen=True)
class Origin:
    """Artifact and what it was made from."""

    type: str
    path: Path
    component: str
    """Component that made it."""
    run: str
    """Short id of the run that made it; empty if no run did."""
    note: str = ""
    """Version, fingerprint or verdict."""
    sources: tuple[tuple[str, "Origin"], ...] = ()
    """Artifacts it was made from, with the keys under which they were read."""


@dataclass(frozen=True)
class Detail:
    """One run with its steps, lineage, data and parameters."""

    run: Run
    output: Path
    """Output folder."""
    log: Path | None
    """Log file; None if it was deleted."""
    steps: tuple[Step, ...]
    """In the order they began."""
    lineage: Origin | None
    """From the pushed model back, or from the model if it was not pushed."""
    data: Mapping[str, Scalar]
    """Properties of the examples."""
    config: Mapping[str, Mapping[str, Any]]
    """Parameters of the component that made the model, by group and name."""
    code: str
    """Fingerprint of the training code; empty if not recorded."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Columns of a table that the model serves under another name, by that name."""


def find(
    outputs: Iterable[Path], wanted: str | None, is_busy: IsBusy = lambda output: False
) -> tuple[Run, Path, Records]:
    """Returns a run, its output folder and the ML Metadata there.

    Args:
        outputs: Output folders to search.
        wanted: Beginning of its id or of its time; the newest run if None.
        is_busy: As of `runs.read`.
    """
    matches, searched = [], []
    for output in outputs:
        searched.append(str(output))
        records = store.read(store.store_of(output))
        for run in runs.listed(records, output, is_busy).runs:
            if wanted is None or run.id.startswith(wanted.lower()) or run.name.startswith(wanted):
                matches.append((run, output, records))
    if wanted is None:
        if not matches:
            raise UserError(
                "there must be a run to show",
                f"none in {', '.join(searched) or './runs'}",
                "Start one with `plateau run`, or name another folder with `output`.",
            )
        return max(matches, key=lambda match: match[0].began)
    if len(matches) != 1:
        named = ", ".join(f"{run.id} ({output})" for run, output, _ in matches)
        raise UserError(
            "ID must be that of one run, or the beginning of it",
            f"{wanted}, {f'which begins {named}' if matches else 'which no run has'}",
            "`plateau runs` lists them.",
        )
    return matches[0]


def read(
    outputs: Iterable[Path], wanted: str | None, is_busy: IsBusy = lambda output: False
) -> Detail:
    """Returns all about the run that `find` finds."""
    run, output, records = find(outputs, wanted, is_busy)
    record = records.run(run.name)
    artifacts = {artifact.type: artifact for _, artifact in reversed(record.outputs)}
    examples, model = artifacts.get("Examples"), artifacts.get("Model")
    pushed = run.pushed is not None and not run.reason
    root = artifacts.get("PushedModel") if pushed else model
    trainer = runs.trainer(records, record)
    parameters = trainer.properties if trainer else {}
    data = examples.properties.items() if examples else ()
    return Detail(
        run=run,
        output=output,
        log=_log(output, record.began),
        steps=tuple(_step(records, output, e, run.state == "running") for e in record.executions),
        lineage=_origin(records, output, root) if root else None,
        data={name: value for name, value in data if name not in _TFX_PROPERTIES},
        config=_config(parameters),
        code=runs.code(parameters),
        renamed=_renamed(runs.place(model, output)) if model else {},
    )


def _renamed(model: Path) -> dict[str, str]:
    """Returns the columns that an exported model names otherwise; none if it was deleted."""
    file = model / SERVING / columns.FILE
    inputs = columns.parse(file.read_bytes()) if file.is_file() else {}
    return {name: each.column for name, each in inputs.items() if name != each.column}


def _step(records: Records, output: Path, execution: Execution, is_running: bool) -> Step:
    ended = execution.state not in ("new", "running")
    return Step(
        component=execution.component or execution.type,
        state=execution.state if ended or is_running else "interrupted",
        seconds=execution.seconds if ended else None,
        made=tuple(
            Made(key, artifact.type, runs.place(artifact, output), _maker(records, artifact)[1])
            for key, artifact in execution.outputs
        ),
    )


def _origin(records: Records, output: Path, artifact: Artifact, follow: bool = True) -> Origin:
    """Returns an artifact with all that it was made from, cached executions seen through."""
    maker = records.maker(artifact.id)
    component, run = _maker(records, artifact)
    inputs = maker.inputs if maker and follow and artifact.type not in _VERDICTS else ()
    return Origin(
        type=artifact.type,
        path=runs.place(artifact, output),
        component=component,
        run=run,
        note=_note(records, artifact),
        # The model whose weights training began with has a lineage of its own.
        sources=tuple(
            (key, _origin(records, output, source, follow=key != "base_model"))
            for key, source in inputs
        ),
    )


def _maker(records: Records, artifact: Artifact) -> tuple[str, str]:
    """Returns the component and the short id of the run that made an artifact."""
    maker = records.maker(artifact.id)
    if maker is None:
        return "", ""
    return maker.component or maker.type, runs.short_id(maker.run) if maker.run else ""


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


def _config(properties: Mapping[str, Scalar]) -> dict[str, dict[str, Any]]:
    """Returns a trainer's parameters: the groups of its config, and its other ones."""
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
    """Returns the newest log that was begun before a run was registered."""
    logs = [log for log in (output / "logs").glob("*.log") if log.stem <= f"{began:%Y%m%d-%H%M%S}"]
    return max(logs, default=None)
