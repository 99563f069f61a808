"""ResNet-20 for small images (He et al. 2016, arXiv:1512.03385, section 4.2)."""

import keras

from trainer_module.config import NetworkConfig
from trainer_module.models.layers import conv_bn_relu, pixels, scaled


def build(input_shape: tuple[int, ...], num_classes: int, config: NetworkConfig) -> keras.Model:
    """Returns three stages of three residual blocks with 16, 32 and 64 filters."""
    inputs = keras.Input(input_shape)
    x = conv_bn_relu(pixels(inputs), scaled(16, config.width_multiplier))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            strides = 2 if stage and not block else 1
            x = _residual(x, scaled(filters, config.width_multiplier), strides)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(config.dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x), name="resnet")


def _residual(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = keras.layers.Conv2D(
            filters, 1, strides, use_bias=False, kernel_initializer="he_normal"
        )(x)
        shortcut = keras.layers.BatchNormalization(momentum=0.9)(shortcut)
    y = conv_bn_relu(x, filters, strides)
    y = keras.layers.Conv2D(
        filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(y)
    y = keras.layers.BatchNormalization(momentum=0.9)(y)
    return keras.layers.ReLU()(keras.layers.Add()([shortcut, y]))
