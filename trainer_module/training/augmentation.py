"""Random augmentation of training images: crops and flips, and Keras's preprocessing layers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer_module.config import ImageFeatures

# Of 32 x 32 pixels these are 4 pixels, as He et al. (2016) pad CIFAR-10.
_CROP_PADDING = 1 / 8


class Augmentation:
    """Changes to the images of a split, drawn for all of them at once in each epoch.

    What happens to an image therefore does not depend on the batch that it falls into.
    """

    def __init__(self, features: ImageFeatures, shape: tuple[int, ...]) -> None:
        """Takes the features, whose `augment` is light or strong, and the split's [N, H, W, C]."""
        self._flip = features.flip
        self._shape = shape
        self._layers = _layers() if features.augment == "strong" else ()

    def draw(self, random: np.random.Generator) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """Draws the changes of an epoch.

        Args:
            random: Source of all randomness.

        Returns:
            A function (images uint8 [B, H, W, C], indices in the split [B]) -> images.
        """
        count = self._shape[0]
        flips = tf.constant(random.random(count) < 0.5)
        most = 2 * np.array(_padding(self._shape), np.int32)
        shifts = tf.constant(random.integers(0, most, (count, 2), np.int32, endpoint=True))
        images = keras.KerasTensor(self._shape, "float32")
        drawn = [
            layer.get_random_transformation(images, seed=int(random.integers(2**32)))
            for layer in self._layers
        ]

        def change(x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
            if not self._layers:
                x = _shift(x, tf.gather(shifts, index))
            if self._flip:
                flip = tf.gather(flips, index)[:, None, None, None]
                x = tf.where(flip, tf.reverse(x, [2]), x)
            if not self._layers:
                return x
            x = tf.cast(x, tf.float32)
            for layer, values in zip(self._layers, drawn, strict=True):
                tensors = {name: value for name, value in values.items() if tf.is_tensor(value)}
                own = {name: tf.gather(value, index) for name, value in tensors.items()}
                x = layer.transform_images(x, own)
            return tf.cast(tf.round(x), tf.uint8)

        return change


def _layers() -> tuple[Any, ...]:
    # The seed of a layer is not used, but without one Keras takes it from Python's random numbers.
    options = {"seed": 0, "dtype": "float32"}
    return (
        keras.layers.RandomTranslation(_CROP_PADDING, _CROP_PADDING, **options),
        keras.layers.RandomRotation(0.05, **options),
        keras.layers.RandomZoom(0.2, **options),
        keras.layers.RandomContrast(0.2, **options),
        keras.layers.RandomBrightness(0.1, **options),
    )


def _padding(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the zeros above and beside images before they are cropped, in pixels."""
    height, width = shape[1:3]
    return round(height * _CROP_PADDING), round(width * _CROP_PADDING)


def _shift(x: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Crops each image at its own offset out of itself padded with zeros.

    Args:
        x: Images [B, H, W, C].
        shift: Offsets (rows, columns) into the padded images, int32 [B, 2].

    Returns:
        Images [B, H, W, C].
    """
    height, width = x.shape[1:3]
    around = ([size, size] for size in _padding(x.shape))
    padded = tf.pad(x, [[0, 0], *around, [0, 0]])
    rows = shift[:, :1] + tf.range(height)[None, :]
    columns = shift[:, 1:] + tf.range(width)[None, :]
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
