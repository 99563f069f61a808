"""Simple noise scale B_simple of McCandlish et al. 2018 (arXiv:1812.06162), measured along a run.

B_simple = tr(S) / |G|^2, the variance of an example's gradient over the squared length of the true
one, is the batch size at which noise and signal of the gradient are equal. With g_b the mean
gradient over b examples, E|g_b|^2 = |G|^2 + tr(S) / b. Two batch sizes give two equations, and
appendix A.1 of the paper the unbiased estimates of |G|^2 and tr(S) used here.

A measurement compares half batches with the mean of several batches, all at the same weights. K
batches together tell |G|^2 with a variance 2K times smaller than K separate measurements. No
measurement is averaged with earlier ones: |G|^2 falls by orders of magnitude while a model trains,
so that the first measurements would outweigh all others for thousands of updates.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

EVERY = 800
"""Updates between measurements, later in a run."""

FIRST = 100
"""Updates between the first measurement and the second, when gradients change fastest."""

BATCHES = 8
"""Batches in a measurement: each costs about a step, so that all cost about 1 % of a long run."""


class NoiseState(NamedTuple):
    """The last measurement."""

    signal: float | None = None
    """Estimate of |G|^2; None before the first measurement."""

    noise: float = 0.0
    """Estimate of tr(S)."""

    updates: int = 0
    """Optimizer updates so far."""

    due: int = 0
    """Updates after which the next measurement is due."""

    @property
    def b_simple(self) -> float | None:
        """B_simple in examples; None if not measured, infinity where noise hides the signal."""
        if self.signal is None:
            return None
        return self.noise / self.signal if self.signal > 0 else math.inf


class Measurement(NamedTuple):
    """Mean squared lengths of gradients over two numbers of examples, at the same weights.

    Attributes:
        small_size: Examples in each of the small batches.
        small_squared: Mean of |g|^2 over the small batches.
        big_size: Examples in the big batch, which all small ones form together.
        big_squared: |g|^2 of the big batch.
    """

    small_size: float
    small_squared: float
    big_size: float
    big_squared: float


def due(state: NoiseState, updates: int) -> tuple[NoiseState, int]:
    """Returns how many batches to measure at the start of an epoch of `updates` updates.

    Returns:
        The state after the epoch, and the number of batches, 0 or BATCHES.
    """
    after = state._replace(updates=state.updates + updates)
    if state.updates < state.due:
        return after, 0
    return after._replace(due=state.updates + min(FIRST + state.updates, EVERY)), BATCHES


def measured(state: NoiseState, measurements: Sequence[Measurement]) -> NoiseState:
    """Replaces the last measurement by the mean of those of an epoch.

    Signal and noise are averaged separately, since the ratio of averages is far less noisy than the
    average of ratios.

    Returns:
        State after; unchanged if no measurement has finite values of two different sizes.
    """
    usable = [
        m for m in measurements if m.big_size > m.small_size > 0 and all(map(math.isfinite, m))
    ]
    if not usable:
        return state
    signals = [
        (m.big_size * m.big_squared - m.small_size * m.small_squared) / (m.big_size - m.small_size)
        for m in usable
    ]
    noises = [
        (m.small_squared - m.big_squared) / (1 / m.small_size - 1 / m.big_size) for m in usable
    ]
    return state._replace(
        signal=math.fsum(signals) / len(usable), noise=max(math.fsum(noises) / len(usable), 0.0)
    )
