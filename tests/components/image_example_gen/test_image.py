import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.image_example_gen import image as images
from components.image_example_gen.image import Prepared
from tests.fuzz.readers.image import run_length_bmp
from tests.image_kinds import CONVERTED, SERVED, shown
from trainer_module.serving import decoding, request

RNG = np.random.default_rng(0)
GREY = Image.fromarray(RNG.integers(0, 256, (12, 9), dtype=np.uint8))
COLOUR = Image.fromarray(RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8))


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    """What training sees: [H, W, 3]."""
    return tf.io.decode_image(content, channels=3, expand_animations=False).numpy()


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_plain_images_stay_as_they_are(image: Image.Image, format: str) -> None:
    content = encode(image, format)
    assert images.prepare(content) == Prepared(content)
    assert images.faults([content]) == [None]


@pytest.mark.parametrize("kind", SERVED)
def test_what_the_model_takes_stays_as_it_is(kind: str) -> None:
    content = SERVED[kind]
    assert images.prepare(content) == Prepared(content)
    assert request.takes(tf.constant([content])).numpy().tolist() == [True]
    assert images.faults([content]) == [None]


@pytest.mark.parametrize("kind", CONVERTED)
def test_others_become_what_a_viewer_shows(kind: str) -> None:
    content, name = CONVERTED[kind]
    stored, converted = images.prepare(content)
    assert name.lower() in converted.lower()
    np.testing.assert_array_equal(pixels(stored), shown(content))
    assert images.prepare(stored) == Prepared(stored)
    assert images.faults([stored]) == [None]


def test_a_transparent_image_that_is_too_large_for_a_request_is_converted() -> None:
    content = encode(Image.new("LA", (4_000, 4_001), (9, 0)), "PNG")
    stored, converted = images.prepare(content)
    assert converted == "PNG LA"
    assert (pixels(stored) == 255).all()


def tiff(**tags: int) -> bytes:
    """A grey TIFF of 16 x 16 pixels of which some tags are other ones."""
    known = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262}
    known |= {"strip": 273, "tile_width": 322, "tile_height": 323, "tile": 324}
    known |= {"strip_bytes": 279, "tile_bytes": 325}
    values = {"width": 16, "height": 16, "bits": 8, "compression": 1, "photometric": 1} | tags
    entries = sorted((known[name], value) for name, value in values.items())
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    pixels = bytes(range(256))
    return struct.pack("<2sHI", b"II", 42, 264) + pixels + struct.pack("<H", len(entries)) + table


STRIP = {"strip": 8, "strip_bytes": 256}
TILE = {"tile": 8, "tile_bytes": 256, "tile_width": 16, "tile_height": 16}


def test_a_tiff_by_hand() -> None:
    stored, converted = images.prepare(tiff(**STRIP))
    assert converted == "TIFF L"
    assert pixels(stored)[..., 0].tolist() == np.arange(256).reshape(16, 16).tolist()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"just text", "no image"),
        (encode(COLOUR, "AVIF"), "it is HEIC or AVIF"),
        (encode(COLOUR.quantize(), "BMP")[:-30], "cut short"),
        (encode(COLOUR, "WEBP")[:-30], "broken"),
        (encode(COLOUR, "TIFF")[:-30], "broken"),
        (encode(COLOUR, "JPEG")[:300], "header is broken"),
        (encode(GREY.convert("F"), "TIFF"), "mode F"),
        (encode(COLOUR, "TIFF", compression="jpeg"), "TIFF with tiles"),
        (tiff(**TILE), "TIFF with tiles"),
        (tiff(**STRIP, compression=7), "TIFF with tiles"),
        (encode(COLOUR.convert("YCbCr"), "TIFF"), "TIFF with tiles"),
    ],
    ids=[
        *("empty", "text", "avif", "bmp", "webp", "tiff", "jpeg header", "float tiff"),
        *("jpeg tiff", "tiled tiff", "tiff of a rare compression", "ycbcr tiff"),
    ],
)
def test_bad_images(content: bytes, why: str) -> None:
    with pytest.raises(images.BadImageError, match=why):
        images.prepare(content)


