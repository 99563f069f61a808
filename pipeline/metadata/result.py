"""What a run came to, read back from ML Metadata and from the Evaluator's files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components import gate
from components.evaluation import results
from components.evaluation.results import Evaluation, SliceMetrics
from components.servable import verdict as servable

from ..config import RunConfig
from ..evaluation import ROUNDING
from . import store as metadata
from .runs import REPORT
from .store import Artifact, Execution

__all__ = ["Evaluation", "RunResult", "SliceMetrics", "Step", "read_run"]


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
class RunResult:
    """A finished run.

    Attributes:
        steps: The components in the order they ran.
        evaluation: What the Evaluator found.
        blessed: Whether the model passed every gate of the evaluation.
        unservable: Checks that the model failed in a process of its own, in words.
        model: Folder of the trained model.
        pushed: Folder the model was pushed to; None if it was not.
        report: The page about the run.
        log: The log file.
        seconds: Wall time of the whole run, imports included.
        bad_images: Pictures left out because they cannot be decoded.
        converted_images: Images stored as PNG because of their format.
        left_out_files: Files in the class folders that are no images.
        left_out_suffixes: Their numbers by suffix, in words.
        unlabelled_rows: Rows of a table left out because they have no label.
    """

    steps: tuple[Step, ...]
    evaluation: Evaluation
    blessed: bool
    unservable: tuple[str, ...]
    model: Path
    pushed: Path | None
    report: Path
    log: Path
    seconds: float
    bad_images: int = 0
    converted_images: int = 0
    left_out_files: int = 0
    left_out_suffixes: str = ""
    unlabelled_rows: int = 0


def read_run(
    store: metadata.Store, run_id: str, config: RunConfig, *, log: Path, seconds: float
) -> RunResult:
    """Read a finished run.

    Args:
        store: Where ML Metadata recorded it.
        run_id: The pipeline run's id.
        config: The run, with `classes` filled in.
        log: The log file.
        seconds: Wall time of the run.
    """
    records = metadata.read(store)
    run = next(run for run in records.runs if run.id == run_id)
    outputs = {e.component: dict(records.outputs(e)) for e in run.executions}
    evaluator = outputs["Evaluator"]
    push = outputs["Pusher"]["pushed_model"].properties
    return RunResult(
        steps=tuple(_step(execution) for execution in run.executions),
        evaluation=results.read(evaluator["evaluation"].uri, config.classes, rounding=ROUNDING),
        blessed=evaluator["blessing"].properties["blessed"] == 1,
        unservable=failed_checks(Path(outputs["Servable"]["blessing"].uri)),
        model=Path(outputs["Trainer"]["model"].uri),
        pushed=Path(str(push["pushed_destination"])) if push["pushed"] == 1 else None,
        report=Path(outputs["TrainingReport"]["report"].uri) / REPORT,
        log=log,
        seconds=seconds,
        **_counts(outputs),
    )


def _step(execution: Execution) -> Step:
    states: dict[str, Literal["run", "cached"]] = {"complete": "run", "cached": "cached"}
    return Step(execution.component, execution.seconds, states.get(execution.state, "failed"))


def failed_checks(blessing: Path) -> tuple[str, ...]:
    """The checks of serving that a model failed, in words.

    Args:
        blessing: Folder of the InfraBlessing that Servable wrote.
    """
    checks = json.loads((blessing / servable.FILE_NAME).read_text())["checks"]
    return tuple(map(str, gate.failed(map(gate.parse, checks))))


def _counts(outputs: Mapping[str, Mapping[str, Artifact]]) -> dict[str, Any]:
    """What was left out or converted when the data was read."""
    examples = next(found["examples"] for found in outputs.values() if "examples" in found)
    counts = ("bad_images", "converted_images", "left_out_files", "unlabelled_rows")
    return {
        **{name: int(examples.properties.get(name, 0)) for name in counts},
        "left_out_suffixes": str(examples.properties.get("left_out_suffixes", "")),
    }
