import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.image_example_gen import image
from tests.image_kinds import CONVERTED, SERVED
from trainer_module.serving.request import FREE_SCANS, MAX_PIXELS, PART, bounded, in_parts


def encode(kind: str, size: tuple[int, int] = (5, 4), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("L", size).save(file, kind, **options)
    return file.getvalue()


def encode_mode(mode: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    content = encode("PNG")
    chunk = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def jpeg_of(width: int, height: int, scans: int = 1) -> bytes:
    content = encode("JPEG")
    place = content.index(b"\xff\xc0") + 5
    content = content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (scans - 1) + content[-2:]


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 7])
def test_parts_give_what_the_whole_gives(size):
    sizes = []

    @tf.function(input_signature=[tf.TensorSpec([None]), tf.TensorSpec([None], tf.int64)])
    def ask(one, other):
        def answer(part):
            tf.py_function(lambda a: sizes.append(len(a)), [part["one"]], [])
            return tf.stack([part["one"], tf.cast(part["other"], tf.float32)], axis=1)

        return in_parts(answer, {"one": one, "other": other})

    rows = np.arange(size)
    found = ask(tf.constant(rows, tf.float32), tf.constant(-rows, tf.int64)).numpy()
    np.testing.assert_array_equal(found, np.stack([rows, -rows], axis=1))
    assert max(sizes) <= PART
    assert sum(sizes) == size


GOOD = [
    encode("PNG"),
    encode("JPEG"),
    SERVED["bmp"],
    jpeg_of(8_000, 8_000),
    jpeg_of(8_000, 8_000, scans=FREE_SCANS + 1),
    png_of(8_000, 8_000),
    b"",
    b"\x89PNG",
    b"no picture",
]


def test_what_is_small_or_unknown_is_left_as_it_is():
    assert bounded(tf.constant(GOOD)).numpy().tolist() == GOOD
    assert bounded(tf.constant([GOOD[:2], GOOD[2:4]])).shape == (2, 2)
    assert bounded(tf.constant([], tf.string)).shape == (0,)


@pytest.mark.parametrize(
    ("content", "cost"),
    [
        (png_of(30_000, 30_000), 900_000_000),
        (png_of(8_000, 8_001), 64_008_000),
        (png_of(2**31 - 1, 2**31 - 1), (2**31 - 1) ** 2),
        (jpeg_of(30_000, 30_000), 900_000_000),
        (jpeg_of(8_000, 8_000, scans=FREE_SCANS + 2), 128_000_000),
    ],
    ids=["png", "a row too many", "largest png", "jpeg", "scans"],
)
def test_what_would_take_too_much_is_refused_with_its_size(content, cost):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        bounded(tf.constant([GOOD[0], content]))
    assert "at most 64,000,000 pixels" in str(error.value)
    assert "send a smaller one" in str(error.value)
    assert str(cost) in str(error.value)


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_tensorflow_decodes_otherwise_is_refused_with_its_format(kind):
    content, name = CONVERTED[kind]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        bounded(tf.constant([GOOD[0], content, GOOD[1]]))
    assert f"got a {name}" in str(error.value) or f"JPEG in {name}" in str(error.value)
    assert "convert it to PNG" in str(error.value)


@pytest.mark.parametrize("kind", SERVED)
def test_what_it_decodes_alike_is_not(kind):
    assert bounded(tf.constant([SERVED[kind]])).numpy().tolist() == [SERVED[kind]]


def test_a_gif_is_refused_for_its_frames_may_be_of_any_size():
    canvas = struct.pack("<HH", 10, 10)
    large = encode("GIF")
    for content in (large[:6] + canvas + large[10:], b"GIF87a"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="a GIF, of which all frames"):
            bounded(tf.constant([GOOD[0], content]))


def test_a_transparent_image_counts_four_times():
    clear = encode_mode("LA", (4_000, 4_000))
    assert bounded(tf.constant([clear])).numpy().tolist() == [clear]
    larger = encode_mode("LA", (4_000, 4_001))
    with pytest.raises(tf.errors.InvalidArgumentError, match="count 4 times"):
        bounded(tf.constant([GOOD[0], larger]))
    opaque = encode_mode("L", (4_000, 4_001))
    assert bounded(tf.constant([opaque])).numpy().tolist() == [opaque]


def test_served_pictures_have_the_bound_of_training_pictures():
    assert MAX_PIXELS == image.MAX_PIXELS
    assert FREE_SCANS == image.MAX_SCANS