def test_a_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "tobytes", never)
    content = encode(Image.new("1", (9_000, 9_000)), "PNG")
    with pytest.raises(images.BadImageError, match="9,000 x 9,000"):
        images.prepare(content)
    huge = bytearray(content)
    huge[16:24] = (100_000).to_bytes(4, "big") * 2
    with pytest.raises(images.BadImageError):
        images.prepare(bytes(huge))


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims another size than its pixels have."""
    content = encode(COLOUR, "PNG")
    chunk = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def jpeg_of(width: int, height: int) -> bytes:
    content = encode(COLOUR, "JPEG")
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


@pytest.mark.parametrize("make", [png_of, jpeg_of])
def test_thirty_thousand_pixels_each_way_take_no_memory(make: Callable[[int, int], bytes]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(images.BadImageError, match="64,000,000"):
            images.prepare(make(30_000, 30_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024**2


def with_scans(more: int, after: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan is there several times."""
    content = encode(GREY, "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * more + content[-2:] + after


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    with pytest.raises(images.BadImageError, match="more than 100 scans"):
        images.prepare(with_scans(1000))
    usual = with_scans(0).count(b"\xff\xda")
    assert images.prepare(with_scans(images.MAX_SCANS - usual)) is not None
    with pytest.raises(images.BadImageError):
        images.prepare(with_scans(images.MAX_SCANS - usual + 1))


def test_what_follows_a_jpeg_is_not_counted() -> None:
    """Some telephones put a video there."""
    content = with_scans(0, after=b"\xff\xda\x00\x08" * 500)
    assert images.prepare(content) == Prepared(content)


def repeated_exif(image: Image.Image, format: str, headers: int) -> bytes:
    """An image whose EXIF data begins with its header so many times."""
    header = b"Exif\0\0"
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(image, format, exif=header * headers + exif.tobytes().removeprefix(header))


@pytest.mark.parametrize("headers", [1, 2, 3, 9])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_repeated_exif_headers_are_read_as_pillow_reads_them(format: str, headers: int) -> None:
    content = repeated_exif(GREY.convert("RGB"), format, headers)
    assert images.prepare(content) == Prepared(content)
    orientation = int(decoding.header(tf.constant([content])).orientation[0])
    with Image.open(io.BytesIO(content)) as image:
        try:
            expected = image.getexif().get(0x0112, 1)
        except SyntaxError:
            expected = 1
    assert orientation == expected


BOMBS = (
    # A step of four bytes, 255 rows up: Pillow 12 wrote zeros for them all (CVE-2026-96638).
    run_length_bmp(4_000_000, 2, b"\0\2\0\xff" * 20 + b"\0\1"),
    # Pillow 12 copied all that follows each header (CVE-2026-96643).
    repeated_exif(COLOUR, "WEBP", 200_000),
)
USAGE = """
import contextlib, re, sys, time
import tensorflow
from components.image_example_gen import image as images
start = time.process_time()
for path in sys.argv[1:]:
    with open(path, "rb") as file, contextlib.suppress(images.BadImageError):
        images.prepare(file.read())
seconds = time.process_time() - start
# getrusage would count the memory of the process that forked this one.
with open("/proc/self/status") as file:
    print(seconds, int(re.search(r"VmHWM:\\s*(\\d+) kB", file.read())[1]) / 1024)
"""


def test_small_files_take_little_time_and_memory(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(len(BOMBS))]
    for path, content in zip(paths, BOMBS, strict=True):
        path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", USAGE, *paths], capture_output=True, check=True)
    seconds, mebibytes = map(float, done.stdout.split())
    assert seconds < 4
    assert mebibytes < 1200


def test_pillow_writes_no_rows_longer_than_the_image() -> None:
    """CVE-2026-112403: Pillow 12 aborts here, by a broken heap."""
    program = """
import io
from PIL import Image
file = io.BytesIO()
Image.effect_noise((60_000, 64), 50).convert("RGB").save(file, "JPEG")
Image.frombytes("RGB", (8, 8), file.getvalue(), "jpeg", "RGB", "")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: cannot decode image data\n")


def test_the_suffix_says_nothing_an_animated_png_shows_its_first_image() -> None:
    moving = encode(COLOUR, "PNG", save_all=True, append_images=[COLOUR.rotate(180)])
    assert b"acTL" in moving
    stored, _ = images.prepare(moving)
    assert images.faults([stored]) == [None]
    np.testing.assert_array_equal(pixels(stored), np.asarray(COLOUR))


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_faults_tells_which_of_many_is_cut_short(format: str) -> None:
    whole = encode(COLOUR, format)
    cut = whole[:-40]
    assert images.prepare(cut) == Prepared(cut), "the header alone shows nothing"
    before, fault, after = images.faults([whole, cut, whole])
    assert before is None
    assert after is None
    assert fault is not None
    assert "cut short" in fault
    assert "{{" not in fault
    assert "[Op:" not in fault


def damaged(content: bytes, seed: int) -> bytes:
    """A file that was cut short, or in which bytes were changed, lost or put in."""
    rng = np.random.default_rng(seed)
    place = int(rng.integers(len(content)))
    if seed % 4 == 0:
        return content[:place]
    new = rng.bytes(int(rng.integers(1, 20)))
    lost = (0, len(new), len(new) + 9)[seed % 3]
    return content[:place] + new + content[place + lost :]


def can_be_decoded(content: bytes) -> bool:
    try:
        pixels(content)
    except tf.errors.OpError:
        return False
    return True


@pytest.mark.parametrize(
    "whole",
    [
        encode(COLOUR.resize((70, 50)), "JPEG"),
        encode(GREY.resize((70, 50)), "JPEG", progressive=True),
        encode(COLOUR.resize((70, 50)), "JPEG", subsampling=0, restart_marker_rows=1),
        encode(COLOUR.resize((70, 50)), "PNG"),
    ],
    ids=["jpeg", "progressive", "restarts", "png"],
)
def test_faults_are_those_of_decoding_at_full_size(whole: bytes) -> None:
    verdicts = []
    for seed in range(300):
        content = damaged(whole, seed)
        try:
            images.prepare(content)
        except images.BadImageError:
            continue
        (fault,) = images.faults([content])
        assert (fault is None) == can_be_decoded(content), seed
        verdicts.append(fault)
    assert len(verdicts) >= 50
    assert None in verdicts or whole.startswith(b"\x89PNG"), "JPEG survives much"
    assert any(verdicts)


def test_a_full_group_is_decoded_like_any_other() -> None:
    whole = encode(COLOUR, "JPEG")
    contents = [whole] * images.GROUP
    assert images.faults(contents) == [None] * images.GROUP
    contents[3] = contents[-1] = whole[:-40]
    found = images.faults(contents)
    assert [i for i, fault in enumerate(found) if fault] == [3, images.GROUP - 1]
