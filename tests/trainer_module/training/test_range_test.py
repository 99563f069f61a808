import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module import PlateauConfig, ScheduleConfig, train
from trainer_module.history import RANGE_TEST
from trainer_module.training import range_test
from trainer_module.training.callbacks import Callback
from trainer_module.util.checks import UserError

pytestmark = pytest.mark.training

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 5)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
CONFIG = ScheduleConfig(plateau=PlateauConfig(patience=2), max_epochs=2)


def batches(batch_size, epoch):
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(90, seed=epoch).batch(batch_size)


def model_and_optimizer(rate=0.5):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = keras.layers.Dense(8, activation="tanh")(inputs)
    x = keras.layers.Dropout(0.1)(keras.layers.BatchNormalization()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    return model, keras.optimizers.SGD(rate, momentum=0.9)


class Recorder(Callback):
    def __init__(self, die_after=None):
        self.notes, self.die_after = [], die_after

    def on_message(self, text):
        self.notes.append(text)

    def on_epoch_end(self, record):
        if record.epoch == self.die_after:
            raise KeyboardInterrupt


def run(recorder=None, rate=0.5, **options):
    model, optimizer = model_and_optimizer(rate)
    history = train(
        model,
        optimizer,
        batches,
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(16),
        CONFIG,
        batch_size=8,
        steps_per_call=1,
        callbacks=[recorder or Recorder()],
        clock=itertools.count().__next__,
        **options,
    )
    return model, history


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_run_equals_one_that_is_given_the_rate(micro_batch):
    """Bit for bit: weights, averages, slots and random states are those of before the test."""
    recorder = Recorder()
    model, history = run(recorder, find_learning_rate=True, micro_batch=micro_batch)
    test = history.config[RANGE_TEST]
    assert f"learning rate {test['learning_rate']:g}, found by a range test" in recorder.notes[0]
    other, given = run(rate=test["learning_rate"], micro_batch=micro_batch)
    assert [r.metrics for r in history.epochs] == [r.metrics for r in given.epochs]
    assert [r.learning_rate for r in history.epochs] == [r.learning_rate for r in given.epochs]
    for value, expected in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert history.traces == given.traces


def test_a_resumed_run_takes_the_rate_that_was_found(tmp_path):
    _, whole = run(find_learning_rate=True)
    with pytest.raises(KeyboardInterrupt):
        run(Recorder(die_after=1), find_learning_rate=True, directory=tmp_path)
    written = (tmp_path / range_test.FILE_NAME).stat().st_mtime_ns
    _, resumed = run(find_learning_rate=True, directory=tmp_path)
    assert (tmp_path / range_test.FILE_NAME).stat().st_mtime_ns == written
    assert [r.metrics for r in resumed.epochs] == [r.metrics for r in whole.epochs]
    assert resumed.config[RANGE_TEST]["losses"] == whole.config[RANGE_TEST]["losses"]


def test_the_rate_is_below_the_one_at_which_gradient_descent_diverges():
    """Of a quadratic loss that is 2 over the largest eigenvalue of its Hessian."""
    x = RANDOM.normal(size=(64, 4)).astype(np.float32) * [1, 2, 3, 4]
    y = (x @ [[1.0], [2.0], [3.0], [4.0]]).astype(np.float32)
    largest = np.linalg.eigvalsh(2 * x.T @ x / 64)[-1]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    data = tf.data.Dataset.from_tensor_slices((x.astype(np.float32), y)).batch(64)
    options = {"loss": "mse", "batch_size": 64, "find_learning_rate": True}
    history = train(model, "sgd", data, data, CONFIG, **options)
    rate = history.config[RANGE_TEST]["learning_rate"]
    assert 0.02 / largest < rate < 2 / largest


RATES = np.geomspace(range_test.LOWEST, range_test.HIGHEST, 100).tolist()


@pytest.mark.parametrize(
    ("curve", "low", "high"),
    [
        (lambda rate: 2 - math.exp(-(math.log10(rate / 0.1) ** 2)), 0.01, 0.025),
        (lambda rate: 2 - rate / 10, 2.0, 2.5),
        (lambda rate: 1 if rate < 0.3 else 1 + rate, 0.001, 0.075),
        (lambda rate: -1 - (rate > 0.01) + 5 * (rate > 0.3), 0.0025, 0.075),
    ],
    ids=["valley", "falls to the end", "trained weights", "negative"],
)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_quarter_of_the_rate_at_which_the_loss_stops_to_fall_is_chosen(curve, low, high, noise):
    """Whatever the noise: of a batch it is large, of the average of ten it is a quarter of that."""
    for seed in range(20):
        drawn = noise * np.random.default_rng(seed).normal(size=100)
        losses = [curve(rate) + each for rate, each in zip(RATES, drawn, strict=True)]
        assert low <= range_test.choose(RATES, losses) <= high, seed


def test_a_loss_that_is_never_finite_is_refused(monkeypatch):
    monkeypatch.setattr(f"{__name__}.X", np.full_like(X, np.nan))
    with pytest.raises(UserError, match="the loss must be finite before the first update"):
        run(find_learning_rate=True)
