"""Image files: a check that one can be used, and conversion to what the served model takes."""

import atexit
import functools
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
"""Pillow's names of the formats that are read."""

JPEG = ("JPEG", "MPO")
"""Pillow's names of JPEG: MPO where further images follow, as in the files of many cameras."""

MAX_BYTES = 512 * 1024**2
MAX_PIXELS = 64_000_000
MAX_SCANS = 100
"""Passes over the pixels of a JPEG, of which each may take as long as a whole decoding. Encoders
write about ten, and a few bytes are enough for one."""

GROUP = 64
"""Images that `faults` decodes fastest."""

# The pixels of more could fill the memory.
_AT_ONCE = 2

# Pillow converts other modes without regard to the range of their numbers.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "I;16B"})
# Markers of a JPEG that have a length, and its end; what else there is stands among the data.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
# Tiles, YCbCr pixels and JPEG strips of a TIFF were read beyond their end before Pillow 13
# (docs/supply-chain.md). That leaves no trace that a test could look for, so they stay refused.
_TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_TILE_WIDTH = 259, 262, 322
# None, LZW, Deflate by both of its numbers, and PackBits.
_TIFF_COMPRESSIONS = frozenset({1, 5, 8, 32946, 32773})
_YCBCR = 6
# Names of nodes and graphs around what TensorFlow says about the image.
_INTERNALS = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*")


class BadImageError(ValueError):
    """Error about an image that cannot be used; the message says why."""


class Prepared(NamedTuple):
    """The bytes to store of an image.

    Attributes:
        content: The file itself, or the PNG that it was converted to.
        converted: Format and mode of a file that was converted, such as "GIF P"; empty if it is
            stored as it is.
    """

    content: bytes
    converted: str = ""


def prepare(content: bytes) -> Prepared:
    """Checks an image's header and returns the bytes to store.

    A file that the served model takes is stored as it is: training and serving decode the same
    bytes by the same graph (`trainer_module.serving.decoding`). Any other becomes an 8-bit grey or
    RGB PNG: first frame, upright, on white. The model refuses those files
    (`trainer_module.serving.request.bounded`), so that it never answers from other pixels than it
    was trained on.

    Args:
        content: The file.

    Raises:
        BadImageError: No image, or too large, or broken in a way that shows without decoding.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise BadImageError("the file is empty")
    try:
        with warnings.catch_warnings():
            # Our own limit is lower than the one Pillow warns at.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadImageError(f"it has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise BadImageError(_no_image(content)) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on broken headers.
        raise BadImageError(f"its header is broken: {error or type(error).__name__}") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(
            f"it has {image.width:,} x {image.height:,} pixels, more than {MAX_PIXELS:,}"
        )
    if image.format == "TIFF" and not _is_simple_tiff(image):
        raise BadImageError(
            "it is a TIFF with tiles, YCbCr or a rare compression; save it by LZW or Deflate"
        )
    if image.mode not in _MODES:
        raise BadImageError(f"its pixels are of the mode {image.mode}, which has no set range")
    if image.format in JPEG and _has_too_many_scans(content):
        raise BadImageError(f"it has more than {MAX_SCANS} scans")
    # Asking the model's check takes as long as decoding a small image; these it takes all.
    is_plain = image.format in JPEG or (image.format == "PNG" and _is_plain_png(content))
    if (is_plain and image.mode in ("L", "RGB")) or _is_served(content):
        return Prepared(content)
    try:
        return Prepared(_as_png(image), f"{image.format} {image.mode}")
    except Exception as error:  # As above.
        raise BadImageError(f"it is broken or cut short: {error}") from error


def faults(contents: Sequence[bytes]) -> list[str | None]:
    """Decodes images in full, with the decoder that training uses.

    Args:
        contents: Encoded images that `prepare` let pass.

    Returns:
        For each, why it cannot be decoded, or None where it can.
    """
    import tensorflow as tf

    # One call for many images takes a fraction of the time; which one it fails for, it cannot say.
    try:
        _decoder()(tf.constant(contents, tf.string))
    except tf.errors.OpError:
        return [_fault(content) for content in contents]
    return [None] * len(contents)


def _fault(content: bytes) -> str | None:
    import tensorflow as tf

    try:
        tf.io.decode_image(content, channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        lines = [line.strip() for line in error.message.splitlines() if line.strip()]
        return f"it is broken or cut short: {_INTERNALS.sub('', lines[0])[:200]}"
    return None


def _cached_until_exit(make: Callable[[], Any]) -> Callable[[], Any]:
    """Makes a function of TensorFlow once, and frees it before Python ends TensorFlow's modules."""
    cached = functools.cache(make)
    atexit.register(cached.cache_clear)
    return cached


@_cached_until_exit
def _decoder() -> Any:
    """Returns a function that decodes all of each image.

    An eighth of the size changes what is computed from the coefficients of a JPEG, not which of
    them are read, so it fails for the same files. PNG files come in full.
    """
    import tensorflow as tf

    def size(content: Any) -> Any:
        return tf.size(tf.io.decode_jpeg(content, channels=3, ratio=8))

    return tf.function(
        lambda contents: tf.map_fn(
            size, contents, fn_output_signature=tf.int32, parallel_iterations=_AT_ONCE
        ),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )


def _is_served(content: bytes) -> bool:
    """Returns whether a served model takes an image, by the very check that is part of it."""
    import tensorflow as tf

    try:
        return bool(_taken()(tf.constant([content]))[0])
    except tf.errors.OpError:
        # A broken header, for which `faults` has words.
        return True


@_cached_until_exit
def _taken() -> Any:
    import tensorflow as tf

    from trainer_module.serving import request

    return tf.function(
        request.takes, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )


def _has_too_many_scans(content: bytes) -> bool:
    # The bytes of a scan's marker may also stand elsewhere, so few of them are proof.
    if content.count(_SCAN) <= MAX_SCANS:
        return False
    scans, place = 0, len(_SCAN)
    # What follows the end, such as a video, is no part of the image.
    while (mark := _MARKER.search(content, place)) and mark[0] != _END and scans <= MAX_SCANS:
        scans += mark[0] == _SCAN
        place = mark.end() + int.from_bytes(content[mark.end() : mark.end() + 2], "big")
    return scans > MAX_SCANS


def as_shown(image: "Image.Image") -> "Image.Image":
    """Returns an image as a viewer shows it: upright, on white, of mode L or RGB."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys to 255 where it should scale.
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _as_png(image: "Image.Image") -> bytes:
    from PIL import Image

    image = as_shown(image)
    png = io.BytesIO()
    # Nothing but the pixels: a kept orientation or colour profile could be applied once more.
    Image.frombytes(image.mode, image.size, image.tobytes()).save(png, "PNG")
    return png.getvalue()


def _is_plain_png(content: bytes) -> bool:
    """Returns whether a PNG has 8 bits, and nothing between its header and its pixels."""
    return content[24] == 8 and content[37:41] == b"IDAT"


def _is_simple_tiff(image: Any) -> bool:
    tags = image.tag_v2
    return (
        _TIFF_TILE_WIDTH not in tags
        and tags.get(_TIFF_PHOTOMETRIC) != _YCBCR
        and tags.get(_TIFF_COMPRESSION, 1) in _TIFF_COMPRESSIONS
    )


def _no_image(content: bytes) -> str:
    known = {b"<svg": "SVG", b"%PDF": "PDF"}.get(content[:4])
    if content[4:8] == b"ftyp":
        known = "HEIC or AVIF"
    what = f"it is {known}" if known else "its content is no image"
    return f"{what} ({', '.join(FORMATS)} can be read)"
