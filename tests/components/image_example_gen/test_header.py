import io
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.image_example_gen import header
from components.image_example_gen import image as picture

LIMIT = picture.MAX_PIXELS
NOISE = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
COLOUR = Image.fromarray(NOISE)
GREY = COLOUR.convert("L")


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def as_pillow_finds(content: bytes) -> bool:
    """Whether a picture is kept as it is, by Pillow's word alone."""
    try:
        return picture.prepare_with_pillow(content) == picture.Prepared(content)
    except picture.BadImageError:
        return False


PLAIN = {
    f"{kind} {name}": content
    for kind, image in (("colour", COLOUR), ("grey", GREY))
    for name, content in {
        "png": encode(image, "PNG"),
        "stored png": encode(image, "PNG", compress_level=0),
        "jpeg": encode(image, "JPEG"),
        "progressive jpeg": encode(image, "JPEG", progressive=True),
        "jpeg with fitted tables": encode(image, "JPEG", optimize=True, quality=100),
        "jpeg with a comment": encode(image, "JPEG", comment=b"by hand"),
        "jpeg with restarts": encode(image, "JPEG", restart_marker_rows=1),
    }.items()
}


TURNED = Image.Exif()
TURNED[0x0112] = 6  # By a quarter.
OTHERS = {
    "empty": b"",
    "text": b"not a picture",
    "turned jpeg": encode(COLOUR, "JPEG", exif=TURNED),
    "turned png": encode(COLOUR, "PNG", exif=TURNED),
    "cmyk": encode(COLOUR.convert("CMYK"), "JPEG"),
    "palette": encode(COLOUR.quantize(), "PNG"),
    "transparent": encode(COLOUR, "PNG", transparency=(0, 0, 0)),
    "alpha": encode(COLOUR.convert("RGBA"), "PNG"),
    "16 bits": encode(Image.fromarray(NOISE[..., 0].astype(np.uint16)), "PNG"),
    "1 bit": encode(COLOUR.convert("1"), "PNG"),
    "gif": encode(COLOUR.quantize(), "GIF"),
    "bmp": encode(COLOUR, "BMP"),
}


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_usual_pictures_need_no_pillow(content: bytes) -> None:
    assert header.is_plain(content, LIMIT)
    assert as_pillow_finds(content)


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_others_are_left_to_pillow(content: bytes) -> None:
    assert not header.is_plain(content, LIMIT)


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_the_bound_on_pixels_holds(content: bytes) -> None:
    assert header.is_plain(content, 12 * 9)
    assert not header.is_plain(content, 12 * 9 - 1)


@pytest.mark.parametrize("name", ["colour jpeg", "grey jpeg", "colour png"])
def test_no_changed_byte_makes_it_say_more_than_pillow(name: str) -> None:
    content = PLAIN[name]
    end = content.index(b"\xff\xda") + 16 if "jpeg" in name else 45
    proven = 0
    for place, value in itertools.product(range(end), (0, 1, 4, 16, 0xD8, 0xE1, 0xFF)):
        changed = content[:place] + bytes([value]) + content[place + 1 :]
        if header.is_plain(changed, LIMIT):
            proven += 1
            assert as_pillow_finds(changed), (place, value)
    assert proven, "some bytes, such as those of the tables, may have any value"


@pytest.mark.parametrize("name", ["colour jpeg", "grey progressive jpeg", "colour png"])
def test_a_cut_header_proves_nothing(name: str) -> None:
    content = PLAIN[name]
    for end in range(len(content)):
        if header.is_plain(content[:end], LIMIT):
            assert as_pillow_finds(content[:end]), end


@settings(max_examples=300, deadline=None)
@given(
    content=st.sampled_from([*PLAIN.values(), *OTHERS.values()]),
    changes=st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=4)), max_size=3),
)
def test_whatever_it_proves_pillow_finds_too(
    content: bytes, changes: list[tuple[int, bytes]]
) -> None:
    for place, new in changes:
        content = content[:place] + new + content[place + len(new) :]
    if header.is_plain(content, LIMIT):
        assert as_pillow_finds(content)
