"""Layers that several models share."""

import keras


def pixels(inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Scales pixel values from [0, 255] to [-1, 1]; shape unchanged."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)


def conv_bn_relu(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
    """Convolves by 3 x 3, normalises, applies ReLU: [N, H, W, C] -> [N, H/s, W/s, filters]."""
    x = keras.layers.Conv2D(
        filters, 3, strides, "same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.ReLU()(x)


def scaled(units: int, width: float) -> int:
    """Returns the number of filters or units at a width multiplier, at least one."""
    return max(1, round(units * width))
