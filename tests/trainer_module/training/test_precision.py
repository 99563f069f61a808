import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module.training.precision import ROUNDS, choose, policy

BATCHES = tf.data.Dataset.from_tensor_slices(
    (np.ones((8, 4), np.float32), np.zeros(8, np.int64))
).batch(4)


def make_batches():
    return BATCHES


class Builder:
    """Builds a small model and remembers under which policies."""

    def __init__(self):
        self.policies = []

    def __call__(self):
        self.policies.append(keras.config.dtype_policy().name)
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
        return model, keras.optimizers.SGD(0.1)


def stopwatch(first, second):
    """A clock by which each step of the first model takes `first` seconds, then `second`."""
    now = 0.0
    yield now
    for seconds in [first] * (1 + ROUNDS) + [second] * (1 + ROUNDS):
        now += seconds
        yield now
        yield now


@pytest.mark.parametrize("wanted", ["float32", "mixed_bfloat16"])
def test_a_choice_already_made_needs_no_trial(wanted):
    build = Builder()
    assert choose(wanted, build, make_batches) == wanted
    assert build.policies == []


def test_hardware_without_bfloat16_needs_no_trial():
    build = Builder()
    assert choose("auto", build, make_batches, has_bfloat16=lambda: False) == "float32"
    assert build.policies == []


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [((1.0, 0.5), "mixed_bfloat16"), ((1.0, 0.95), "float32"), ((1.0, 2.0), "float32")],
)
def test_takes_bfloat16_where_it_pays(seconds, expected):
    build = Builder()
    clock = stopwatch(*seconds)
    choice = choose("auto", build, make_batches, has_bfloat16=lambda: True, clock=clock.__next__)
    assert choice == expected
    assert build.policies == ["float32", "mixed_bfloat16"]
    assert keras.config.dtype_policy().name == "float32"


def test_a_resumed_run_makes_the_same_choice(tmp_path):
    file = tmp_path / "precision"
    fast = itertools.chain(stopwatch(1.0, 0.5))
    first = choose(
        "auto",
        Builder(),
        make_batches,
        file=file,
        has_bfloat16=lambda: True,
        clock=fast.__next__,
    )
    build = Builder()
    again = choose("auto", build, make_batches, file=file, has_bfloat16=lambda: False)
    assert first == again == "mixed_bfloat16"
    assert build.policies == []


def test_a_policy_ends_with_its_context_even_after_an_error():
    before = keras.config.dtype_policy().name
    with pytest.raises(KeyError), policy("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise KeyError
    assert keras.config.dtype_policy().name == before
