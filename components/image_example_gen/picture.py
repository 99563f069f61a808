"""One picture file: is it good, and does TensorFlow see in it what a person sees?"""

import functools
import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 1024**2

_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
# Opening a JPEG gives MPO where further pictures follow, as in the .jpg files of many cameras.
_KEPT_FORMATS = ("PNG", "JPEG", "MPO")
_KEPT_MODES = ("L", "RGB")
_ORIENTATION = 0x0112
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
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise BadImageError("the file is empty")
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

    try:
        # One call for many pictures takes a third of the time; who it fails for, it cannot say.
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


@functools.cache
def _decoder() -> Any:
    import tensorflow as tf

    def pixels(content: tf.Tensor) -> tf.Tensor:
        return tf.size(tf.io.decode_image(content, channels=3, expand_animations=False))

    # Two at a time: the pixels of more could fill the memory.
    return tf.function(
        lambda contents: tf.map_fn(
            pixels, contents, fn_output_signature=tf.int32, parallel_iterations=2
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
