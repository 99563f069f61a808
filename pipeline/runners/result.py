"""Result of a finished run, from ML Metadata and the Evaluator's files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.evaluation import results
from components.evaluation.results import Evaluation, SliceMetrics

from ..config import RunConfig
from ..evaluation import ROUNDING, failed_checks
from ..metadata import store as metadata
from ..metadata.runs import REPORT
from ..metadata.store import Execution

__all__ = ["Evaluation", "RunResult", "SliceMetrics", "Step", "read_run"]


@dataclass(frozen=True)
class Step:
    """One component in one run."""

    component: str
    seconds: float
    """From its registration to its publication in ML Metadata."""
    state: Literal["run", "cached", "failed"]


@dataclass(frozen=True)
class RunResult:
    """Finished run."""

    steps: tuple[Step, ...]
    """Components in the order they ran."""
    evaluation: Evaluation
    blessed: bool
    """Whether the model passed every gate of the evaluation."""
    unservable: tuple[str, ...]
    """Checks of Servable that the model failed, in words."""
    model: Path
    """Folder of the trained model."""
    pushed: Path | None
    """Folder the model was pushed to; None if it was not."""
    report: Path
    """Page about the run."""
    log: Path
    seconds: float
    """Wall time of the whole run, imports included."""
    bad_images: int = 0
    """Images left out because they cannot be decoded."""
    converted_images: int = 0
    """Images stored as PNG because of their format."""
    left_out_files: int = 0
    """Files in the class folders that are no images."""
    left_out_suffixes: str = ""
    """Their numbers by suffix, in words."""
    unlabelled_rows: int = 0
    """Rows of a table left out because they have no label."""
    is_weighted: bool = False
    """Whether the classes were weighted in training."""


def read_run(
    store: metadata.Store, run_id: str, config: RunConfig, *, log: Path, seconds: float
) -> RunResult:
    """Reads a finished run.

    Args:
        store: Where ML Metadata recorded it.
        run_id: The pipeline run's id.
        config: The run, with `classes` filled in.
        log: The log file.
        seconds: Wall time of the run.
    """
    run = metadata.read(store).run(run_id)
    outputs = {e.component: dict(e.outputs) for e in run.executions}
    evaluator = outputs["Evaluator"]
    push = outputs["Pusher"]["pushed_model"].properties
    examples: dict[str, Any] = dict(dict(run.outputs)["examples"].properties)
    counts = ("bad_images", "converted_images", "left_out_files", "unlabelled_rows")
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
        is_weighted=config.loop.class_weight != "none",
        left_out_suffixes=str(examples.get("left_out_suffixes", "")),
        **{name: int(examples.get(name, 0)) for name in counts},
    )


def _step(execution: Execution) -> Step:
    states: dict[str, Literal["run", "cached"]] = {"complete": "run", "cached": "cached"}
    return Step(execution.component, execution.seconds, states.get(execution.state, "failed"))
