"""Convolution whose gradient by the weights is made of matrix products, in bfloat16.

By the weights of one offset of the kernel the gradient is a product of two matrices: the inputs at
that offset, and the gradient of the outputs, over all places of all images. oneDNN's own kernel is
made for larger images: where VGG16 has 512 channels at 4 x 4 places and fewer, it takes three to
five times as long as the nine products.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

_CHANNELS_A_PLACE = 8
"""Channels for each place from which the products are faster: measured on a processor with AMX for
4 to 196 places, 32 to 512 channels and batches of 16 to 512. In float32 they seldom are."""


def replaceable(layer: keras.Layer) -> bool:
    """Returns True if `Products` computes what a layer does."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.compute_dtype == "bfloat16"
        and layer.data_format == "channels_last"
        and {*layer.strides, *layer.dilation_rate, layer.groups} == {1}
        # cuDNN has its own ways.
        and not tf.config.list_physical_devices("GPU")
    )


class Products(keras.layers.Wrapper):  # type: ignore[misc]
    """Computes what the wrapped layer does, with its weights."""

    def __init__(self, layer: keras.layers.Conv2D) -> None:
        """Wraps a layer that is `replaceable`."""
        super().__init__(layer, name=layer.name, dtype=layer.dtype_policy)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns that of the layer."""
        return self.layer.compute_output_shape(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns outputs [N, H', W', D] of inputs [N, H, W, C]."""
        layer = self.layer
        if not _pays(inputs.shape[1:3], layer.kernel.shape[2:]):
            return layer(inputs)
        kernel = tf.cast(tf.convert_to_tensor(layer.kernel), inputs.dtype)
        outputs = convolve(inputs, kernel, layer.padding)
        if layer.use_bias:
            bias = tf.cast(tf.convert_to_tensor(layer.bias), inputs.dtype)
            outputs = tf.nn.bias_add(outputs, bias)
        return outputs if layer.activation is None else layer.activation(outputs)


def _pays(places: Sequence[int | None], channels: Sequence[int]) -> bool:
    height, width = places
    if height is None or width is None:
        return False
    return _CHANNELS_A_PLACE * height * width <= min(channels)


def convolve(x: tf.Tensor, kernel: tf.Tensor, padding: Literal["same", "valid"]) -> tf.Tensor:
    """Returns a convolution of stride 1 whose gradient by the kernel is made of products.

    Args:
        x: Images [N, H, W, C], all but N known.
        kernel: Kernel [h, w, C, D].
        padding: As in Keras.

    Returns:
        [N, H', W', D].
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolution(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding=padding.upper(),
            )
            return by_inputs, _by_kernel(x, upstream, kernel.shape, padding)

        return tf.nn.conv2d(x, kernel, 1, padding.upper()), gradient

    return convolution(x, kernel)


def _by_kernel(x: tf.Tensor, upstream: tf.Tensor, shape: Sequence[int], padding: str) -> tf.Tensor:
    height, width, channels, outputs = shape
    if padding == "same":
        around = [[(side - 1) // 2, side // 2] for side in (height, width)]
        x = tf.pad(x, [[0, 0], *around, [0, 0]])
    down, across = upstream.shape[1:3]
    upstream = tf.reshape(upstream, [-1, outputs])
    products = [
        tf.matmul(
            tf.reshape(x[:, i : i + down, j : j + across], [-1, channels]),
            upstream,
            transpose_a=True,
        )
        for i in range(height)
        for j in range(width)
    ]
    return tf.reshape(tf.stack(products), shape)
