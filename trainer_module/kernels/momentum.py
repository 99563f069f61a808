"""Fused SGD with momentum.

Keras composes an update of five operations, each of which reads and writes the whole weight; for a
big model that is a good part of a step. TensorFlow has a kernel of the same formula,
m <- mu m - eps g, w <- w + m (or, Nesterov's, w <- w + mu m - eps g).
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

_PLAIN = (
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


def apply(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[Any],
    gradients: Sequence[tf.Tensor | None],
) -> None:
    """Applies gradients: by the kernel where it does the same, else by Keras.

    Args:
        optimizer: Built on the variables.
        variables: Trainable variables of the model.
        gradients: One for each of them; None where there is none.
    """
    if not _is_plain(optimizer, variables, gradients):
        optimizer.apply(gradients, variables)
        return
    rate = tf.cast(optimizer.learning_rate.value, tf.float32)
    for variable, momentum, gradient in zip(variables, optimizer.momentums, gradients, strict=True):
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.value.handle,
            accum=momentum.value.handle,
            lr=rate,
            grad=gradient,
            momentum=optimizer.momentum,
            use_nesterov=optimizer.nesterov,
        )
    optimizer.iterations.assign_add(1)


def _is_plain(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[Any],
    gradients: Sequence[tf.Tensor | None],
) -> bool:
    """Returns True if an update is that of the formula and nothing else."""
    return (
        # A subclass may update by another rule.
        type(optimizer) is keras.optimizers.SGD
        and optimizer.momentum > 0
        and not any(getattr(optimizer, name) for name in _PLAIN)
        # Under a strategy the gradients are yet to be added up over the replicas.
        and not tf.distribute.has_strategy()
        and all(v.dtype == "float32" and v.constraint is None for v in variables)
        and all(isinstance(gradient, tf.Tensor) for gradient in gradients)
    )
