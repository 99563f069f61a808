"""Let contestants take turns, epoch by epoch, so that all meet the same state of the machine."""

import time
from collections.abc import Callable, Mapping
from statistics import median

from trainer_module.history import EpochRecord, History, Writer

EpochTimer = Callable[[int], float]
"""Runs the epoch of that number, from 1, and gives its seconds."""

OWN = "plateau"


class _Turns:
    """A history writer that lets the rivals run between two epochs of our loop.

    The loop is so measured whole, through its public interface: data set, steps, evaluation,
    decision, history and checkpoint of an epoch all lie between two calls of `epoch`.
    """

    def __init__(self, rivals: Mapping[str, EpochTimer], warmup: int) -> None:
        self._rivals = rivals
        self._warmup = warmup
        self._since = 0.0
        self.seconds: dict[str, list[float]] = {OWN: [], **{name: [] for name in rivals}}

    def start(self, history: History) -> None:
        self._since = time.perf_counter()

    def batch(self, done: int, steps: int | None) -> None:
        """Nothing: turns are whole epochs."""

    def epoch(self, record: EpochRecord) -> None:
        taken = {OWN: time.perf_counter() - self._since}
        taken |= {name: rival(record.epoch) for name, rival in self._rivals.items()}
        if record.epoch > self._warmup:
            for name, seconds in taken.items():
                self.seconds[name].append(seconds)
        self._since = time.perf_counter()

    def note(self, text: str) -> None:
        """Nothing: nobody watches."""

    def close(self, history: History) -> None:
        """Nothing to close."""


def race(
    train: Callable[[Writer], object], rivals: Mapping[str, EpochTimer], *, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each epoch after the warm-up, for our loop and its rivals in turns.

    Args:
        train: Runs our loop for as many epochs as wanted, telling the given writer.
        rivals: The others, by name.
        warmup: Epochs left out, in which graphs are traced.
    """
    turns = _Turns(rivals, warmup)
    train(turns)
    return turns.seconds


def fastest(candidates: Mapping[str, EpochTimer], trials: int = 2) -> tuple[str, dict[str, float]]:
    """The name of the quickest candidate, and the median seconds of each, one warm-up left out."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for epoch in range(1, trials + 2):
        for name, run in candidates.items():
            seconds = run(epoch)
            if epoch > 1:
                taken[name].append(seconds)
    medians = {name: median(seconds) for name, seconds in taken.items()}
    return min(medians, key=lambda name: medians[name]), medians
