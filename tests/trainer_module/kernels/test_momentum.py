import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer_module.kernels import momentum


def trained(optimizer, apply):
    """Weights and momentums after three steps down a fixed slope that depends on the weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step():
        apply(optimizer, variables, [tf.sin(v.value) + 0.1 for v in variables])

    for _ in range(3):
        step()
    momentums = [np.array(m) for m in optimizer.momentums]
    return [np.array(v) for v in variables] + momentums, int(optimizer.iterations.numpy())


def by_keras(optimizer, variables, gradients):
    optimizer.apply(gradients, variables)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_kernel_does_what_keras_does(nesterov):
    def sgd():
        return keras.optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov)

    (ours, steps), (theirs, same_steps) = trained(sgd(), momentum.apply), trained(sgd(), by_keras)
    for mine, its in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-7)
    assert steps == same_steps == 3


def test_a_learning_rate_that_is_assigned_is_the_one_used():
    optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
    variable = keras.Variable([1.0])
    optimizer.build([variable])
    apply = tf.function(lambda gradient: momentum.apply(optimizer, [variable], [gradient]))
    optimizer.learning_rate.assign(0.25)
    apply(tf.constant([1.0]))
    assert float(variable.numpy()[0]) == 0.75


class Halved(keras.optimizers.SGD):
    """Another rule by the same name."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient / 2, variable, learning_rate)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.1),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, loss_scale_factor=2.0),
        lambda: Halved(0.1, momentum=0.9),
        lambda: keras.optimizers.SGD(0.1),
    ],
)
def test_whatever_else_an_optimizer_does_keras_does(make):
    ours, theirs = trained(make(), momentum.apply), trained(make(), by_keras)
    for mine, its in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(mine, its)


def test_sparse_gradients_are_keras_s():
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
    variable = keras.Variable(np.zeros((3, 1), "float32"))
    optimizer.build([variable])
    gradient = tf.IndexedSlices(tf.ones((1, 1)), tf.constant([1]), tf.constant([3, 1]))
    tf.function(lambda: momentum.apply(optimizer, [variable], [gradient]))()
    np.testing.assert_array_equal(np.array(variable).ravel(), [0.0, -0.5, 0.0])
