import numpy as np
import pytest
import tensorflow as tf

from tests.image_kinds import (
    GREY_TYPE,
    JPEG,
    RGB_TYPE,
    SERVED,
    chunk,
    exif,
    png,
    samples,
    segment,
    shown,
    with_segments,
)
from trainer_module.serving import decoding


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def headers(images):
    return decoding.header(images)


def decoded(content: bytes) -> np.ndarray:
    found = headers(tf.constant([content]))
    image = decoding.decode(tf.constant(content), found.transparent[0])
    return decoding.upright(image, found.orientation[0]).numpy()


@pytest.mark.parametrize("kind", SERVED)
def test_an_image_is_decoded_as_pillow_shows_it(kind: str) -> None:
    content = SERVED[kind]
    expected = shown(content).astype(int)
    pixels = decoded(content)
    assert pixels.shape == expected.shape
    # Two builds of libjpeg round otherwise where they make the colours of a JPEG larger.
    lossy = content.startswith(b"\xff\xd8")
    assert np.abs(pixels - expected).max() <= (6 if lossy else 0)
    assert np.abs(pixels - expected).mean() <= 2


def test_the_headers_of_many_images_are_read_together() -> None:
    images = [*SERVED.values(), b"", b"\xff\xd8\xff", b"\x89PNG", b"no image", b"GIF89a"]
    together = headers(tf.constant(images))
    for i, image in enumerate(images):
        for one, all_of_them in zip(headers(tf.constant([image])), together, strict=True):
            assert one[0] == all_of_them[i]
    assert headers(tf.constant([], tf.string)).orientation.shape == (0,)


def test_of_a_file_of_endless_segments_only_some_are_read() -> None:
    turned = segment(0xE1, b"Exif\0\0" + exif(6))
    for between, orientation in ((decoding.MAX_SEGMENTS - 1, 6), (decoding.MAX_SEGMENTS, 1)):
        image = with_segments(JPEG, *[segment(0xFE, b"")] * between, turned)
        assert headers(tf.constant([image])).orientation.numpy() == [orientation]
    endless = with_segments(JPEG, segment(0xFE, b"") * 1_000_000, turned)
    assert headers(tf.constant([endless, JPEG])).orientation.numpy().tolist() == [1, 1]


@pytest.mark.parametrize("endian", "<>")
def test_damaged_exif_data_is_no_orientation_and_no_error(endian: str) -> None:
    whole = exif(6, endian, more=3)
    for size in range(len(whole)):
        for data in (whole[:size], whole[:size] + b"\xff" * (len(whole) - size)):
            image = b"\xff\xd8" + segment(0xE1, b"Exif\0\0" + data)
            (orientation,) = headers(tf.constant([image])).orientation.numpy()
            assert 1 <= orientation <= 8


def test_transparency_that_pillow_does_not_see() -> None:
    """Pillow compares the colour that is transparent before it scales the samples, or after."""
    for bits in (2, 4, 16):
        grey = samples(bits, 1)
        content = png(bits, GREY_TYPE, grey, chunk(b"tRNS", b"\0\1"))
        clear = grey[..., 0] == 1
        opaque = decoded(png(bits, GREY_TYPE, grey))
        expected = np.where(clear[..., None], 255, opaque)
        np.testing.assert_array_equal(decoded(content), expected)
    color = samples(16, 3)
    content = png(16, RGB_TYPE, color, chunk(b"tRNS", b"\0\1" * 3))
    assert (decoded(content)[3] == 255).all()
    assert (decoded(content)[4] == color[4] >> 8).all()
