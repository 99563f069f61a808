"""Standardised target of a regression."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf


@dataclass(frozen=True)
class Target:
    """Scale on which a number is learned: z = (t(y) - mean) / deviation of a label y.

    The model's output is z, so that initial weights and learning rate need not depend on the
    label's unit.
    """

    is_log: bool
    """Whether t(y) is log(1 + y); otherwise it is y."""
    mean: float
    """Mean of t over the training labels."""
    deviation: float
    """Standard deviation of t over the training labels, or 1 where it is 0 in float32."""

    @classmethod
    def of(cls, labels: npt.NDArray[Any], *, is_log: bool) -> "Target":
        """Returns the scale of training labels [N]."""
        values = np.asarray(labels, np.float64)
        values = np.log1p(values) if is_log else values
        deviation = float(values.std())
        # TensorFlow takes smaller numbers for 0.
        is_zero = deviation < np.finfo(np.float32).tiny
        return cls(is_log, float(values.mean()), 1.0 if is_zero else deviation)

    def standardised(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns z of labels, float32 of any shape."""
        labels = tf.cast(labels, tf.float32)
        values = tf.math.log1p(labels) if self.is_log else labels
        return (values - self.mean) / self.deviation

    def label(self, z: tf.Tensor) -> tf.Tensor:
        """Returns the label of z, float32 of any shape; the inverse of `standardised`."""
        values = tf.cast(z, tf.float32) * self.deviation + self.mean
        return tf.math.expm1(values) if self.is_log else values

    def squared_error(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the squared error in z of each example: [B], [B, 1] -> [B]."""
        z = tf.cast(outputs[:, 0], tf.float32)
        return tf.math.squared_difference(self.standardised(labels), z)

    def absolute_error(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the absolute error in units of the label: [B], [B, 1] -> [B]."""
        return tf.abs(tf.cast(labels, tf.float32) - self.label(outputs[:, 0]))
