"""A picture, as ImageExampleGen takes it in."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from components.image_example_gen import image as images
from tests.fuzz.reader import Reader
from trainer_module.serving import request

RNG = np.random.default_rng(0)
COLOUR = Image.fromarray(RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8))


def reader() -> Reader:
    grey, palette = COLOUR.convert("L"), COLOUR.quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6
    png = encode(COLOUR, "PNG")
    seeds = [
        png,
        encode(grey, "PNG"),
        encode(palette, "PNG", transparency=3),
        encode(Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7)), "PNG"),
        encode(COLOUR.convert("RGBA"), "PNG"),
        encode(COLOUR, "PNG", exif=exif),
        encode(COLOUR, "PNG", save_all=True, append_images=[COLOUR]),
        encode(COLOUR, "JPEG"),
        encode(grey, "JPEG", progressive=True),
        encode(COLOUR, "JPEG", exif=exif),
        encode(COLOUR.convert("CMYK"), "JPEG"),
        encode(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
        encode(COLOUR, "BMP"),
        encode(palette, "BMP"),
        encode(grey.convert("1"), "BMP"),
        run_length_bmp(4, 2, b"\4\0\0\0\0\2\2\0\2\1\0\1"),
        with_size(png, 30_000, 30_000),
        with_size(png, 8_000, 8_000),
        encode(COLOUR, "TIFF"),
        encode(COLOUR, "WEBP"),
    ]
    return Reader(check, seeds, memory=4096, patience=60)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def with_size(png: bytes, width: int, height: int) -> bytes:
    """A PNG that claims another size."""
    chunk = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def run_length_bmp(width: int, height: int, data: bytes) -> bytes:
    """A BMP of 8 bits a pixel, compressed by run lengths."""
    palette = bytes(4 * 256)
    start = 14 + 40 + len(palette)
    size = len(data)
    file = struct.pack("<2sIHHI", b"BM", start + size, 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, size, 0, 0, 256, 0)
    return file + info + palette + data


def check(data: bytes) -> None:
    try:
        stored, converted = images.prepare(data)
    except images.BadImageError as error:
        assert len(str(error)) > 8
        assert len(str(error)) < 1000
        return
    (fault,) = images.faults([stored])
    if converted:
        assert images.prepare(stored) == images.Prepared(stored)
        assert fault is None
    else:
        assert stored == data
    if fault is None:
        with Image.open(io.BytesIO(stored)) as image:
            assert 0 < image.width * image.height <= images.MAX_PIXELS
            assert not converted or image.mode in ("L", "RGB")
        # What is stored is served, and what is served is stored.
        assert request.takes(tf.constant([stored])).numpy().tolist() == [True]
        assert not converted or not request.takes(tf.constant([data])).numpy()[0]
    else:
        assert len(fault) > 8
