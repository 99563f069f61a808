"""The history of runs, read back from ML Metadata."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tyro

from schemas import parameter

from .. import presets
from ..runners import lock
from . import store, versions
from .store import Artifact, Execution, PipelineRun, Records

RunState: TypeAlias = Literal["finished", "failed", "interrupted", "running"]

ID_LENGTH = 6
"""Digits of a run's short id."""

TEST_ACCURACY = "test_accuracy"
"""Custom property, of any artifact of a run, that holds the accuracy on the test split."""

REPORT = "report.html"
"""The page in a TrainingReport's folder."""

_REPORT_TYPE = "components.HtmlReport"


@dataclass(frozen=True)
class RunsConfig:
    """What `plateau runs` needs to know.

    Attributes:
        preset: Preset whose output folder to read; if not given, every output folder under ./runs.
        output: Output folder to read.
        json: Print JSON instead of a table.
    """

    preset: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[PRESET]")] = None
    output: Path | None = None
    json: bool = False


@dataclass(frozen=True)
class ReportConfig:
    """What `plateau report` needs to know.

    Attributes:
        preset: Preset whose output folder to read; if not given, every output folder under ./runs.
        output: Output folder to read.
        open: Show the report in a browser.
    """

    preset: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[PRESET]")] = None
    output: Path | None = None
    open: bool = False


@dataclass(frozen=True)
class Run:
    """One run in a list of runs.

    Attributes:
        id: Short id.
        name: Id of the pipeline run in ML Metadata.
        began: When, local time.
        pipeline: Name of the pipeline.
        state: finished, failed, interrupted (its process died) or running.
        data: Short fingerprint of the examples; empty while there are none.
        strategy: What the schedule did at a plateau; empty if not recorded.
        monitor: Validation metric that steered the schedule; empty if not recorded.
        best_value: Its best value; None if not recorded.
        test_accuracy: Share of the test split classified correctly; None if not recorded.
        blessed: Whether the model passed the gates; None if it did not get there.
        pushed: Version the model was pushed as; None if it was not.
        served: Whether its model is the one served now.
        reason: Why the model was pushed by hand; empty if it was not.
        cached: Number of steps served from the cache.
        steps: Number of steps begun.
    """

    id: str
    name: str
    began: datetime
    pipeline: str
    state: RunState
    data: str
    strategy: str
    monitor: str
    best_value: float | None
    test_accuracy: float | None
    blessed: bool | None
    pushed: int | None
    served: bool
    cached: int
    steps: int
    reason: str = ""


@dataclass(frozen=True)
class Folder:
    """The runs of one output folder.

    Attributes:
        path: Output folder.
        runs: The newest first.
        served: What TensorFlow Serving takes; None if nothing is pushed.
    """

    path: Path
    runs: tuple[Run, ...]
    served: versions.Version | None


def folders(preset: str | None, output: Path | None) -> tuple[Path, ...]:
    """The output folders asked for that hold runs.

    Args:
        preset: Name of a preset, for its output folder.
        output: An output folder; goes before the preset.

    Raises:
        ValueError: There is no such preset, or `output` is no folder.
    """
    if preset is not None and output is None:
        asked = [presets.get(preset).build().folder]
    elif output is None:
        # What `plateau compare` trains for itself was never to be pushed.
        asked = [p for p in sorted(Path("runs").glob("*")) if not p.name.startswith("compare-")]
    elif output.is_dir():
        asked = [output]
    else:
        raise ValueError(
            f"--output must be the folder of earlier runs, got {output}, which is no folder. "
            "Leave --output out to see every folder under ./runs."
        )
    return tuple(path for path in asked if store.is_there(path))


def only_folder(output: Path | None) -> Path:
    """The one output folder that can be meant.

    Raises:
        ValueError: None under ./runs has a pushed model, or several have, or `output` is no folder.
    """
    if output is not None:
        return next(iter(folders(None, output)), output)
    found = [path for path in folders(None, None) if versions.folder_of(path).is_dir()]
    if len(found) == 1:
        return found[0]
    raise ValueError(
        "one output folder with a pushed model must be meant, found "
        f"{', '.join(map(str, found)) or 'none under ./runs'}. Say which with --output DIR."
    )


def read(output: Path) -> Folder:
    """List the runs of an output folder.

    Args:
        output: Output folder.

    Raises:
        ValueError: It has no ML Metadata.
    """
    return listed(store.read(store.store_of(output)), output)


def newest_report(outputs: Iterable[Path]) -> Path:
    """The report of the newest run that has one.

    Args:
        outputs: Output folders to look in.

    Raises:
        ValueError: There is none.
    """
    reports = []
    looked = list(outputs)
    for output in looked:
        records = store.read(store.store_of(output))
        own = [
            (run.began, path)
            for run in records.runs
            for _, artifact in records.outputs(*run.executions)
            if artifact.type == _REPORT_TYPE
            and (path := place(artifact, output) / REPORT).is_file()
        ]
        # Within a folder by the order of its runs, which no change of the clock touches.
        reports += own[-1:]
    if not reports:
        where = ", ".join(map(str, looked)) or "./runs"
        raise ValueError(
            f"a finished run must have left a report, found none in {where}. "
            "Start a run with `plateau run`, or name another folder with --output."
        )
    return max(reports)[1]


