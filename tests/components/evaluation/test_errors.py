import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import r2_score

from components.evaluation import errors

Pairs = list[tuple[float, float]]
NUMBERS = st.floats(-1e3, 1e3)


def sums(pairs: Pairs, groups: int = errors.GROUPS) -> np.ndarray:
    """The sums of (label, prediction), dealt to the groups in turn."""
    made = np.zeros((groups, 5))
    for place, (y, predicted) in enumerate(pairs):
        made[place % groups] += 1, y, y * y, abs(predicted - y), (predicted - y) ** 2
    return made


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=300))
def test_r2_is_that_of_scikit_learn(pairs: Pairs) -> None:
    labels, predicted = zip(*pairs, strict=True)
    if np.std(labels) > 1:
        value = errors.values(sums(pairs))
        assert value["r2"] == pytest.approx(r2_score(labels, predicted), rel=1e-6, abs=1e-6)
        assert value["r2_low"] <= value["r2"] <= value["r2_high"]


def test_intervals_are_those_of_the_bootstrap() -> None:
    random = np.random.default_rng(0)
    labels = random.normal(10, 3, 400)
    predicted = labels + random.standard_t(5, 400)
    value = errors.values(sums(list(zip(labels, predicted, strict=True))))
    expected = bootstrap(
        *((labels, predicted), r2_score),
        **{"paired": True, "vectorized": False, "n_resamples": 1000, "random_state": random},
    ).confidence_interval
    width = expected.high - expected.low
    assert value["r2_low"] == pytest.approx(expected.low, abs=0.25 * width)
    assert value["r2_high"] == pytest.approx(expected.high, abs=0.25 * width)
    wrong = np.abs(labels - predicted)
    margin = 1.96 * wrong.std() / np.sqrt(len(wrong))
    assert value["mae_high"] - wrong.mean() == pytest.approx(margin, rel=0.25)


@pytest.mark.parametrize(
    "pairs", [[(3.0, 3.0)], [(3.0, 3.0), (3.0, 4.0)], [(1.0, 2.0), (2.0, 2.0)]]
)
def test_too_little_to_say_anything(pairs: Pairs) -> None:
    """No gate may pass by numbers that a division by nothing left."""
    value = errors.values(sums(pairs))
    assert not value["r2_low"] > 0
