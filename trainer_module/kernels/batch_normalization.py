"""Fused batch normalisation.

Keras composes the layer of ten operations and more, each of which reads and writes all activations;
in a small convolutional network that is a third of a step. TensorFlow has a kernel of the same
formula (Ioffe & Szegedy 2015) with one for its gradient.
"""

from typing import Any

import keras
import tensorflow as tf

_COMPUTE_DTYPES = ("float32", "bfloat16", "float16")
# cuDNN takes none below this; TensorFlow would raise it unasked.
_LEAST_EPSILON = 1.001e-5


def replaceable(layer: keras.Layer) -> bool:
    """Returns True if `Fused` computes what a built layer does."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and not layer.synchronized
        and layer.epsilon >= _LEAST_EPSILON
        and layer.compute_dtype in _COMPUTE_DTYPES
        # The kernel takes scale, offset and averages in float32 only.
        and layer.variable_dtype == "float32"
    )


class Fused(keras.layers.Wrapper):  # type: ignore[misc]
    """Computes what the wrapped layer does, with its weights."""

    def __init__(self, layer: keras.layers.BatchNormalization) -> None:
        """Wraps a layer that is `replaceable`."""
        super().__init__(layer, name=layer.name, dtype=layer.dtype_policy)
        self.supports_masking = True

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns that of the inputs."""
        return input_shape

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Returns normalised inputs [N, H, W, C]; with a mask, those of the layer itself."""
        layer = self.layer
        if mask is not None:
            return layer(inputs, training=training, mask=mask)
        channels = inputs.shape[-1]
        scale = layer.gamma.value if layer.scale else tf.ones(channels)
        offset = layer.beta.value if layer.center else tf.zeros(channels)
        if not (training and layer.trainable):
            return tf.compat.v1.nn.fused_batch_norm(
                inputs,
                scale,
                offset,
                mean=layer.moving_mean.value,
                variance=layer.moving_variance.value,
                epsilon=layer.epsilon,
                is_training=False,
            )[0]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, offset, epsilon=layer.epsilon
        )
        # The kernel's variance is that of the population, Keras's that of the batch.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), variance.dtype)
        variance *= (count - 1) / count
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            average.assign(average * layer.momentum + value * (1 - layer.momentum))
        return outputs
