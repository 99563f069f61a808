"""A small convolutional network that two cores can train."""

import keras

from trainer_module.config import NetworkConfig
from trainer_module.models.layers import conv_bn_relu, pixels, scaled


def build(input_shape: tuple[int, ...], num_classes: int, config: NetworkConfig) -> keras.Model:
    """Returns stages of two convolutions, halving the image until it is 4 to 7 pixels wide."""
    inputs = keras.Input(input_shape)
    x = pixels(inputs)
    filters, side = 32, min(input_shape[:2])
    while True:
        x = conv_bn_relu(x, scaled(filters, config.width_multiplier))
        x = conv_bn_relu(x, scaled(filters, config.width_multiplier))
        if side < 8:
            break
        x = keras.layers.MaxPooling2D()(x)
        side, filters = side // 2, min(2 * filters, 128)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(config.dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x), name="cnn")
