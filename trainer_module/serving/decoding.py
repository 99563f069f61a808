"""Image decoding in the graph: upright by EXIF orientation, composed on white.

Pillow and browsers show an image like this; TensorFlow's decoders ignore the EXIF orientation and
drop the alpha channel.
"""

from typing import NamedTuple

import tensorflow as tf

MAX_SEGMENTS = 256
"""JPEG segments or PNG chunks before the pixels that are read; later ones are ignored."""

PNG, JPEG = b"\x89PNG", b"\xff\xd8\xff"
"""How files of these formats begin."""

# Bytes of a segment that are read: a PNG chunk's length and type; or a JPEG's marker, length, and
# the name of an application segment.
_WINDOW = 12
_EXIF = b"Exif\0\0"
_ORIENTATION, _SHORT = 0x0112, 3
_IFD_ENTRIES, _ENTRY = 64, 12
# Signature, and the IHDR chunk with its checksum.
_PNG_START, _JPEG_START = 33, 2
_COLOR_TYPE, _ALPHA = 25, 4


class Header(NamedTuple):
    """What the header says about how an image is shown, for N encoded images.

    Attributes:
        orientation: EXIF orientation, int32 [N], 1 to 8; 1 where there is none.
        transparent: Whether a PNG has an alpha channel or a tRNS chunk, bool [N].
        adobe: Whether a JPEG has an Adobe segment, bool [N].
    """

    orientation: tf.Tensor
    transparent: tf.Tensor
    adobe: tf.Tensor


