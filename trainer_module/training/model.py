"""Checks and preparation of a user's model and optimizer, as `compile` and `fit` do them."""

from typing import Any

import keras
import tensorflow as tf

from trainer_module.training.objective import Objective
from trainer_module.util.checks import require


def check_model(model: keras.Model, x: Any) -> None:
    """Raises UserError where a model cannot be trained by the loop on inputs of the spec `x`."""
    check_keras(model, keras.Model, "model")
    own = [
        name
        for name in ("train_step", "test_step", "compute_loss", "compute_metrics")
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    require(
        not own,
        "a model must be trained by its loss, for the loop has a step of its own",
        f"{type(model).__name__} with its own {', '.join(own)}",
        "Pass what it computes as loss= and metrics=, or add_loss in its layers.",
    )
    inputs = getattr(model, "_inputs_struct", None)
    # Keras would match inputs with other names by their order.
    if isinstance(inputs, dict) and isinstance(x, dict):
        require(
            set(x) == set(inputs),
            f"a model with a dict of inputs must get those, {', '.join(sorted(inputs))}",
            sorted(x),
            "Map the dataset to these, or make the model of a list of named inputs, of which Keras"
            " takes those that it needs by name.",
        )


def check_keras(value: Any, kind: type, name: str) -> None:
    """Raises UserError where an object is not of Keras 3."""
    is_legacy = any(base.__module__.startswith("tf_keras.") for base in type(value).__mro__)
    require(
        isinstance(value, kind),
        f"{name} must be one of Keras 3",
        f"{type(value).__name__} of Keras 2 (tf_keras)" if is_legacy else value,
        "Make it with `import keras`. For a Keras 3 `tf.keras`, set the environment variable"
        " TF_USE_LEGACY_KERAS=0 before TensorFlow is imported.",
    )


def build(model: keras.Model, objective: Objective, validation_data: tf.data.Dataset) -> None:
    """Makes what weights and metrics do not exist yet, by a call on a batch, as `fit` does."""
    is_needed = not model.built or tf.distribute.has_strategy()
    for x, y, *_ in validation_data.take(int(is_needed)):
        objective.build(y, model(x))
    require(
        bool(model.trainable_variables),
        "a model must have trainable weights",
        model.name,
        "Set trainable on the layers to train.",
    )


def prepare_optimizer(
    optimizer: keras.optimizers.Optimizer | str, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Returns a built optimizer, with loss scaling for a model in mixed float16 as in `compile`."""
    if isinstance(optimizer, str):
        optimizer = keras.optimizers.get(optimizer)
    check_keras(optimizer, keras.optimizers.Optimizer, "optimizer")
    scaled = keras.optimizers.LossScaleOptimizer
    if model.dtype_policy.name == "mixed_float16" and not isinstance(optimizer, scaled):
        optimizer = scaled(optimizer)
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    return optimizer
