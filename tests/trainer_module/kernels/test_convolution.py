import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer_module.views import assert_alike
from trainer_module.kernels import convolution, view

RANDOM = np.random.default_rng(0)
CHANNELS = 48


def normal(*shape):
    return tf.constant(RANDOM.normal(size=shape), tf.float32)


def network(height=3, width=2, channels=CHANNELS, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((height, width, channels))
    options = {"kernel_size": 2, "bias_initializer": "normal", **options}
    x = keras.layers.Conv2D(CHANNELS, **options)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def operations(model, shape):
    """Kinds of the operations of a gradient by the weights."""

    def gradients(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(model(x), tf.float32))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    graph = tf.function(gradients).get_concrete_function(tf.TensorSpec(shape)).graph
    return [operation.type for operation in graph.get_operations()]


@pytest.mark.parametrize(
    ("kernel", "padding"),
    itertools.product([(1, 1), (3, 3), (2, 3), (3, 1), (5, 4)], ["same", "valid"]),
)
def test_both_gradients_are_those_of_tensorflow(kernel, padding):
    x, weights = normal(3, 5, 4, 6), normal(*kernel, 6, 7)
    found = []
    for convolve in (
        lambda: convolution.convolve(x, weights, padding),
        lambda: tf.nn.conv2d(x, weights, 1, padding.upper()),
    ):
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            outputs = convolve()
            loss = tf.reduce_sum(tf.square(outputs))
        found.append([outputs, *tape.gradient(loss, [x, weights])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("mixed_precision")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same"},
        {"use_bias": False},
        {"activation": "relu"},
        {"kernel_regularizer": "l2"},
        {"trainable": False},
    ],
    ids=str,
)
def test_a_layer_computes_as_keras_has_it_as_close_as_bfloat16_is(options):
    assert_alike(lambda: network(**options), normal(4, 3, 2, CHANNELS), rtol=0.05, atol=0.05)


@pytest.mark.usefixtures("mixed_precision")
def test_products_where_they_are_faster_and_nowhere_else():
    few, many = view.of(network()), view.of(network(6, 2))
    assert "Conv2DBackpropFilter" not in operations(few, (None, 3, 2, CHANNELS))
    assert "Conv2DBackpropFilter" in operations(many, (None, 6, 2, CHANNELS))


@pytest.mark.usefixtures("mixed_precision")
def test_pictures_of_any_size_are_left_to_tensorflow():
    model = view.of(network(None, None))
    assert "Conv2DBackpropFilter" in operations(model, (None, None, None, CHANNELS))


@pytest.mark.usefixtures("mixed_precision")
@pytest.mark.parametrize("options", [{"strides": 2}, {"dilation_rate": 2}, {"groups": 2}], ids=str)
def test_other_convolutions_are_left_to_keras(options):
    model = network(height=3, width=3, **options)
    assert view.of(model) is model


def test_float32_is_left_to_keras():
    model = network()
    assert view.of(model) is model
