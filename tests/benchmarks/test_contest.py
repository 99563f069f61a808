import numpy as np
import pytest
import tensorflow as tf

from benchmarks.contest import Clock, concatenated


def test_a_paused_clock_stands_still():
    now = [10.0]
    clock = Clock(lambda: now[0])
    start = clock()
    now[0] += 2
    with clock.paused():
        now[0] += 50
    now[0] += 1
    assert clock() - start == pytest.approx(3.0)


def test_a_clock_goes_on_after_an_error():
    now = [0.0]
    clock = Clock(lambda: now[0])
    with pytest.raises(KeyError), clock.paused():
        now[0] += 5
        raise KeyError
    now[0] += 1
    assert clock() == pytest.approx(1.0)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_concatenated_keeps_the_order(count):
    parts = [tf.data.Dataset.from_tensor_slices(np.array([i, i])) for i in range(count)]
    joined = [int(value) for value in concatenated(parts)]
    assert joined == [i for i in range(count) for _ in range(2)]
