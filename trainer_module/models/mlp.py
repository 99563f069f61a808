"""A multilayer perceptron for tables."""

import keras

from trainer_module.config import NetworkConfig
from trainer_module.models.layers import scaled


def build(input_shape: tuple[int, ...], num_classes: int, config: NetworkConfig) -> keras.Model:
    """Returns two hidden layers of 128 and 64 ReLU units."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(inputs) if len(input_shape) > 1 else inputs
    for units in (128, 64):
        units = scaled(units, config.width_multiplier)
        x = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal")(x)
        x = keras.layers.Dropout(config.dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x), name="mlp")
