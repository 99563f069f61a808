"""Keras optimizers: built from a config, and described."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from trainer_module.config import OptimizerConfig
from trainer_module.schedule.scaling import TrainingSpec
from trainer_module.util.checks import require

_KERAS = ("keras", "tf_keras")


def build(config: OptimizerConfig) -> keras.optimizers.Optimizer:
    """Returns the Keras optimizer of a config."""
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(
            config.known_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay or None,
        )
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.known_rate, weight_decay=config.weight_decay or None)
    # Keras refuses None for AdamW alone.
    return keras.optimizers.AdamW(config.known_rate, weight_decay=config.weight_decay)


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the optimizer that makes the updates, where another one scales the loss for it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def kind(optimizer: keras.optimizers.Optimizer) -> str:
    """Returns the name of the Keras class whose rule an optimizer follows, such as Adam.

    A subclass follows the rule of Keras's; a class that has a rule of its own has its own name.
    """
    own = type(inner(optimizer))
    # HistoryRecorder meets optimizers of Keras 2 too.
    of_keras = next((c for c in own.__mro__ if c.__module__.split(".")[0] in _KERAS), own)
    followed = own if of_keras.__name__ == "Optimizer" else of_keras
    return str(followed.__name__)


def training_spec(optimizer: keras.optimizers.Optimizer, num_examples: int) -> TrainingSpec:
    """Returns what the schedule must know of a training with an optimizer."""
    momentum = float(getattr(inner(optimizer), "momentum", 0.0) or 0.0)
    return TrainingSpec(num_examples, kind(optimizer), momentum)


def describe(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Returns class and arguments of an optimizer, as JSON.

    Its name is left out: Keras numbers names by how many optimizers the process has made.
    """
    config = {k: v for k, v in optimizer.get_config().items() if k != "name"}
    if inner(optimizer) is not optimizer:
        config["inner_optimizer"] = describe(inner(optimizer))
    return {"class": type(optimizer).__name__, **config}


def averages(optimizer: keras.optimizers.Optimizer) -> Sequence[Any]:
    """Returns the averages of the weights (`use_ema`), if an optimizer has some."""
    optimizer = inner(optimizer)
    if not optimizer.use_ema or int(optimizer.iterations.numpy()) == 0:
        return ()
    variables: Sequence[Any] = optimizer._model_variables_moving_average
    return variables


def first_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the float that prints like the optimizer's float32: 0.05, not 0.0500000007.

    Raises:
        ValueError: The optimizer has a LearningRateSchedule.
    """
    rate = optimizer.learning_rate
    require(
        hasattr(rate, "assign"),
        "the optimizer's learning rate must be a number, which the schedule then changes",
        rate,
        "Give the optimizer its first learning rate instead of a LearningRateSchedule.",
    )
    return float(str(np.float32(rate.numpy())))
