"""Contestants that take turns, epoch by epoch, so that all meet the same state of the machine."""

import time
from collections.abc import Callable, Mapping
from statistics import median

from trainer_module.history import EpochRecord, History
from trainer_module.training.callbacks import Callback

EpochTimer = Callable[[int], float]
"""Runs the epoch of that number, from 1, and returns its seconds."""

OWN = "plateau"


class _Turns(Callback):
    """A callback that lets the rivals run between two epochs of our loop.

    The loop is measured through its public interface: dataset, steps, evaluation, decision, history
    and checkpoint of an epoch all lie between two calls of `on_epoch_end`.
    """

    def __init__(self, rivals: Mapping[str, EpochTimer]) -> None:
        self._rivals = rivals
        self.seconds: dict[str, list[float]] = {OWN: [], **{name: [] for name in rivals}}

    def on_train_begin(self, history: History) -> None:
        self._since = time.perf_counter()

    def on_epoch_end(self, record: EpochRecord) -> None:
        taken = {OWN: time.perf_counter() - self._since}
        taken |= {name: rival(record.epoch) for name, rival in self._rivals.items()}
        # In the first epoch graphs are traced.
        if record.epoch > 1:
            for name, seconds in taken.items():
                self.seconds[name].append(seconds)
        self._since = time.perf_counter()


def race(
    train: Callable[[Callback], object], rivals: Mapping[str, EpochTimer]
) -> dict[str, list[float]]:
    """Seconds of each epoch after the first, for our loop and its rivals in turns.

    Args:
        train: Runs our loop for as many epochs as wanted, with the given callback.
        rivals: The others, by name.
    """
    turns = _Turns(rivals)
    train(turns)
    return turns.seconds


def fastest(candidates: Mapping[str, EpochTimer], trials: int = 2) -> tuple[str, dict[str, float]]:
    """The name of the fastest candidate, and the median seconds of each after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for epoch in range(1, trials + 2):
        for name, run in candidates.items():
            seconds[name].append(run(epoch))
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    return min(medians, key=lambda name: medians[name]), medians
