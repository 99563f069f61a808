"""A pass over a model and over its view, side by side."""

import numpy as np
import tensorflow as tf

from trainer_module.kernels import view


def pictures(n=6):
    return tf.constant(np.random.default_rng(0).normal(2, 3, (n, 5, 4, 3)), tf.float32)


def step(model, through, x, *, training=True):
    """Output, gradients and what the weights are after a pass."""
    with tf.GradientTape() as tape:
        output = through(x, training=training)
        loss = tf.reduce_sum(tf.square(tf.cast(output, tf.float32)))
        loss += tf.add_n([0.0, *through.losses])
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    values = [output, *gradients, *[v.value for v in model.weights]]
    return [np.array(tf.cast(value, tf.float32)) for value in values]


def assert_alike(make, x, *, training=True, rtol=1e-4, atol=1e-4):
    theirs, ours = make(), make()
    through = view.of(ours)
    assert through is not ours
    mine, its = (
        step(ours, through, x, training=training),
        step(theirs, theirs, x, training=training),
    )
    for value, expected in zip(mine, its, strict=True):
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol)


def scattered(model):
    """The model, with weights that are not those of the start."""
    generator = np.random.default_rng(1)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(variable + generator.uniform(0.1, 0.5, variable.shape))
    return model