def header(images: tf.Tensor) -> Header:
    """Reads the headers of JPEG and PNG files; of other files, the defaults.

    All images take their steps from segment to segment together, at most `MAX_SEGMENTS`.

    Args:
        images: Encoded images, string [N].
    """
    images = tf.convert_to_tensor(images, tf.string)
    size = tf.cast(tf.strings.length(images), tf.int64)
    first = octets(images, 0, _COLOR_TYPE + 1)
    png, jpeg = matches(first[:, :4], PNG), matches(first[:, :3], JPEG)
    start = tf.where(png, tf.constant(_PNG_START, tf.int64), tf.constant(_JPEG_START, tf.int64))
    start = tf.where(png | jpeg, tf.minimum(start, size), size)
    alpha = tf.bitwise.bitwise_and(first[:, _COLOR_TYPE], _ALPHA) > 0
    nowhere = tf.zeros_like(size)

    def unfinished(number: tf.Tensor, place: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (number < MAX_SEGMENTS) & tf.reduce_any(place < size)

    def step(
        number: tf.Tensor,
        place: tf.Tensor,
        exif: tf.Tensor,
        transparent: tf.Tensor,
        adobe: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        window = octets(images, place, _WINDOW)
        kind, marker = window[:, 4:8], window[:, 1]
        length = big_endian(window[:, 2:4])
        # Fill bytes may stand before a marker. The walk ends at the frame header, behind which
        # no application segment is expected, and at whatever has no length.
        fill = marker == 0xFF
        frame = (marker >= 0xC0) & (marker <= 0xCF) & (marker != 0xC4)
        continues = (window[:, 0] == 0xFF) & (marker >= 0xC0) & ~frame & (length >= 2)
        continues &= (marker < 0xD0) | (marker > 0xDA)
        after_jpeg = tf.where(fill, place + 1, tf.where(continues, place + 2 + length, size))
        pixels = matches(kind, b"IDAT") | matches(kind, b"IEND")
        after_png = tf.where(pixels, size, place + 12 + big_endian(window[:, :4]))
        exif_here = tf.where(
            png,
            tf.where(matches(kind, b"eXIf"), place + 8, nowhere),
            tf.where((marker == 0xE1) & matches(window[:, 4:10], _EXIF), place + 10, nowhere),
        )
        return (
            number + 1,
            tf.minimum(tf.where(png, after_png, after_jpeg), size),
            tf.where(exif > 0, exif, tf.where(place < size, exif_here, nowhere)),
            transparent | (png & matches(kind, b"tRNS")),
            adobe | (jpeg & (marker == 0xEE) & matches(window[:, 4:9], b"Adobe")),
        )

    _, _, exif, transparent, adobe = tf.while_loop(
        unfinished, step, (0, start, nowhere, png & alpha, tf.zeros_like(png))
    )
    return Header(_orientation(images, exif), transparent, adobe)


def decode(image: tf.Tensor, transparent: tf.Tensor) -> tf.Tensor:
    """Decodes one image to RGB, composed on white: string [] -> uint8 [H, W, 3].

    Args:
        image: The encoded image.
        transparent: Whether it is a PNG with an alpha channel or a tRNS chunk, bool [].
    """
    # TensorFlow fills the alpha channel of PNGs of fewer than 8 bits wrongly where they have none,
    # so that four channels are asked for only where there is one.
    decoded = tf.cond(
        transparent,
        lambda: _on_white(tf.io.decode_png(image, channels=4)),
        lambda: tf.io.decode_image(image, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(decoded, [None, None, 3])


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Applies an EXIF orientation, 1 to 8, to an image [H, W, C]."""
    swap = orientation >= 5
    down = tf.reduce_any(tf.equal(orientation, [3, 4, 7, 8]))
    across = tf.reduce_any(tf.equal(orientation, [2, 3, 6, 7]))
    turned = tf.transpose(image, tf.where(swap, [1, 0, 2], [0, 1, 2]))
    return tf.reverse(turned, tf.boolean_mask([0, 1], tf.stack([down, across])))


def octets(images: tf.Tensor, place: tf.Tensor | int, count: int) -> tf.Tensor:
    """Reads bytes at a place in each string, zeros beyond its end: int64 [N, count]."""
    size = tf.cast(tf.strings.length(images), tf.int64)
    place = tf.minimum(tf.cast(place, tf.int64), size)
    part = tf.strings.substr(images, place, count + tf.zeros_like(place))
    return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=count), tf.int64)


def big_endian(values: tf.Tensor) -> tf.Tensor:
    """Unsigned numbers of bytes, the highest first: int64 [..., n] -> int64 [...]."""
    weights = [256**power for power in reversed(range(values.shape[-1]))]
    return tf.reduce_sum(values * tf.constant(weights, tf.int64), axis=-1)


def matches(window: tf.Tensor, name: bytes) -> tf.Tensor:
    """Returns whether bytes spell a name: int64 [..., n] -> bool [...]."""
    return tf.equal(big_endian(window), int.from_bytes(name, "big"))


def _orientation(images: tf.Tensor, exif: tf.Tensor) -> tf.Tensor:
    """The orientation in EXIF data, which begins at a place in each image, 0 for none."""
    rows = tf.where(exif > 0)
    images, place = tf.gather_nd(images, rows), tf.gather_nd(exif, rows)
    # Some programs write the header twice; Pillow passes over the second one too.
    repeated = matches(octets(images, place, len(_EXIF)), _EXIF)
    place = tf.where(repeated, place + len(_EXIF), place)
    head = octets(images, place, 8)
    little = tf.equal(head[:, 0], ord("I"))

    def number(values: tf.Tensor, is_little: tf.Tensor) -> tf.Tensor:
        return tf.where(is_little, big_endian(values[..., ::-1]), big_endian(values))

    ifd = octets(images, place + number(head[:, 4:8], little), 2 + _IFD_ENTRIES * _ENTRY)
    count = number(ifd[:, :2], little)
    entries = tf.reshape(ifd[:, 2:], [-1, _IFD_ENTRIES, _ENTRY])
    each = little[:, None]
    is_orientation = number(entries[..., :2], each) == _ORIENTATION
    is_orientation &= number(entries[..., 2:4], each) == _SHORT
    is_orientation &= tf.range(_IFD_ENTRIES, dtype=tf.int64)[None, :] < count[:, None]
    value = tf.reduce_max(tf.where(is_orientation, number(entries[..., 8:10], each), 1), axis=1)
    value = tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)
    return tf.tensor_scatter_nd_update(tf.ones_like(exif, tf.int32), rows, value)


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Composes RGBA on white, rounded as Pillow does: uint8 [H, W, 4] -> uint8 [H, W, 3]."""
    # In 16 bits, and of the distance from white, since a large image has to fit the memory.
    away = tf.cast(tf.bitwise.invert(image[..., :3]), tf.uint16)
    away = (away * tf.cast(image[..., 3:], tf.uint16) + 127) // 255
    return tf.bitwise.invert(tf.cast(away, tf.uint8))
