"""Bounds the memory of a serving request: parts of a fixed size, images of a bounded one."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from trainer_module.serving import decoding

PART = 256
"""Examples that are computed at once, however many a request has."""

MAX_PIXELS = 64_000_000
"""Pixels of an image; one with more is not let into the training data either."""

FREE_SCANS = 100
"""Scans of a JPEG file; each one more counts as all its pixels once again."""

TRANSPARENT = 4
"""How many times a pixel counts that is composed on white, which takes as much more memory."""

# As far as the compression of a BMP reaches.
_HEADER = 34
_SCAN = b"\xff\xda"
_BMP_HEADERS = (40, 108, 124)
_CMYK = 4
_REFUSED = (
    "",
    "GIF, of which all frames would be decoded",
    "WebP",
    "TIFF",
    "BMP that is compressed or has other than 24 bits a pixel",
    "JPEG in CMYK without an Adobe segment, which does not tell whether it is inverted",
)


def in_parts(
    answer: Callable[[Mapping[str, tf.Tensor]], tf.Tensor], request: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Answers a request part by part, so that memory does not grow with it.

    Args:
        answer: From tensors [n] to a float32 tensor [n, C], for n of 0 to `PART`.
        request: Tensors [N] by name.

    Returns:
        float32 [N, C].
    """
    size = tf.shape(next(iter(request.values())))[0]
    # An empty request has a part, too, whose answer has the right shape.
    count = tf.maximum((size + PART - 1) // PART, 1)

    def step(number: tf.Tensor, answers: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = slice(number * PART, (number + 1) * PART)
        part = {name: values[rows] for name, values in request.items()}
        return number + 1, answers.write(number, answer(part))

    _, answers = tf.while_loop(
        lambda number, _: number < count,
        step,
        (0, tf.TensorArray(tf.float32, count, infer_shape=False)),
        # One after the other: the memory of one is what is promised.
        parallel_iterations=1,
    )
    return answers.concat()


def takes(images: tf.Tensor) -> tf.Tensor:
    """Returns which encoded images `bounded` lets pass: string [N] -> bool [N].

    Raises:
        tf.errors.InvalidArgumentError: When run, for a JPEG with a broken header.
    """
    refused, cost = _judged(images)
    return (refused == 0) & (cost <= MAX_PIXELS)


def bounded(images: tf.Tensor) -> tf.Tensor:
    """Returns encoded images as they are; an error where one cannot or should not be decoded.

    It looks at the headers only. Formats that TensorFlow does not decode as Pillow shows them are
    refused, so that no answer differs from that to the PNG which ImageExampleGen makes of them;
    so is a GIF of any size, since TensorFlow decodes every frame to return the first, and their
    sizes stand all over the file. A few hundred bytes can be an image of gigabytes, so the number
    of pixels is bounded.

    Args:
        images: Strings of any shape.

    Raises:
        tf.errors.InvalidArgumentError: When run; the message has the rule and the remedy.
    """
    refused, cost = _judged(tf.reshape(images, [-1]))
    is_read = tf.debugging.Assert(
        tf.reduce_all(refused == 0),
        [
            tf.strings.join(
                [
                    "an image must be a PNG, a JPEG or a BMP of 24 bits, got a ",
                    tf.gather(_REFUSED, tf.maximum(tf.reduce_max(refused), 0)),
                    "; convert it to PNG",
                ]
            )
        ],
    )
    is_small = tf.debugging.assert_less_equal(
        cost,
        tf.constant(MAX_PIXELS, tf.int64),
        message=f"an image must have at most {MAX_PIXELS:,} pixels (those of a transparent one "
        f"count {TRANSPARENT} times, and those of a JPEG for each scan beyond {FREE_SCANS}); send "
        "a smaller one",
    )
    with tf.control_dependencies([is_read, is_small]):
        return tf.identity(images)


def _judge(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns indices into `_REFUSED`, int32 [N], and costs in pixels, int64 [N], of images [N]."""
    first = decoding.octets(images, 0, _HEADER)
    shape = _shape_of_jpeg(images, first)
    is_png = decoding.matches(first[:, :4], decoding.PNG)
    is_cmyk = shape[:, 2] == _CMYK
    pixels = decoding.big_endian(first[:, 16:20]) * decoding.big_endian(first[:, 20:24])
    cost = tf.where(is_png, pixels, shape[:, 0] * shape[:, 1])
    # The segments are walked through only where it matters what they are.
    rows = tf.where((is_png & (cost > MAX_PIXELS // TRANSPARENT)) | is_cmyk)
    header = decoding.header(tf.gather_nd(images, rows))

    def spread(values: tf.Tensor) -> tf.Tensor:
        return tf.scatter_nd(rows, tf.cast(values, tf.int64), tf.shape(cost, tf.int64))

    cost *= 1 + (TRANSPARENT - 1) * spread(header.transparent)
    return _refused(first, is_cmyk & (spread(header.adobe) == 0)), cost


# As a function it is once in a model, whatever number of signatures call it.
_judged = tf.function(_judge, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def _refused(first: tf.Tensor, ambiguous: tf.Tensor) -> tf.Tensor:
    """Returns indices into `_REFUSED`, int32 [N], by the first bytes of images, int64 [N, 34]."""
    magic, little = first[:, :4], first[:, ::-1]

    def number(place: int, count: int) -> tf.Tensor:
        return decoding.big_endian(little[:, _HEADER - place - count : _HEADER - place])

    plain = tf.reduce_any(number(14, 4)[:, None] == tf.constant(_BMP_HEADERS, tf.int64), axis=1)
    plain &= (number(28, 2) == 24) & (number(30, 4) == 0)
    is_tiff = decoding.matches(magic, b"II*\0") | decoding.matches(magic, b"MM\0*")
    is_bmp = decoding.matches(first[:, :2], b"BM")
    kinds = (
        decoding.matches(magic, b"GIF8"),
        decoding.matches(magic, b"RIFF"),
        is_tiff,
        is_bmp & ~plain,
        ambiguous,
    )
    return tf.add_n([i * tf.cast(kind, tf.int32) for i, kind in enumerate(kinds, 1)])


def _shape_of_jpeg(images: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """Returns height, width and channels, int64 [N, 3], zeros for other formats.

    The height counts once for each scan beyond `FREE_SCANS`.
    """
    rows = tf.where(decoding.matches(first[:, :3], decoding.JPEG))

    def shape_of(image: tf.Tensor) -> tf.Tensor:
        shape = tf.cast(tf.io.extract_jpeg_shape(image), tf.int64)
        scans = tf.size(tf.strings.split(image, _SCAN), tf.int64) - 1
        return shape * tf.stack([tf.maximum(scans - FREE_SCANS, 1), 1, 1])

    spec = tf.TensorSpec([3], tf.int64)
    shapes = tf.map_fn(shape_of, tf.gather_nd(images, rows), fn_output_signature=spec)
    return tf.scatter_nd(rows, shapes, [tf.shape(images, tf.int64)[0], 3])
