"""Image files of every kind that a folder may hold, and what Pillow shows of each."""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps

RNG = np.random.default_rng(0)
WIDTH, HEIGHT = 9, 12
COLOR = Image.fromarray(RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
GREY = Image.fromarray(RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8))
RGBA = Image.fromarray(RNG.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8))
GREY_ALPHA = RGBA.convert("LA")
# JPEG's loss is small for it, so that decoders can be compared.
SMOOTH = COLOR.resize((4, 4)).resize((40, 24), Image.Resampling.BICUBIC)

GREY_TYPE, RGB_TYPE, GREY_ALPHA_TYPE, RGBA_TYPE = 0, 2, 4, 6


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits: int, color_type: int, rows: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG of samples [H, W, channels], written without Pillow, which knows no 16-bit colours."""
    height, width, channels = rows.shape
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    elif bits == 8:
        lines = [row.astype("u1").tobytes() for row in rows]
    else:
        digits = [[f"{value:0{bits}b}" for value in row.ravel()] for row in rows]
        packed = ["".join(row).ljust(-(-width * channels * bits // 8) * 8, "0") for row in digits]
        lines = [int(row, 2).to_bytes(len(row) // 8, "big") for row in packed]
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + line for line in lines))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + b"".join(chunks)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def samples(bits: int, channels: int) -> np.ndarray:
    found = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, channels))
    found[3] = 1
    return found


def exif(orientation: int, endian: str = "<", more: int = 0) -> bytes:
    """EXIF data, without its header, with further entries before the orientation."""
    ascii_tag = struct.pack(endian + "HHI4s", 0x010E, 2, 2, b"a\0\0\0")
    entry = struct.pack(endian + "HHIHH", 0x0112, 3, 1, orientation, 0)
    start = {"<": b"II", ">": b"MM"}[endian] + struct.pack(endian + "HI", 42, 8)
    count = struct.pack(endian + "H", more + 1)
    return start + count + ascii_tag * more + entry + struct.pack(endian + "I", 0)


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments right after its start."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def without_adobe(jpeg: bytes) -> bytes:
    place = jpeg.index(b"\xff\xee")
    return jpeg[:place] + jpeg[place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big") :]


def top_down(bmp: bytes) -> bytes:
    """The same BMP with its rows stored from the top."""
    row = -(-WIDTH * 3 // 4) * 4
    pixels = b"".join(bmp[54 + i * row : 54 + (i + 1) * row] for i in reversed(range(HEIGHT)))
    return bmp[:22] + struct.pack("<i", -HEIGHT) + bmp[26:54] + pixels


JPEG = encode(SMOOTH, "JPEG", quality=95)
CMYK = encode(SMOOTH.convert("CMYK"), "JPEG", quality=95)
TURNED = {
    f"orientation {value}": with_segments(JPEG, segment(0xE1, b"Exif\0\0" + exif(value)))
    for value in range(1, 9)
}

SERVED: Mapping[str, bytes] = {
    "png": encode(COLOR, "PNG"),
    "grey png": encode(GREY, "PNG"),
    "jpeg": JPEG,
    "grey jpeg": encode(SMOOTH.convert("L"), "JPEG", quality=95),
    "progressive jpeg": encode(SMOOTH, "JPEG", quality=95, progressive=True),
    "cmyk jpeg": CMYK,
    "mpo": encode(SMOOTH, "MPO", quality=95, save_all=True, append_images=[SMOOTH.rotate(180)]),
    **TURNED,
    "orientation 9": with_segments(JPEG, segment(0xE1, b"Exif\0\0" + exif(9))),
    "big endian": with_segments(JPEG, segment(0xE1, b"Exif\0\0" + exif(6, ">", more=9))),
    "exif behind others": with_segments(
        JPEG,
        segment(0xFE, b"Exif\0\0" + exif(3)),
        *(segment(0xE2, bytes(60_000)) for _ in range(3)),
        b"\xff" + segment(0xE1, b"Exif\0\0" + exif(8)),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
    ),
    "exif behind tables": JPEG[: JPEG.index(b"\xff\xc0")]
    + segment(0xE1, b"Exif\0\0" + exif(5))
    + JPEG[JPEG.index(b"\xff\xc0") :],
    "turned grey jpeg": with_segments(
        encode(SMOOTH.convert("L"), "JPEG", quality=95), segment(0xE1, b"Exif\0\0" + exif(7))
    ),
    "turned cmyk jpeg": with_segments(CMYK, segment(0xE1, b"Exif\0\0" + exif(6))),
    "turned mpo": encode(SMOOTH, "MPO", save_all=True, append_images=[SMOOTH], exif=exif(6)),
    "turned png": encode(COLOR, "PNG", exif=exif(6)),
    "turned rgba": encode(RGBA, "PNG", exif=exif(5)),
    "rgba": encode(RGBA, "PNG"),
    "grey and alpha": encode(GREY_ALPHA, "PNG"),
    "transparent color": encode(COLOR, "PNG", transparency=COLOR.getpixel((2, 3))),
    "transparent grey": encode(GREY, "PNG", transparency=GREY.getpixel((2, 3))),
    "palette": encode(COLOR.quantize(200), "PNG"),
    "palette of 16": encode(COLOR.quantize(16), "PNG", bits=4),
    "palette of 4": encode(COLOR.quantize(4), "PNG", bits=2),
    "palette of 2": encode(COLOR.quantize(2), "PNG", bits=1),
    "transparent palette": encode(COLOR.quantize(200), "PNG", transparency=bytes(range(200))),
    "transparent palette of 16": encode(
        COLOR.quantize(16), "PNG", bits=4, transparency=bytes(range(0, 256, 16))
    ),
    "transparent palette of 2": encode(COLOR.quantize(2), "PNG", bits=1, transparency=b"\x40"),
    "1 bit": png(1, GREY_TYPE, samples(1, 1)),
    "2 bits": png(2, GREY_TYPE, samples(2, 1)),
    "4 bits": png(4, GREY_TYPE, samples(4, 1)),
    "transparent 1 bit": png(1, GREY_TYPE, samples(1, 1), chunk(b"tRNS", b"\0\1")),
    "16 bits": png(16, GREY_TYPE, samples(16, 1)),
    "16 bits color": png(16, RGB_TYPE, samples(16, 3)),
    "16 bits grey and alpha": png(16, GREY_ALPHA_TYPE, samples(16, 2)),
    "16 bits rgba": png(16, RGBA_TYPE, samples(16, 4)),
    "animated png": encode(COLOR, "PNG", save_all=True, append_images=[COLOR.rotate(180)]),
    "png with text": png(
        8, RGB_TYPE, samples(8, 3), chunk(b"tEXt", b"a\0b"), chunk(b"tEXt", b"c\0d")
    ),
    "bmp": encode(COLOR, "BMP"),
    "top-down bmp": top_down(encode(COLOR, "BMP")),
}
"""Kinds that a model is asked about as they are."""

CONVERTED: Mapping[str, tuple[bytes, str]] = {
    "gif": (encode(COLOR.quantize(), "GIF"), "GIF"),
    "animated gif": (
        encode(COLOR.quantize(), "GIF", save_all=True, append_images=[GREY.convert("P")]),
        "GIF",
    ),
    "webp": (encode(SMOOTH, "WEBP", lossless=True), "WebP"),
    "transparent webp": (encode(RGBA, "WEBP", lossless=True), "WebP"),
    "turned webp": (encode(SMOOTH, "WEBP", lossless=True, exif=exif(6)), "WebP"),
    "tiff": (encode(COLOR, "TIFF"), "TIFF"),
    "tiff by lzw": (encode(COLOR, "TIFF", compression="tiff_lzw"), "TIFF"),
    "tiff by deflate": (encode(COLOR, "TIFF", compression="tiff_adobe_deflate"), "TIFF"),
    "grey tiff": (encode(GREY, "TIFF", compression="packbits"), "TIFF"),
    "16 bits tiff": (encode(Image.fromarray(samples(16, 1)[..., 0].astype("u2")), "TIFF"), "TIFF"),
    "transparent tiff": (encode(RGBA, "TIFF"), "TIFF"),
    "cmyk tiff": (encode(SMOOTH.convert("CMYK"), "TIFF"), "TIFF"),
    "cmyk jpeg without an Adobe segment": (without_adobe(CMYK), "CMYK"),
    "grey bmp": (encode(GREY, "BMP"), "BMP"),
    "palette bmp": (encode(COLOR.quantize(), "BMP"), "BMP"),
    "1 bit bmp": (encode(GREY.convert("1"), "BMP"), "BMP"),
    "32 bits bmp": (encode(RGBA, "BMP"), "BMP"),
}
"""Kinds that become PNG at ingest, and a word of the refusal that a request gets."""


def shown(content: bytes) -> np.ndarray:
    """What Pillow shows: upright, on white, uint8 [H, W, 3]."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.mode.startswith("I"):
        return np.repeat(np.asarray(image, np.int64)[..., None] >> 8, 3, axis=2).astype(np.uint8)
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
