import math
from statistics import median

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from trainer_module import PlateauConfig, ScheduleConfig, train
from trainer_module.config import ImageFeatures
from trainer_module.training.callbacks import Callback
from trainer_module.training.data import Split, evaluation_dataset, training_factory
from trainer_module.training.noise import (
    BATCHES,
    EVERY,
    FIRST,
    Measurement,
    NoiseState,
    due,
    measured,
)
from trainer_module.training.objective import cross_entropy


def test_recovers_a_known_noise_scale():
    """Gradients drawn around a true one: B_simple is their variance over its squared length."""
    random = np.random.default_rng(0)
    true = np.full(50, 0.3)
    deviation, size, count = 2.0, 16, 2 * BATCHES
    measurements = []
    for _ in range(1000):
        small = true + random.normal(0, deviation / np.sqrt(size), (count, 50))
        squared = np.mean(np.sum(small**2, axis=1)), np.sum(np.mean(small, axis=0) ** 2)
        measurements.append(Measurement(size, squared[0], count * size, squared[1]))
    state = measured(NoiseState(), measurements)
    assert state.signal == pytest.approx(np.sum(true**2), rel=0.1)
    assert state.noise == pytest.approx(50 * deviation**2, rel=0.1)
    assert state.b_simple == pytest.approx(state.noise / state.signal)


def test_no_measurement_and_a_signal_lost_in_noise_are_not_the_same():
    assert NoiseState().b_simple is None
    # Two halves whose gradients point in opposite directions.
    assert measured(NoiseState(), [Measurement(4, 1.0, 8, 0.1)]).b_simple == math.inf


def test_a_measurement_takes_the_place_of_the_one_before():
    early = Measurement(4, 900.0, 8, 800.0)
    late = Measurement(4, 2.0, 8, 1.5)
    assert measured(measured(NoiseState(), [early]), [late]) == measured(NoiseState(), [late])


@pytest.mark.parametrize(
    "bad",
    [Measurement(4, np.nan, 8, 1.0), Measurement(4, 1.0, 8, np.inf), Measurement(8, 1.0, 8, 1.0)],
)
def test_a_measurement_without_a_value_counts_for_nothing(bad):
    state = measured(NoiseState(), [Measurement(4, 2.0, 8, 1.5)])
    assert measured(state, [bad]) == state
    assert measured(state, [bad, Measurement(4, 2.0, 8, 1.5)]) == state


def test_measures_often_at_first_and_less_often_later():
    state, at = NoiseState(), []
    for epoch in range(1000):
        before = state.updates
        state, batches = due(state, 10)
        assert state.updates == 10 * (epoch + 1)
        if batches:
            at.append(before)
    assert at[:4] == [0, FIRST, 3 * FIRST, 7 * FIRST]
    assert set(np.diff(at[4:])) == {EVERY}


def digits():
    data = load_digits()
    return (data.images[:700, :, :, None] / 16).astype(np.float32), data.target[:700]


def table():
    random = np.random.default_rng(0)
    x = random.normal(size=(1500, 10)).astype(np.float32)
    return x, x[:, 0] * x[:, 1] + x[:, 2] / 2 + random.normal(size=1500) / 2 > 0


def dense(inputs, classes):
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.layers.Dense(classes)(hidden)


def normalized(inputs, classes):
    hidden = keras.layers.Dense(32, activation="relu")(inputs)
    hidden = keras.layers.Dropout(0.1)(keras.layers.BatchNormalization()(hidden))
    return keras.layers.Dense(classes)(keras.layers.Dense(16, activation="relu")(hidden))


def convolutional(inputs, classes):
    hidden = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    hidden = keras.layers.Conv2D(16, 3, activation="relu")(hidden)
    return keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(hidden))


class Truth(Callback):
    """B_simple by the gradient of every example, after some epochs, beside the recorded one."""

    def __init__(self, model, x, y, stages):
        def of_one(example):
            with tf.GradientTape() as tape:
                loss = cross_entropy(y[example : example + 1], model(x[example : example + 1]))
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            return tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0)

        size = sum(math.prod(v.shape) for v in model.trainable_variables)
        self._gradients = tf.function(
            lambda: tf.map_fn(
                of_one, tf.range(len(y)), fn_output_signature=tf.TensorSpec([size], tf.float32)
            ),
            autograph=False,
        )
        self._stages = stages
        self.ratios = []

    def on_epoch_end(self, record):
        if record.epoch in self._stages:
            gradients = self._gradients().numpy().astype(np.float64)
            true = gradients.var(axis=0).sum() / np.sum(gradients.mean(axis=0) ** 2)
            self.ratios.append(record.simple_noise_scale / true)


@pytest.mark.component
def test_the_recorded_noise_is_that_of_the_gradients_of_single_examples():
    ratios = []
    for data, network, seed in (
        (digits, dense, 0),
        (digits, convolutional, 1),
        (table, normalized, 2),
    ):
        x, y = data()
        y = y.astype(np.int64)
        keras.utils.set_random_seed(seed)
        inputs = keras.Input(x.shape[1:])
        model = keras.Model(inputs, network(inputs, int(y.max()) + 1))
        truth = Truth(model, tf.constant(x), tf.constant(y), (3, 10, 20, 40))
        train(
            model,
            keras.optimizers.SGD(0.05, momentum=0.9),
            training_factory(Split(x, y), ImageFeatures(), seed),
            evaluation_dataset(Split(x[:64], y[:64]), 64),
            ScheduleConfig(PlateauConfig(patience=99), max_epochs=40),
            num_examples=len(y),
            batch_size=64,
            callbacks=[truth],
        )
        ratios += truth.ratios
    assert len(ratios) == 12
    assert 0.5 <= median(ratios) <= 2, ratios
