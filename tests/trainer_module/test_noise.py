import numpy as np
import pytest

from trainer_module.noise import EVERY, NoiseState, due, measured


def test_recovers_a_known_noise_scale():
    """Gradients drawn around a true one: B_simple is their variance over its squared length."""
    random = np.random.default_rng(0)
    true = np.full(50, 0.3)
    deviation, size = 2.0, 32
    state = NoiseState()
    for _ in range(3000):
        halves = true + random.normal(0, deviation / np.sqrt(size / 2), (2, 50))
        small = np.mean(np.sum(halves**2, axis=1))
        big = np.sum(np.mean(halves, axis=0) ** 2)
        state = measured(state, size, small, big)
    expected = 50 * deviation**2 / np.sum(true**2)
    assert state.b_simple == pytest.approx(expected, rel=0.5)


def test_says_nothing_before_a_sensible_measurement():
    assert NoiseState().b_simple is None
    # A big batch whose gradient is longer than its halves': a negative variance.
    assert measured(NoiseState(), 8, small_squared=1.0, big_squared=2.0).b_simple is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_measurement_that_is_not_finite_counts_for_nothing(bad):
    state = measured(NoiseState(), 8, 2.0, 1.5)
    assert measured(state, 8, bad, 1.0) == state
    assert measured(state, 8, 1.0, bad) == state


def test_the_first_epoch_is_measured_and_later_ones_every_so_many_updates():
    state, times = due(NoiseState(), 10)
    assert times == 1
    counts = []
    for _ in range(64):
        state, times = due(state, 10)
        counts.append(times)
    assert sum(counts) == 64 * 10 // EVERY
    assert max(counts) == 1


def test_a_long_epoch_is_measured_several_times():
    state, times = due(NoiseState(updates=0), 10 * EVERY + 3)
    assert (times, state.updates) == (10, 3)
