"""Lengths of gradients, from which `noise` estimates the simple noise scale."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer_module.training.batch import size_of
from trainer_module.training.objective import Objective


class Probe:
    """The gradients of a batch before it is trained on; changes nothing of the model."""

    def __init__(
        self,
        model: keras.Model,
        variables: Sequence[Any],
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
    ) -> None:
        self._model = model
        self._variables = variables
        self._optimizer = optimizer
        self._objective = objective

    def measure(self, *batch: Any) -> tf.Tensor:
        """Measures the gradients of the halves of a batch.

        Returns:
            float32 [3 + weights]: 1 / examples in a half, 1 / examples in both, the mean squared
            length of the gradients of the halves, and the mean of these gradients.
        """
        size = size_of(batch)
        # A batch of one has no halves: it is taken for both.
        half = tf.maximum(size // 2, 1)
        start = tf.minimum(half, size - half)
        # Recurrent dropout draws in inference mode too.
        states = _random_states(self._model)
        before = [tf.identity(state) for state in states]
        first = self._gradient(_rows(batch, 0, half))
        second = self._gradient(_rows(batch, start, start + half))
        squared = squared_length([first, second]) / 2
        mean = (first + second) / 2
        with tf.control_dependencies([squared, mean]):
            for state, value in zip(states, before, strict=True):
                state.assign(value)
        inverses = [1 / tf.cast(examples, tf.float32) for examples in (half, start + half)]
        return tf.concat([[*inverses, squared], mean], axis=0)

    def _gradient(self, batch: Any) -> tf.Tensor:
        """Returns the gradient of the loss of the data, in inference mode: float32 [weights]."""
        with tf.GradientTape() as tape:
            x, y, *weights = batch
            loss = self._objective.loss(y, self._model(x, training=False), *weights)
            scale = self._optimizer.scale_loss(tf.ones_like(loss))
            loss = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, [v.value for v in self._variables])
        # An embedding's gradients are sparse, and there is none by a weight without influence.
        dense = [tf.convert_to_tensor(g) for g in gradients if g is not None]
        flat = tf.concat([tf.reshape(tf.cast(g, tf.float32), [-1]) for g in dense], axis=0)
        return flat / tf.cast(scale, tf.float32)


def of_halves(measured: tf.Tensor, batches: int) -> tf.Tensor:
    """Returns a `noise.Measurement`, float32 [4], of the mean of `Probe.measure` over batches."""
    small, big, squared = tf.unstack(measured[:3])
    return tf.stack([1 / small, squared, batches / big, squared_length([measured[3:]])])


def of_pieces(pieces: tf.Tensor, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns a `noise.Measurement`, float32 [4], of a batch that was trained on in pieces.

    Args:
        pieces: Sum of `piece` over them.
        gradients: Sum of their gradients.
    """
    squared, inverse, size, weight, count = tf.unstack(pieces)
    whole = squared_length(gradients) / weight**2
    return tf.stack([count / inverse, squared / count, size, whole])


def piece(gradients: Sequence[tf.Tensor], size: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Returns what is added up over the pieces of a batch to measure its noise.

    Args:
        gradients: The piece's part of the gradient of the batch.
        size: Examples in the piece.
        weight: What its own mean gradient was multiplied by: its share of the batch, and the scale
            of the loss.

    Returns:
        float32 [5]: squared length of its own mean gradient, 1 / size, size, weight, 1.
    """
    squared = squared_length(gradients) / weight**2
    return tf.stack([squared, 1 / size, size, weight, tf.ones_like(size)])


def squared_length(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the squared length of tensors taken together: float32."""
    return tf.add_n([tf.reduce_sum(tf.square(tf.cast(t, tf.float32))) for t in tensors])


def _rows(batch: Any, start: tf.Tensor | int, end: tf.Tensor) -> Any:
    return tf.nest.map_structure(lambda part: part[start:end], batch)


def _random_states(model: keras.Model) -> list[tf.Variable]:
    """Returns the states of a model's generators of random numbers."""
    weights = {id(v) for v in model.weights}
    return [v.value for v in model.variables if id(v) not in weights]
