"""Batch normalisation as one kernel.

Keras composes it of ten operations and more, each of which reads and writes all activations; in a
small convolutional network that is a third of a step. TensorFlow has a kernel of the same formula
(Ioffe & Szegedy 2015) with one for its gradient.
"""

from typing import Any

import keras
import tensorflow as tf

_COMPUTE_DTYPES = ("float32", "bfloat16", "float16")
# cuDNN takes none below this; TensorFlow would raise it unasked.
_LEAST_EPSILON = 1.001e-5


def fused(model: keras.Model) -> keras.Model:
    """A view of a model in which the kernel normalises pictures.

    All layers, weights, random states and losses are the model's own; the outputs are equal to
    float tolerance, those of training and moving averages included. A model or a layer of a class
    that is not Keras's is left as it is, for it may compute by another rule.

    Args:
        model: Any built model.

    Returns:
        The view; the model itself if there is nothing to replace.
    """
    if not _has_graph(model) or not any(map(_replaceable, _layers(model))):
        return model
    # The clone of a compiled model would get an optimizer with slots of its own.
    bare = keras.Model(*_ends(model), name=model.name)
    return keras.models.clone_model(bare, clone_function=_replaced)


def _replaced(layer: keras.Layer) -> keras.Layer:
    if _replaceable(layer):
        return _FusedBatchNormalization(layer)
    return fused(layer) if isinstance(layer, keras.Model) else layer


def _layers(model: keras.Model) -> list[keras.Layer]:
    """The layers of a model and of the models in it."""
    inner = [
        deeper
        for layer in model.layers
        if isinstance(layer, keras.Model) and _has_graph(layer)
        for deeper in _layers(layer)
    ]
    return [*model.layers, *inner]


def _has_graph(model: keras.Model) -> bool:
    """Whether the model does what its graph of layers says and nothing else."""
    return type(model).__module__.startswith("keras.") and bool(getattr(model, "inputs", None))


def _ends(model: keras.Model) -> tuple[Any, Any]:
    """Inputs and outputs in the structure of a call."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def _replaceable(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.built
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and not layer.synchronized
        and layer.epsilon >= _LEAST_EPSILON
        and layer.compute_dtype in _COMPUTE_DTYPES
    )


class _FusedBatchNormalization(keras.layers.Wrapper):  # type: ignore[misc]
    """Computes what the wrapped layer does, with its weights."""

    def __init__(self, layer: keras.layers.BatchNormalization) -> None:
        super().__init__(layer, name=layer.name, dtype=layer.dtype_policy)
        self.supports_masking = True

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
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
