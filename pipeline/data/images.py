"""Number, size and colour of the images of a folder, from a sample, and how to train on them."""

import re
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from components.image_example_gen.folder import TRAIN, scan
from components.image_example_gen.image import FORMATS, JPEG, MAX_PIXELS
from trainer_module.config import ImageFeatures

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

MAX_SIDE = 128
"""Pixels of the longer side that larger images are resized to."""

_SAMPLED, _DECODED = 200, 40
# Larger images that are no JPEG take seconds to decode.
_DECODED_PIXELS = 4_000_000
_GREY = frozenset({"1", "L", "LA", "I;16", "I;16B"})
# Of a digit or letter a mirror image is another one, or none.
_SYMBOL = re.compile(r"[0-9]|[^\W\d_]")
_ROTATED = range(5, 9)
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Look:
    """What the images of a folder look like."""

    count: int
    """Number of images to train on, including those drawn for other splits."""
    height: int
    """Median number of rows, in pixels."""
    width: int
    """Median number of columns, in pixels."""
    channels: Literal[1, 3]
    """1 if all sampled images that can be read are grey."""
    has_symbols: bool
    """Whether the classes are digits or letters."""

    @property
    def features(self) -> ImageFeatures:
        """How they become tensors: at their own size, up to `MAX_SIDE`."""
        scale = min(1.0, MAX_SIDE / max(self.height, self.width))
        return ImageFeatures(
            height=max(round(self.height * scale), 8),
            width=max(round(self.width * scale), 8),
            channels=self.channels,
            augment="light",
            flip=not self.has_symbols,
        )

    def describe(self, features: ImageFeatures) -> str:
        """Returns a line about what there is, and what is made of it.

        Args:
            features: Those of the run, which flags may have changed.
        """
        is_augmented = features.augment != "none"
        why = "; not flipped, since the classes are symbols" * (
            is_augmented and self.has_symbols and not features.flip
        )
        return (
            f"{self.count:,} images of about {self.width} x {self.height}, "
            f"{'grey' if self.channels == 1 else 'colour'}: trained at {features.width} x "
            f"{features.height}, {'grey' if features.channels == 1 else 'colour'}"
            f"{f', with {features.augment} augmentation' * is_augmented}{why}"
        )


def look(root: Path) -> Look:
    """Returns what the images of a data folder look like, by at most 200 of them.

    Raises:
        UserError: The folder breaks a rule of layout.
    """
    folder = scan(root)
    paths = folder.files[TRAIN]
    sample = [root / path for path in paths[:: max(len(paths) // _SAMPLED, 1)]]
    sizes = [size for path in sample if (size := _examined(path, _size))] or [(64, 64)]
    decoded = sample[:: max(len(sample) // _DECODED, 1)]
    greys = [grey for path in decoded if (grey := _examined(path, _is_grey)) is not None]
    return Look(
        count=len(paths),
        height=round(statistics.median(height for height, _ in sizes)),
        width=round(statistics.median(width for _, width in sizes)),
        channels=1 if greys and all(greys) else 3,
        has_symbols=has_symbols(folder.classes),
    )


def has_symbols(classes: Sequence[str]) -> bool:
    """Returns whether all classes are single digits or letters."""
    return all(_SYMBOL.fullmatch(name) for name in classes)


def _examined(path: Path, examine: Callable[["Image.Image"], T]) -> T | None:
    """Returns what a function finds in an image; None if it cannot be read, or is too large."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Our own limit is lower than the one Pillow warns at.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return examine(image) if image.width * image.height <= MAX_PIXELS else None
    # Pillow's plugins raise nearly anything; the data step says what is wrong with the file.
    except Exception:
        return None


def _size(image: "Image.Image") -> tuple[int, int]:
    """Returns rows and columns of an image as it is shown."""
    is_turned = image.getexif().get(_ORIENTATION) in _ROTATED
    return (image.width, image.height) if is_turned else (image.height, image.width)


def _is_grey(image: "Image.Image") -> bool:
    """Returns whether an image has no colour, as far as it can be told quickly."""
    from PIL import ImageChops

    is_large = image.format not in JPEG and image.width * image.height > _DECODED_PIXELS
    # A progressive JPEG may pass over its pixels any number of times; of TIFF see `image.prepare`.
    is_risky = image.info.get("progressive") or image.format == "TIFF"
    if image.mode in _GREY or is_large or is_risky:
        return image.mode in _GREY
    # Of a JPEG, an eighth of the pixels in each direction is enough.
    image.draft("RGB", (64, 64))
    red, green, blue = image.convert("RGB").split()
    differences = ImageChops.difference(red, green), ImageChops.difference(green, blue)
    return all(each.getbbox() is None for each in differences)
