import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer_module.views import assert_alike, pictures, scattered
from trainer_module.kernels import batch_normalization, view


def normalized(x, **options):
    options = {"momentum": 0.7, **options}
    return keras.layers.BatchNormalization(**options)(x)


def network(**options):
    """A convolution, a normalisation, a dropout."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4, 3))
    x = normalized(keras.layers.Conv2D(4, 3, padding="same")(inputs), **options)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    x = keras.layers.Dropout(0.5, seed=1)(x)
    return scattered(keras.Model(inputs, keras.layers.Dense(2)(x)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": False},
        {"center": False},
        {"epsilon": 0.1},
        {"axis": 3},
        {"trainable": False},
        {"gamma_regularizer": "l2"},
    ],
    ids=str,
)
def test_output_gradients_and_averages_are_those_of_keras(options, training):
    assert_alike(lambda: network(**options), pictures(), training=training)


@pytest.mark.parametrize("options", [{"axis": 1}, {"epsilon": 1e-6}, {"synchronized": True}])
def test_what_the_kernel_does_not_do_keras_does(options):
    assert not any(map(batch_normalization.replaceable, network(**options).layers))


def test_a_table_is_left_to_keras():
    inputs = keras.Input((3,))
    layer = keras.layers.BatchNormalization()
    layer(inputs)
    assert not batch_normalization.replaceable(layer)


def test_one_picture_of_one_pixel():
    def make():
        inputs = keras.Input((None, None, 3))
        return keras.Model(inputs, normalized(inputs))

    theirs, ours = make(), make()
    x = tf.ones((1, 1, 1, 3))
    np.testing.assert_allclose(view.of(ours)(x, training=True), theirs(x, training=True), atol=1e-6)
    for mine, its in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-6)


@pytest.mark.usefixtures("mixed_precision")
def test_in_mixed_precision_as_close_as_bfloat16_is():
    assert_alike(network, pictures(), rtol=0.1, atol=0.2)


def test_its_graph_has_the_kernel_and_no_other_normalisation():
    model = network()
    through = view.of(model)
    graph = tf.function(lambda x: through(x, training=True)).get_concrete_function(pictures()).graph
    kernels = [op.type for op in graph.get_operations()]
    assert kernels.count("FusedBatchNormV3") == 1
    assert "SquaredDifference" not in kernels
