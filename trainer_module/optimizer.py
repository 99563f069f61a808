"""The optimizer of a config."""

import keras

from trainer_module.config import OptimizerConfig


def build(config: OptimizerConfig) -> keras.optimizers.Optimizer:
    """Make the Keras optimizer, its learning rate a number that can be assigned."""
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(
            config.learning_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay or None,
        )
    kind = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[config.optimizer]
    return kind(config.learning_rate, weight_decay=config.weight_decay or None)
