"""The gradient noise scale B_simple of McCandlish et al. 2018 (arXiv:1812.06162), as a run goes.

B_simple = tr(S) / |G|^2, the variance of an example's gradient over the squared length of the true
one, is the batch size at which noise and signal of the gradient are equal. With g_b the mean
gradient over b examples, E|g_b|^2 = |G|^2 + tr(S) / b; so two batch sizes give two equations, and
appendix A.1 of the paper the unbiased solutions used here. Each is averaged by itself, because the
ratio of averages is far less noisy than the average of ratios.
"""

from typing import NamedTuple

EVERY = 100
"""Updates between measurements: one costs about a step, so that all cost about 1 %."""

DECAY = 0.9
"""Weight of the past in the averages, for each measurement."""


class NoiseState(NamedTuple):
    """Averages of the measurements so far.

    Attributes:
        signal: Decaying sum of the estimates of |G|^2.
        noise: Decaying sum of the estimates of tr(S).
        updates: Optimizer updates since the last measurement.
    """

    signal: float = 0.0
    noise: float = 0.0
    updates: int = EVERY

    @property
    def b_simple(self) -> float | None:
        """B_simple in examples; None before the first sensible measurement."""
        if self.signal <= 0 or self.noise <= 0:
            return None
        return self.noise / self.signal


def due(state: NoiseState, updates: int) -> tuple[NoiseState, int]:
    """How many measurements to take in an epoch of `updates` updates, and the state after it."""
    total = state.updates + updates
    return state._replace(updates=total % EVERY), total // EVERY


def measured(
    state: NoiseState, size: float, small_squared: float, big_squared: float
) -> NoiseState:
    """Take in one measurement.

    Args:
        state: State before.
        size: Examples b in the bigger batch; the smaller ones are its two halves.
        small_squared: Mean of |g_{b/2}|^2 over the halves.
        big_squared: |g_b|^2.

    Returns:
        State after; unchanged if a value is not finite.
    """
    signal = 2 * big_squared - small_squared
    noise = size * (small_squared - big_squared)
    if not abs(signal) + abs(noise) < float("inf"):
        return state
    return state._replace(
        signal=DECAY * state.signal + (1 - DECAY) * signal,
        noise=DECAY * state.noise + (1 - DECAY) * noise,
    )
