"""Runs of an output folder, read from ML Metadata."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from schemas import parameter
from trainer_module.util.checks import UserError

from . import store, versions
from .store import Artifact, Execution, PipelineRun, Records, Scalar

RunState: TypeAlias = Literal["finished", "failed", "interrupted", "running"]

TEST_ACCURACY, TEST_R2 = "test_accuracy", "test_r2"
"""Custom properties, of any artifact of a run, that hold accuracy or R2 on the test split."""

REPORT = "report.html"
"""The page in a TrainingReport's folder."""


@dataclass(frozen=True)
class Run:
    """Run in a list of runs."""

    id: str
    """Short id."""
    name: str
    """Id of the pipeline run in ML Metadata."""
    began: datetime
    """Local time."""
    pipeline: str
    """Name of the pipeline."""
    state: RunState
    """interrupted if its process died."""
    data: str
    """Short fingerprint of the examples; empty while there are none."""
    strategy: str
    """Strategy of the schedule; empty if not recorded."""
    monitor: str
    """Validation metric that drove the schedule; empty if not recorded."""
    best_value: float | None
    """Its best value."""
    test_accuracy: float | None
    """Accuracy on the test split; None if not measured, as for a regression."""
    blessed: bool | None
    """Whether the model passed the gates; None if it did not get there."""
    pushed: int | None
    """Version the model was pushed as; None if it was not."""
    served: bool
    """Whether its model is the one served now."""
    cached: int
    """Number of steps taken from the cache."""
    steps: int
    """Number of steps that began."""
    test_r2: float | None = None
    """R2 on the test split of a regression."""
    reason: str = ""
    """Why the model was pushed by hand; empty if it was not."""


@dataclass(frozen=True)
class Folder:
    """Runs of one output folder, the newest first."""

    path: Path
    runs: tuple[Run, ...]
    served: versions.Version | None
    """Version that TensorFlow Serving takes; None if nothing is pushed."""


IsBusy: TypeAlias = Callable[[Path], bool]
"""Returns True if a process holds an output folder's lock."""


def folders(output: Path | None) -> tuple[Path, ...]:
    """Returns the output folders that hold runs: every one under ./runs, or the one given."""
    if output is None:
        # What `plateau compare` trains for itself was never to be pushed.
        paths = [p for p in sorted(Path("runs").glob("*")) if not p.name.startswith("compare-")]
    elif output.is_dir():
        paths = [output]
    else:
        raise UserError(
            "`output` must be the folder of earlier runs",
            str(output),
            "Leave `output` out to see every folder under ./runs.",
        )
    return tuple(path for path in paths if store.is_there(path))


def only_folder(output: Path | None) -> Path:
    """Returns the output folder given, or the only one with a pushed model."""
    if output is not None:
        return next(iter(folders(output)), output)
    paths = [path for path in folders(None) if versions.folder_of(path).is_dir()]
    if len(paths) == 1:
        return paths[0]
    raise UserError(
        "one output folder with a pushed model must be meant",
        ", ".join(map(str, paths)) or "none under ./runs",
        "Say which with `output=DIR`.",
    )


def read(output: Path, is_busy: IsBusy = lambda output: False) -> Folder:
    """Returns the runs of an output folder."""
    return listed(store.read(store.store_of(output)), output, is_busy)


def listed(records: Records, output: Path, is_busy: IsBusy) -> Folder:
    """Returns the runs that ML Metadata holds of an output folder."""
    served = versions.served(records, output)
    by_hand = versions.by_hand(records)
    runs = []
    for run in reversed(records.runs):
        busy = run is records.runs[-1] and not _has_ended(run) and is_busy(output)
        runs.append(_run(records, run, served, by_hand.get(run.id), busy))
    return Folder(output, tuple(runs), served)


def newest_report(outputs: Iterable[Path]) -> Path:
    """Returns the report of the newest run that has one."""
    reports = []
    outputs = list(outputs)
    for output in outputs:
        own = [
            (run.began, path)
            for run in store.read(store.store_of(output)).runs
            for _, artifact in run.outputs
            if artifact.type == "components.HtmlReport"
            and (path := place(artifact, output) / REPORT).is_file()
        ]
        # Within a folder by the order of its runs, which no change of the clock touches.
        reports += own[-1:]
    if not reports:
        raise UserError(
            "a finished run must have left a report",
            f"none in {', '.join(map(str, outputs)) or './runs'}",
            "Start a run with `plateau run`, or name another folder with `output`.",
        )
    return max(reports)[1]


