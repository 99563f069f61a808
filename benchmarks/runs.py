"""Finished runs of the contest: their file, and what they show when compared.  No TensorFlow."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.comparison import Comparison
from pipeline.compare.statistics import Comparison as SideBySide
from pipeline.compare.statistics import Trial
from trainer_module.history import EpochRecord, History
from trainer_module.schedule.scaling import TrainingSpec
from trainer_module.schedule.strategy import FORMER_ACTIONS

MONITOR, TEST = "val_accuracy", "test_accuracy"


@dataclass(frozen=True)
class Epoch:
    """What one epoch of a run had come to.

    Attributes:
        epoch: Epoch, from 1.
        updates: Optimizer updates so far.
        seconds: Seconds of training so far, test evaluations not counted.
        val_accuracy: Accuracy on the images that steer the schedule.
        test_accuracy: Accuracy on the test images of the curve.
        learning_rate: Learning rate during the epoch.
        batch_size: Batch size during the epoch, in examples.
        action: What the schedule did after the epoch; "none" mostly.
    """

    epoch: int
    updates: int
    seconds: float
    val_accuracy: float
    test_accuracy: float
    learning_rate: float
    batch_size: int
    action: str


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        contestant: Who ran.
        seed: Seed of weights, order and augmentation.
        settings: What all comparable runs have in common.
        epochs: The epochs, in order.
        test_accuracy: Accuracy of the kept weights on all test images.
        stop_reason: Why the run ended.
    """

    contestant: str
    seed: int
    settings: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    test_accuracy: float
    stop_reason: str

    @property
    def updates(self) -> int:
        return self.epochs[-1].updates

    @property
    def seconds(self) -> float:
        return self.epochs[-1].seconds


def append(path: Path, run: Run) -> None:
    """Add a run to a JSON Lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        # An interrupted write left half a line, which must not swallow this one.
        if file.tell():
            file.seek(-1, os.SEEK_END)
        broken = file.read(1) not in (b"", b"\n")
        line = json.dumps(asdict(run), sort_keys=True)
        file.write(("\n" * broken + line + "\n").encode())


def read(path: Path, settings: Mapping[str, Any]) -> list[Run]:
    """The runs in a file that were made with these settings; a line cut short is no run."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            data = json.loads(line)
        except json.JSONDecodeError:
            continue
        if data["settings"] == dict(settings):
            epochs = tuple(Epoch(**epoch) for epoch in data.pop("epochs"))
            found.append(Run(**data, epochs=epochs))
    return found


def compare(
    runs: Sequence[Run], own: str, other: str, targets: Mapping[str, float]
) -> list[Comparison]:
    """Comparisons of two contestants over the seeds that both have run.

    Args:
        runs: Runs of any contestants.
        own: Contestant whose figures are the numerators.
        other: The contestant it is compared with.
        targets: What the ratios of "updates" and "seconds" must not exceed, and what "accuracy"
            may lack, in standard deviations over the seeds. One run of each is no evidence for or
            against, so they count from two seeds on.

    Returns:
        Whole runs: updates, seconds and test accuracy.
    """
    pairs = _pairs(runs, own, other)
    if not pairs:
        return []
    bounds = targets if len(pairs) > 1 else {}
    rows = [
        Comparison(
            f"{name} of a whole run, {own}",
            other,
            tuple(getattr(a, name) / getattr(b, name) for a, b in pairs),
            "at most",
            bounds.get(name),
        )
        for name in ("updates", "seconds")
    ]
    return [*rows, _accuracy(own, other, pairs, bounds.get("accuracy"))]


def compare_on_the_way(runs: Sequence[Run], own: str, other: str) -> list[Comparison]:
    """Updates and seconds until the test accuracy first reached a level.

    It is the highest that both runs of a seed came to.

    Args:
        runs: Runs of any contestants.
        own: Contestant whose figures are the numerators.
        other: The contestant it is compared with.
    """
    pairs = _pairs(runs, own, other)
    rows = []
    for name in ("updates", "seconds") if pairs else ():
        values = []
        for a, b in pairs:
            level = min(max(e.test_accuracy for e in run.epochs) for run in (a, b))
            values.append(getattr(reaching(a, level), name) / getattr(reaching(b, level), name))
        rows.append(
            Comparison(
                f"{name} to the same test accuracy, {own}",
                other,
                tuple(values),
                "at most",
                note="to the highest accuracy that both came to; alike until the first plateau",
            )
        )
    return rows


def _pairs(runs: Sequence[Run], own: str, other: str) -> list[tuple[Run, Run]]:
    mine = {run.seed: run for run in runs if run.contestant == own}
    others = {run.seed: run for run in runs if run.contestant == other}
    return [(mine[seed], others[seed]) for seed in sorted(mine.keys() & others.keys())]


def _accuracy(
    own: str, other: str, pairs: Sequence[tuple[Run, Run]], target: float | None
) -> Comparison:
    a, b = ([run.test_accuracy for run in side] for side in zip(*pairs, strict=True))
    lag, spread = mean(b) - mean(a), pooled_spread(a, b)
    if len(pairs) == 1:
        what = f"test accuracy that {own} lacks"
        return Comparison(what, other, (lag,), "at most", note=f"{a[0]:.4f} against {b[0]:.4f}")
    return Comparison(
        f"test accuracy that {own} lacks, in standard deviations over seeds",
        other,
        (lag / spread if spread else math.copysign(math.inf, lag) if lag else 0.0,),
        "at most",
        target,
        f"{mean(a):.4f} against {mean(b):.4f}, standard deviation {spread:.4f}, n = {len(pairs)}",
    )


def reaching(run: Run, level: float) -> Epoch:
    """The first epoch of a run whose test accuracy is at least `level`."""
    return next(epoch for epoch in run.epochs if epoch.test_accuracy >= level)


def pooled_spread(a: Sequence[float], b: Sequence[float]) -> float:
    """Root mean square of two standard deviations; 0 for single values."""
    variances = [stdev(values) ** 2 if len(values) > 1 else 0.0 for values in (a, b)]
    return math.sqrt(mean(variances))


def comparison(runs: Sequence[Run], spec: TrainingSpec) -> SideBySide:
    """The runs as `plateau compare` shows them.

    Args:
        runs: Runs of all contestants over the same seeds.
        spec: What the update noise depends on beside learning rate and batch.
    """
    return SideBySide(tuple(_trial(run, spec) for run in runs))


def _trial(run: Run, spec: TrainingSpec) -> Trial:
    records: list[EpochRecord] = []
    best = -math.inf
    for epoch in run.epochs:
        past = records[-1] if records else None
        updates = epoch.updates - (past.updates if past else 0)
        records.append(
            EpochRecord.after(
                past,
                spec,
                metrics={MONITOR: epoch.val_accuracy, TEST: epoch.test_accuracy},
                learning_rate=epoch.learning_rate,
                batch_size=epoch.batch_size,
                updates=updates,
                examples=updates * epoch.batch_size,
                seconds=epoch.seconds,
                action=FORMER_ACTIONS.get(epoch.action, epoch.action),
                reason="" if epoch.action == "none" else f"no better {MONITOR}",
                best=epoch.val_accuracy > best,
            )
        )
        best = max(best, epoch.val_accuracy)
    history = History(run.settings, MONITOR, "max", tuple(records), run.stop_reason)
    return Trial(run.contestant, run.seed, history, run.test_accuracy)
