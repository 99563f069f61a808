"""VGG16 (Simonyan & Zisserman 2015, arXiv:1409.1556, configuration D)."""

import keras

from trainer_module.config import NetworkConfig
from trainer_module.models.layers import pixels, scaled

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def build(input_shape: tuple[int, ...], num_classes: int, config: NetworkConfig) -> keras.Model:
    """Returns thirteen convolutions in five blocks and three dense layers, as published.

    Pooling stops where a side would drop below one pixel, so small images fit as well.
    """
    inputs = keras.Input(input_shape)
    x = pixels(inputs)
    for filters, count in _BLOCKS:
        for _ in range(count):
            x = keras.layers.Conv2D(
                scaled(filters, config.width_multiplier),
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
            )(x)
        x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.Flatten()(x)
    for _ in range(2):
        units = scaled(4096, config.width_multiplier)
        x = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal")(x)
        x = keras.layers.Dropout(config.dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x), name="vgg16")