def short_id(name: str) -> str:
    """Returns a run's id as people type it, made from its id in ML Metadata."""
    return hashlib.sha256(name.encode()).hexdigest()[:6]


def trainer(records: Records, run: PipelineRun) -> Execution | None:
    """Returns the execution that trained the model of a run, or was to."""
    model = next((a for _, a in run.outputs if a.type == "Model"), None)
    maker = records.maker(model.id) if model else None
    return maker or next((e for e in run.executions if train_config(e.properties)), None)


def train_config(properties: Mapping[str, Scalar]) -> dict[str, Any]:
    """Returns a trainer's config: a parameter of its own, or within TFX's custom_config."""
    return _json(_parameter(properties, "train_config"))


def code(properties: Mapping[str, Scalar]) -> str:
    """Returns the fingerprint of the code that a trainer ran; empty if it recorded none."""
    return str(_parameter(properties, "code") or "")


def short_data(properties: Mapping[str, Scalar]) -> str:
    """Returns eight digits that change with the data."""
    fingerprint = str(properties.get("input_fingerprint", ""))
    # Ours has the code that read them beside the images, which version 0.1 called pictures.
    images = re.search(r"(?:images|pictures):([0-9a-f]{8})", fingerprint)
    if images:
        return images[1]
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:8] if fingerprint else ""


def place(artifact: Artifact, output: Path) -> Path:
    """Returns the path of an artifact, also after the output folder has moved."""
    for folder in (output / "artifacts", versions.folder_of(output)):
        _, separator, tail = artifact.uri.rpartition(f"/{folder.name}/")
        if separator and (folder / tail).exists():
            return folder / tail
    return Path(artifact.uri)


def _run(
    records: Records,
    run: PipelineRun,
    served: versions.Version | None,
    by_hand: Execution | None,
    busy: bool,
) -> Run:
    outputs = [artifact for _, artifact in run.outputs]
    properties = {artifact.type: artifact.properties for artifact in outputs}
    history = properties.get("components.TrainingHistory", {})
    best = history.get("best_value")
    merged = {name: value for p in properties.values() for name, value in p.items()}
    pushed = next((v for v in map(versions.pushed_version, outputs) if v is not None), None)
    if by_hand is not None:
        pushed = int(by_hand.properties["pushed_version"])
    trained = trainer(records, run)
    states = [execution.state for execution in run.executions]
    state: RunState = "failed" if "failed" in states else "finished"
    if not _has_ended(run):
        state = "running" if busy else "interrupted"
    return Run(
        id=short_id(run.id),
        name=run.id,
        began=run.began,
        pipeline=run.pipeline,
        state=state,
        data=short_data(properties.get("Examples", {})),
        strategy=_strategy(trained.properties) if trained else "",
        monitor=str(history.get("monitor", "")),
        best_value=_float(best),
        test_accuracy=_float(merged.get(TEST_ACCURACY)),
        test_r2=_float(merged.get(TEST_R2)),
        blessed=_blessed(properties),
        pushed=pushed,
        served=served is not None and pushed in (served.origin, served.number),
        cached=states.count("cached"),
        steps=len(states),
        reason=str(by_hand.properties["reason"]) if by_hand else "",
    )


def _float(value: Scalar | None) -> float | None:
    return None if value is None else float(value)


def _has_ended(run: PipelineRun) -> bool:
    """Returns False if the run has not finished (running or crashed)."""
    states = {execution.state for execution in run.executions}
    pushed = any(key == "pushed_model" for key, _ in run.outputs)
    return "failed" in states or (pushed and states <= {"complete", "cached"})


def _blessed(properties: Mapping[str, Mapping[str, Scalar]]) -> bool | None:
    """Returns whether the Evaluator and whoever tried to serve the model blessed it."""
    if "ModelBlessing" not in properties:
        return None
    # Our Servable says `blessed`, TFX's InfraValidator `blessing_status`.
    infra = properties.get("InfraBlessing", {})
    servable = infra.get("blessed", 1) == 1
    good = properties["ModelBlessing"].get("blessed") == 1
    return good and servable and infra.get("blessing_status") in (None, "INFRA_BLESSED")


def _parameter(properties: Mapping[str, Scalar], name: str) -> object:
    return properties.get(name, _json(properties.get("custom_config")).get(name))


def _strategy(properties: Mapping[str, Scalar]) -> str:
    schedule = train_config(properties).get("schedule", {})
    return str(properties.get("strategy", schedule.get("strategy", "")))


def _json(text: object) -> dict[str, Any]:
    try:
        parsed = json.loads(parameter.text(str(text)))
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
