"""Number, size and colour of the images of a folder, from a sample, and how to train on them."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.image_example_gen.folder import TRAIN, scan
from trainer_module.config import ImageFeatures

MAX_SIDE = 128
"""Pixels of the longer side that larger images are resized to."""

_SAMPLED, _DECODED = 200, 40
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
    """1 if all sampled images are grey."""
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
            augment=("crop",) if self.has_symbols else ("flip", "crop"),
        )

    def __str__(self) -> str:
        """One line: what there is, and what is made of it."""
        features = self.features
        flip = "not flipped, since the classes are symbols" if self.has_symbols else "flipped"
        return (
            f"{self.count:,} images of about {self.width} x {self.height}, "
            f"{'grey' if self.channels == 1 else 'colour'}: trained at {features.width} x "
            f"{features.height}, {flip} and cropped at random"
        )


def look(root: Path) -> Look:
    """Returns what the images of a data folder look like, by at most 200 of them.

    Raises:
        UserError: The folder breaks a rule of layout.
    """
    folder = scan(root)
    paths = folder.files[TRAIN]
    sample = [root / path for path in paths[:: max(len(paths) // _SAMPLED, 1)]]
    # A file that cannot be read is named by the data step.
    sizes = [size for size in map(_size, sample) if size] or [(64, 64)]
    decoded = sample[:: max(len(sample) // _DECODED, 1)]
    return Look(
        count=len(paths),
        height=round(statistics.median(height for height, _ in sizes)),
        width=round(statistics.median(width for _, width in sizes)),
        channels=1 if all(map(_is_grey, decoded)) else 3,
        has_symbols=has_symbols(folder.classes),
    )


def has_symbols(classes: Sequence[str]) -> bool:
    """Returns whether all classes are single digits or letters."""
    return all(_SYMBOL.fullmatch(name) for name in classes)


def _size(path: Path) -> tuple[int, int] | None:
    """Returns rows and columns of an image as it is shown; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            is_turned = image.getexif().get(_ORIENTATION) in _ROTATED
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return (width, height) if is_turned else (height, width)


def _is_grey(path: Path) -> bool:
    """Returns whether an image has no colour; one that cannot be read decides nothing."""
    from PIL import Image, ImageChops

    try:
        with Image.open(path) as image:
            if image.mode in ("1", "L", "LA", "I", "I;16", "F"):
                return True
            # Of a large JPEG, an eighth of the pixels is decoded in each direction.
            image.draft("RGB", (64, 64))
            red, green, blue = image.convert("RGB").split()
            differences = ImageChops.difference(red, green), ImageChops.difference(green, blue)
            return all(each.getbbox() is None for each in differences)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return True
