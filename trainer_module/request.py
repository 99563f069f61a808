"""What a request to a served model may cost: parts of a fixed size, pictures of a bounded one."""

from collections.abc import Callable, Mapping

import tensorflow as tf

PART = 256
"""Examples that are computed at once, however many a request has."""

MAX_PIXELS = 64_000_000
"""Pixels of a picture; one with more is not let into the training data either."""

FREE_SCANS = 100
"""Scans of a JPEG file; each one more counts as all its pixels once again."""

# As far as the sizes of a PNG reach.
_HEADER = 24
_PNG, _GIF, _JPEG = b"\x89PNG", b"GIF8", b"\xff\xd8\xff"
_SCAN = b"\xff\xda"


def in_parts(
    answer: Callable[[Mapping[str, tf.Tensor]], tf.Tensor], request: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Answer a request part by part, so that memory does not grow with it.

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


def bounded(images: tf.Tensor) -> tf.Tensor:
    """Encoded pictures as they are, or an error where one would take too much to decode.

    A few hundred bytes can be a picture of gigabytes. The sizes are read from the files' headers.
    Those of a GIF's frames stand all over the file, and TensorFlow decodes every frame to give the
    first, so that a GIF is refused whatever its size.

    Args:
        images: Strings of any shape.
    """
    flat = tf.reshape(images, [-1])
    is_still = tf.debugging.Assert(
        tf.reduce_all(tf.not_equal(tf.strings.substr(flat, 0, 4), _GIF)),
        ["a picture must be a PNG, a JPEG or a BMP; send the first frame of a GIF as a PNG"],
    )
    is_small = tf.debugging.assert_less_equal(
        _cost(flat),
        tf.constant(MAX_PIXELS, tf.int64),
        message=f"a picture must have at most {MAX_PIXELS:,} pixels (and a JPEG, whose scans are "
        f"counted beyond {FREE_SCANS}, so many in all); send a smaller one",
    )
    with tf.control_dependencies([is_still, is_small]):
        return tf.identity(images)


def _cost(images: tf.Tensor) -> tf.Tensor:
    """Pixels to decode by the header, int64 [N]; 0 where nothing is known."""
    header = tf.cast(tf.io.decode_raw(images, tf.uint8, fixed_length=_HEADER), tf.int64)
    start = tf.strings.substr(images, 0, 4)
    png = _number(header, 19, 18, 17, 16) * _number(header, 23, 22, 21, 20)
    cost = tf.where(tf.equal(start, _PNG), png, 0)
    # Only a JPEG has to be searched for its size.
    jpeg = tf.where(tf.equal(tf.strings.substr(images, 0, 3), _JPEG))
    sizes = tf.map_fn(_cost_of_jpeg, tf.gather_nd(images, jpeg), fn_output_signature=tf.int64)
    return tf.tensor_scatter_nd_update(cost, jpeg, sizes)


def _cost_of_jpeg(image: tf.Tensor) -> tf.Tensor:
    shape = tf.cast(tf.io.extract_jpeg_shape(image), tf.int64)
    scans = tf.size(tf.strings.split(image, _SCAN), tf.int64) - 1
    return shape[0] * shape[1] * tf.maximum(scans - FREE_SCANS, 1)


def _number(header: tf.Tensor, *places: int) -> tf.Tensor:
    """The whole numbers in columns of bytes, the lowest byte first."""
    return tf.add_n([header[:, place] * 256**power for power, place in enumerate(places)])