def short_id(name: str) -> str:
    """A run's id as people type it, made from its id in ML Metadata."""
    return hashlib.sha256(name.encode()).hexdigest()[:ID_LENGTH]


def listed(records: Records, output: Path) -> Folder:
    """List the runs that ML Metadata holds of an output folder."""
    served = versions.served(records, output)
    last = records.runs[-1] if records.runs else None
    return Folder(
        output,
        tuple(
            _run(records, run, served, busy=run is last and _unended(run) and _is_busy(output))
            for run in reversed(records.runs)
        ),
        served,
    )


def trainer(records: Records, run: PipelineRun) -> Execution | None:
    """The execution of a run that gave its model, or was to give it."""
    for execution in run.executions:
        if any(artifact.type == "Model" for _, artifact in records.outputs(execution)):
            return execution
    return next((e for e in run.executions if train_config(e.properties)), None)


def train_config(properties: Mapping[str, store.Scalar]) -> dict[str, Any]:
    """A trainer's config as JSON: a parameter of its own, or within TFX's custom_config."""
    return _json(_parameter(properties, "train_config"))


def code(properties: Mapping[str, store.Scalar]) -> str:
    """Fingerprint of the code that a trainer ran; empty if it recorded none."""
    return str(_parameter(properties, "code") or "")


def short_data(properties: Mapping[str, store.Scalar]) -> str:
    """Eight digits that change with the data."""
    fingerprint = str(properties.get("input_fingerprint", ""))
    # Ours has the code that read them beside the pictures.
    pictures = re.search(r"pictures:([0-9a-f]{8})", fingerprint)
    if pictures:
        return pictures[1]
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:8] if fingerprint else ""


def place(artifact: Artifact, output: Path) -> Path:
    """Where an artifact lies, also after the output folder has moved."""
    for folder in (output / "artifacts", versions.folder_of(output)):
        _, found, tail = artifact.uri.rpartition(f"/{folder.name}/")
        if found and (folder / tail).exists():
            return folder / tail
    return Path(artifact.uri)


def _run(records: Records, run: PipelineRun, served: versions.Version | None, busy: bool) -> Run:
    outputs = [artifact for _, artifact in records.outputs(*run.executions)]
    properties = {artifact.type: artifact.properties for artifact in outputs}
    history = properties.get("components.TrainingHistory", {})
    best = history.get("best_value")
    accuracies = (p[TEST_ACCURACY] for p in properties.values() if TEST_ACCURACY in p)
    pushed = next((v for v in map(versions.pushed_version, outputs) if v is not None), None)
    blessing = versions.by_hand(records).get(run.id)
    if blessing is not None:
        pushed = int(blessing.properties["pushed_version"])
    trained = trainer(records, run)
    return Run(
        id=short_id(run.id),
        name=run.id,
        began=run.began,
        pipeline=run.pipeline,
        state=_state(run, busy),
        data=short_data(properties.get("Examples", {})),
        strategy=_strategy(trained.properties) if trained else "",
        monitor=str(history.get("monitor", "")),
        best_value=None if best is None else float(best),
        test_accuracy=next(map(float, accuracies), None),
        blessed=_blessed(properties),
        pushed=pushed,
        served=served is not None and pushed in (served.origin, served.number),
        cached=sum(execution.state == "cached" for execution in run.executions),
        steps=len(run.executions),
        reason=str(blessing.properties["reason"]) if blessing else "",
    )


def _unended(run: PipelineRun) -> bool:
    """Whether there is no word of the end of a run: it is going on, or its process died."""
    states = {execution.state for execution in run.executions}
    pusher = any("pushed_model" in execution.outputs for execution in run.executions)
    return "failed" not in states and not (pusher and states <= {"complete", "cached"})


def _state(run: PipelineRun, busy: bool) -> RunState:
    if _unended(run):
        return "running" if busy else "interrupted"
    failed = any(execution.state == "failed" for execution in run.executions)
    return "failed" if failed else "finished"


def _is_busy(output: Path) -> bool:
    """Whether a process is running in the output folder."""
    try:
        with lock.hold(output):
            return False
    except lock.OutputBusyError:
        return True
    except ValueError:
        # Nobody can run where nothing can be written.
        return False


def _blessed(properties: Mapping[str, Mapping[str, store.Scalar]]) -> bool | None:
    """What the Evaluator decided, and whoever tried to serve the model."""
    if "ModelBlessing" not in properties:
        return None
    good = properties["ModelBlessing"].get("blessed") == 1
    # Our Servable says `blessed`, TFX's InfraValidator `blessing_status`.
    infra = properties.get("InfraBlessing", {})
    servable = infra.get("blessed", 1) == 1
    return good and servable and infra.get("blessing_status") in (None, "INFRA_BLESSED")


def _parameter(properties: Mapping[str, store.Scalar], name: str) -> object:
    return properties.get(name, _json(properties.get("custom_config")).get(name))


def _strategy(properties: Mapping[str, store.Scalar]) -> str:
    schedule = train_config(properties).get("schedule", {})
    return str(properties.get("strategy", schedule.get("strategy", "")))


def _json(text: object) -> dict[str, Any]:
    try:
        parsed = json.loads(parameter.text(str(text)))
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
