import numpy as np
import pytest
import tensorflow as tf

from components.servable.comparison import difference, is_floating

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("one", "other", "largest"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.25], [0.5], 0.25),
        ([300.0], [200.0], 0.5),
        ([NAN, INF, -INF], [NAN, INF, -INF], 0.0),
        ([NAN], [1.0], INF),
        ([INF], [-INF], INF),
        ([], [], 0.0),
    ],
)
def test_floating_values(one: list[float], other: list[float], largest: float) -> None:
    assert difference(np.array(one), np.array(other)) == (largest, 0, len(one))


def test_other_values_are_counted() -> None:
    assert difference(np.array([1, 2, 3]), np.array([1, 0, 0])) == (0.0, 2, 3)
    names = np.array([b"a", b"b"], object)
    assert difference(names, np.array([b"a", b"c"], object)) == (0.0, 1, 2)


def test_other_shapes_differ_throughout() -> None:
    assert difference(np.zeros((2, 3)), np.zeros((2, 4))) == (0.0, 8, 8)


def test_bfloat16_is_floating() -> None:
    halves = tf.constant([1.0, 2.0], tf.bfloat16).numpy()
    assert is_floating(halves)
    assert difference(halves, halves) == (0.0, 0, 2)
    assert not is_floating(np.array([b"a"], object))
