"""One picture file: is it good, and does TensorFlow see in it what a person sees?"""

import functools
import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components.image_example_gen import header

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 1024**2

MAX_SCANS = 100
"""Passes over the pixels of a JPEG, of which each may take as long as a whole decoding. Encoders
write about ten, and a few bytes are enough for one."""
GROUP = 64
"""Pictures that `faults` decodes fastest."""

# The pixels of more could fill the memory.
_AT_ONCE = 2

_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
# Opening a JPEG gives MPO where further pictures follow, as in the .jpg files of many cameras.
_JPEG = ("JPEG", "MPO")
_KEPT_FORMATS = ("PNG", *_JPEG)
_KEPT_MODES = ("L", "RGB")
_ORIENTATION = 0x0112
# Markers of a JPEG that have a length, and its end; what else there is stands among the data.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_JPEG_START, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
# The newest Pillow for Python 3.10 has three flaws, of which the next one is free
# (docs/supply-chain.md): it copies all that follows each of several EXIF headers; a step of a BMP
# writes up to 255 rows; and its JPEG decoder trusts the size in whichever frame header it saw.
_REPEATED_EXIF = b"Exif\0\0" * 3
_RUN_LENGTHS = (1, 2)
_MAX_RUN_LENGTH_WIDTH = 65_535
_FRAME = re.compile(
    rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\0[\x0b\x0e\x11\x14]\x08..(..)([\x01-\x04])", re.S
)
# Which node of which graph failed, around what TensorFlow says about the picture.
_INTERNALS = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*")


class BadImageError(ValueError):
    """A picture that cannot be used; the message says why."""


def prepare(content: bytes) -> tuple[bytes, bool]:
    """Look at a picture's header and give the bytes to store.

    Plain 8-bit grey and RGB PNG and JPEG files stay as they are. Whatever TensorFlow cannot
    decode or shows differently from a viewer (BMP, GIF, CMYK, palettes, 16 bits, transparency,
    turned by an EXIF tag) becomes an 8-bit grey or RGB PNG: first frame, upright, on white.

    Args:
        content: The file.

    Returns:
        The encoded picture, and whether it was converted.

    Raises:
        BadImageError: No picture, or too large, or broken in a way that shows without decoding.
    """
    if header.is_plain(content, MAX_PIXELS) and not _may_have_too_many_scans(content):
        return content, False
    return prepare_with_pillow(content)


def prepare_with_pillow(content: bytes) -> tuple[bytes, bool]:
    """What `prepare` does about a picture whose header does not prove it to be plain."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise BadImageError("the file is empty")
    if _REPEATED_EXIF in content:
        raise BadImageError("its EXIF header is repeated")
    try:
        with warnings.catch_warnings():
            # Our own limit is lower than the one Pillow warns at.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise BadImageError(f"it has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise BadImageError(_no_picture(content)) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on broken headers.
        raise BadImageError(f"its header is broken: {error or type(error).__name__}") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(
            f"it has {image.width:,} x {image.height:,} pixels, more than {MAX_PIXELS:,}"
        )
    if image.format == "BMP" and _is_wide_by_run_lengths(image):
        raise BadImageError(
            f"it is compressed by run lengths and has {image.width:,} x {image.height:,} pixels, "
            f"more than {_MAX_RUN_LENGTH_WIDTH:,} in a row"
        )
    if image.format in _JPEG:
        if _has_too_many_scans(content):
            raise BadImageError(f"it has more than {MAX_SCANS} scans")
        if _has_longer_rows(content, image):
            raise BadImageError("it names its size twice, once with longer rows")
    try:
        if _is_plain(image):
            return content, False
        return _as_png(image), True
    except Exception as error:  # As above.
        raise BadImageError(f"it is broken or cut short: {error}") from error


def faults(contents: Sequence[bytes]) -> list[str | None]:
    """Decode pictures in full, with the decoder that training uses, and say what is wrong.

    Args:
        contents: Encoded pictures that `prepare` let pass.

    Returns:
        For each, why it cannot be decoded, or None where it can.
    """
    import tensorflow as tf

    # One call for many pictures takes a fraction of the time; who it fails for, it cannot say.
    decode = _decoder_of_group() if len(contents) == GROUP else _decoder_of_any()
    try:
        decode(tf.constant(contents, tf.string))
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


def _pixels(content: Any) -> Any:
    """Number of values in a picture, a string tensor, after all of its file was decoded.

    An eighth of the size changes what is computed from the coefficients of a JPEG, not which of
    them are read, so it fails for the same files. PNG files come in full.
    """
    import tensorflow as tf

    return tf.size(tf.io.decode_jpeg(content, channels=3, ratio=8))


@functools.cache
def _decoder_of_group() -> Any:
    """Decodes `GROUP` pictures; an operation each, which costs less than turns of a loop."""
    import tensorflow as tf

    def sizes(contents: Any) -> Any:
        found: list[Any] = []
        for content in tf.unstack(contents, GROUP):
            with tf.control_dependencies(found[-_AT_ONCE:][:1] if len(found) >= _AT_ONCE else []):
                found.append(_pixels(content))
        return tf.stack(found)

    return tf.function(sizes, input_signature=[tf.TensorSpec([GROUP], tf.string)], autograph=False)


@functools.cache
def _decoder_of_any() -> Any:
    """Decodes any number of pictures."""
    import tensorflow as tf

    return tf.function(
        lambda contents: tf.map_fn(
            _pixels, contents, fn_output_signature=tf.int32, parallel_iterations=_AT_ONCE
        ),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )


def _is_plain(image: "Image.Image") -> bool:
    return (
        image.format in _KEPT_FORMATS
        and image.mode in _KEPT_MODES
        and "transparency" not in image.info
        and not ("exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1)
    )


def _may_have_too_many_scans(content: bytes) -> bool:
    return content.startswith(_JPEG_START) and content.count(_SCAN) > MAX_SCANS


def _has_too_many_scans(content: bytes) -> bool:
    if not _may_have_too_many_scans(content):
        return False
    scans, place = 0, len(_SCAN)
    # What follows the end, such as a video, is no part of the picture.
    while (found := _MARKER.search(content, place)) and found[0] != _END and scans <= MAX_SCANS:
        scans += found[0] == _SCAN
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    return scans > MAX_SCANS


def _is_wide_by_run_lengths(image: "Image.Image") -> bool:
    return image.info.get("compression") in _RUN_LENGTHS and image.width > _MAX_RUN_LENGTH_WIDTH


def _has_longer_rows(content: bytes, image: "Image.Image") -> bool:
    """Whether what may be a frame header, wherever it stands, has longer rows than Pillow saw."""
    row = image.width * len(image.getbands())
    return any(
        int.from_bytes(found[1], "big") * found[2][0] > row for found in _FRAME.finditer(content)
    )


def _as_png(image: "Image.Image") -> bytes:
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys to 255 where it should scale.
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in _KEPT_MODES:
        image = image.convert("L" if image.mode == "1" else "RGB")
    png = io.BytesIO()
    # Nothing but the pixels: a kept orientation or colour profile could be applied once more.
    Image.frombytes(image.mode, image.size, image.tobytes()).save(png, "PNG")
    return png.getvalue()


def _no_picture(content: bytes) -> str:
    known = {b"RIFF": "WebP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"<svg": "SVG", b"%PDF": "PDF"}
    what = known.get(content[:4])
    if content[4:8] == b"ftyp":
        what = "HEIC or AVIF"
    found = f"it is {what}" if what else "its content is no picture"
    return f"{found} ({', '.join(_FORMATS)} can be read)"
