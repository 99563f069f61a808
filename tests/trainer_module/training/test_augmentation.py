import random
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from trainer_module.config import ImageFeatures
from trainer_module.training.data import Split, training_factory

Pixels = npt.NDArray[Any]


def augmented(x: Pixels, features: ImageFeatures, batch_size: int = 0, epoch: int = 1) -> Pixels:
    """The images of an epoch, in the order of the split."""
    factory = training_factory(Split(x, np.arange(len(x))), features, seed=0)
    batches = [(x.numpy(), y.numpy()) for x, y in factory(batch_size or len(x), epoch)]
    images, order = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    result = np.empty_like(x)
    result[order] = images
    return result


def noise(count: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_an_image_changes_by_epoch_and_not_by_the_batch_it_falls_into(augment: Any) -> None:
    features = ImageFeatures(augment=augment)
    small, large = augmented(noise(24), features, 4), augmented(noise(24), features, 24)
    assert small.dtype == np.uint8
    np.testing.assert_array_equal(small, large)
    later = augmented(noise(24), features, 4, epoch=2)
    assert sum(np.array_equal(a, b) for a, b in zip(small, later, strict=True)) < 3


def test_none_leaves_images_as_they_are() -> None:
    np.testing.assert_array_equal(augmented(noise(24), ImageFeatures()), noise(24))


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_flip_mirrors_half_of_the_images(augment: Any) -> None:
    # Brighter from left to right.
    x = np.tile(np.linspace(50, 200, 32).astype(np.uint8)[:, None], (400, 32, 1, 1))

    def mirrored(flip: bool) -> int:
        images = augmented(x, ImageFeatures(augment=augment, flip=flip)).astype(int)
        return int((images[:, 16, 10, 0] > images[:, 16, 22, 0]).sum())

    assert mirrored(False) == 0
    assert 160 < mirrored(True) < 240


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (16, 40), (3, 3)])
def test_light_shifts_by_up_to_an_eighth_over_a_black_border(height: int, width: int) -> None:
    x = np.full((200, height, width, 1), 255, np.uint8)
    images = augmented(x, ImageFeatures(augment="light"))
    for axis, size in ((2, height), (1, width)):
        lost = (images[..., 0] == 0).all(axis=axis).sum(axis=1)
        assert (lost.min(), lost.max()) == (0, round(size / 8))


def bars(images: Pixels) -> Pixels:
    """Of each image the slope of its bright bar, the area, and how far it is above the ground."""
    grey = images[..., 0].astype(float)
    centre = grey[:, 16:48, 16:48]
    low, high = centre.min((1, 2)), centre.max((1, 2))
    bright = centre > ((low + high) / 2)[:, None, None]
    rows, columns = np.mgrid[:32, :32]
    slopes = [np.polyfit(columns[mask], rows[mask], 1)[0] for mask in bright]
    return np.stack([slopes, bright.sum((1, 2)), high - low, low], axis=1)


def test_strong_draws_what_layers_of_keras_draw() -> None:
    x = np.full((1000, 64, 64, 1), 80, np.uint8)
    x[:, 29:35] = 170
    keras.utils.set_random_seed(1)
    # The layers as their documentation has them called.
    reference = keras.Sequential(
        [
            keras.layers.RandomTranslation(1 / 8, 1 / 8),
            keras.layers.RandomRotation(0.05),
            keras.layers.RandomZoom(0.2),
            keras.layers.RandomContrast(0.2),
            keras.layers.RandomBrightness(0.1),
        ]
    )
    expected = bars(np.asarray(reference(x.astype(np.float32), training=True)))
    measured = bars(augmented(x, ImageFeatures(augment="strong")))
    for value, other in zip(measured.T, expected.T, strict=True):
        assert value.mean() == pytest.approx(other.mean(), abs=0.15 * other.std())
        assert value.std() == pytest.approx(other.std(), rel=0.1)
        np.testing.assert_allclose(
            np.quantile(value, [0.01, 0.99]),
            np.quantile(other, [0.01, 0.99]),
            atol=0.2 * other.std(),
        )


def test_strong_is_the_same_in_a_program_of_low_precision() -> None:
    features = ImageFeatures(augment="strong")
    expected = augmented(noise(24), features)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        np.testing.assert_array_equal(augmented(noise(24), features), expected)
    finally:
        keras.config.set_dtype_policy(before)


def test_strong_takes_no_random_numbers_of_the_program() -> None:
    keras.utils.set_random_seed(5)
    expected = np.random.get_state()[1].tolist(), random.getstate(), draw()
    keras.utils.set_random_seed(5)
    augmented(noise(24), ImageFeatures(augment="strong"))
    assert (np.random.get_state()[1].tolist(), random.getstate(), draw()) == expected


def draw() -> list[float]:
    values: list[float] = np.asarray(keras.random.uniform((3,))).tolist()
    return values
