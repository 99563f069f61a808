"""Learning rate range test: the first learning rate, by the loss while the rate grows.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3.
"""

import contextlib
import itertools
import json
import math
import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from trainer_module.distributed import strategies
from trainer_module.training.batch import DatasetFactory, cut_to, distributed
from trainer_module.training.checkpoint import undone
from trainer_module.training.step import Steps
from trainer_module.util import files
from trainer_module.util.checks import require

UPDATES = 100
"""Updates of a test whose loss does not diverge."""

LOWEST, HIGHEST = 1e-6, 10.0
"""Learning rates of the first and of the last update."""

FILE_NAME = "range_test.json"

# Weight of each neighbour in the smoothed loss, relative to the loss between the two.
_SMOOTHING = 0.8
# Updates at first whose rates are too low to change anything: their losses show the noise.
_IDLE = 20
# Standard deviations of the smoothed loss by which it must fall.
_SIGNIFICANT = 3.5
# Share of its fall after which the loss is taken for the lowest.
_FALLEN = 0.95
# By how much the first learning rate is below that of the lowest loss.
_MARGIN = 4.0
# Share of the loss by which it may rise without having been raised.
_UNCHANGED = 0.01
# Weight of the past in the average that has diverged where it is above its smallest value by so
# many times that value.
_MEMORY, _DIVERGED = 0.9, 3.0
_DIGITS = 3


@dataclass(frozen=True)
class RangeTest:
    """Result of a range test.

    Attributes:
        learning_rate: The rate to begin with.
        rates: Learning rate of each update.
        losses: Smoothed training loss at each update.
        seconds: What it took.
    """

    learning_rate: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: float


def choose(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Returns a quarter of the rate at which the smoothed loss stops to fall.

    There it is about to diverge; a quarter is Smith's margin. It stops where 95 % of its fall lie
    behind it, since it may be flat for a decade before it rises. Where no rate lowered it by more
    than its noise, as with trained weights, the largest rate that did not raise it is divided.

    Args:
        rates: Learning rates, ascending.
        losses: Training loss of the batch at each of them.
    """
    idle = min(_IDLE, len(losses) // 2)
    smoothed = smooth(losses)
    before, noise = (losses[0], 0.0)
    if idle > 1:
        before = statistics.fmean(losses[:idle])
        # Variances of the smoothed loss, where losses are independent, and of their mean.
        weight = (1 - _SMOOTHING) / (1 + _SMOOTHING)
        share = weight**2 * (1 + _SMOOTHING**2) / (1 - _SMOOTHING**2)
        noise = _SIGNIFICANT * math.sqrt(share + 1 / idle) * statistics.stdev(losses[:idle])
    fall = before - min(smoothed[idle:])
    if fall > noise:
        bound = before - _FALLEN * fall
        chosen = next(i for i, loss in enumerate(smoothed) if i >= idle and loss <= bound)
    else:
        bound = before + max(noise, _UNCHANGED * abs(before))
        chosen = max((i for i, loss in enumerate(smoothed) if loss <= bound), default=0)
    return float(f"{rates[chosen] / _MARGIN:.{_DIGITS}g}")


def smooth(losses: Sequence[float]) -> list[float]:
    """Returns averages of each loss and those around it, with weights that fall exponentially.

    An average of past losses alone is lowest some ten updates late, at a rate five times too high.
    """
    update = np.arange(len(losses))
    weights = _SMOOTHING ** abs(update[:, None] - update)
    averages: list[float] = (weights @ losses / weights.sum(axis=1)).tolist()
    return averages


def find(
    steps: Steps,
    make_dataset: DatasetFactory,
    batch_size: int,
    micro_batch: int | None,
    *,
    directory: Path | None,
    clock: Callable[[], float],
) -> RangeTest:
    """Returns the test of this run: that in `directory` where it was resumed, or else a new one.

    Weights, optimizer and random states are as before, so that the run is that of the same rate
    given. Several workers test together, and take the chief's result.

    Args:
        steps: Training step of the run.
        make_dataset: Batches of an epoch.
        batch_size: First global batch size, in examples.
        micro_batch: Largest batch a replica computes at once.
        directory: Folder that keeps the result; None for none, and on all workers but the chief.
        clock: Seconds, monotonic.
    """
    file = directory / FILE_NAME if directory else None
    text = file.read_text() if file and file.exists() else ""
    several = strategies.has_several_workers(steps.strategy)
    if several:
        text = strategies.from_chief(text.encode(), steps.strategy).decode()
    if not text:
        began = clock()
        losses = _measure(steps, make_dataset, batch_size, micro_batch)
        require(
            bool(losses),
            "the loss must be finite before the first update",
            "NaN or infinity",
            "Look for such values in the data, or set the learning rate.",
        )
        rates = _rates()[: len(losses)]
        test = RangeTest(
            choose(rates, losses), tuple(rates), tuple(smooth(losses)), clock() - began
        )
        text = json.dumps(asdict(test))
        if several:
            text = strategies.from_chief(text.encode(), steps.strategy).decode()
    if file and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic(file) as temporary:
            temporary.write_text(text)
    fields = json.loads(text)
    return RangeTest(**fields | {name: tuple(fields[name]) for name in ("rates", "losses")})


def _rates() -> list[float]:
    rates: list[float] = np.geomspace(LOWEST, HIGHEST, UPDATES).tolist()
    return rates


def _measure(
    steps: Steps, make_dataset: DatasetFactory, batch_size: int, micro_batch: int | None
) -> list[float]:
    """Returns the loss at each rate, up to where it diverges."""
    losses: list[float] = []
    total, least = 0.0, math.inf
    with contextlib.closing(_losses(steps, make_dataset, batch_size, micro_batch)) as trained:
        for loss in trained:
            total = _MEMORY * total + (1 - _MEMORY) * loss
            average = total / (1 - _MEMORY ** (len(losses) + 1))
            if not math.isfinite(average) or average > least + _DIVERGED * abs(least):
                break
            least = min(least, average)
            losses.append(loss)
    return losses


def _losses(
    steps: Steps, make_dataset: DatasetFactory, batch_size: int, micro_batch: int | None
) -> Generator[float]:
    """Trains at each of the rates in turn, and yields the loss of each batch before its update."""
    optimizer = steps.optimizer
    cut = cut_to(batch_size, micro_batch, int(steps.strategy.num_replicas_in_sync))
    rates = iter(_rates())
    with undone(steps.model, optimizer):
        optimizer.learning_rate.assign(next(rates))
        for epoch in itertools.count(1):
            elements = distributed(make_dataset(batch_size, epoch), steps.strategy, cut)
            loss, examples = 0.0, 0.0
            for call in steps.train_epoch(elements, micro=cut is not None):
                loss += float(call.sums[0])
                examples += float(call.sums[-1])
                if not call.batches:
                    continue
                yield loss / examples
                loss, examples = 0.0, 0.0
                rate = next(rates, None)
                if rate is None:
                    return
                optimizer.learning_rate.assign(rate)
