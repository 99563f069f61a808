"""The header of a picture file, read without Pillow: does it prove that nothing is unusual?

Pillow takes several times as long to read a header as a small picture takes to decode. Most files
are as plain as those that are known here; all others are left to Pillow.
"""

import struct
import zlib

_JPEG = b"\xff\xd8"
_APP0, _DQT, _START_OF_SCAN = 0xE0, 0xDB, 0xDA
# Baseline, extended and progressive, each with Huffman coding.
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
# Huffman tables, restart interval and comment change nothing of what is shown.
_PASSED_OVER = frozenset({0xC4, 0xDD, 0xFE})
# Length and name of a JFIF segment without a thumbnail.
_JFIF = b"\x00\x10JFIF\x00"
_TABLE_BYTES = 65

_PNG = b"\x89PNG\r\n\x1a\n"
# Signature; length and name of the first chunk; width, height, depth, colour, compression, filter,
# interlace; checksum; length and name of the second chunk.
_PNG_START = struct.Struct(">8sI4sIIBBBBBII4s")
_GREY, _RGB = 0, 2


def is_plain(content: bytes, max_pixels: int) -> bool:
    """Whether the header proves that a picture is plain.

    A plain picture is a JPEG of 8 bits, grey or three colours, with no segment of an application
    but JFIF's, and so without EXIF; or a PNG of 8 bits, grey or RGB, with nothing between its
    header and its pixels. Whether the pixels can be decoded is not looked at.

    Args:
        content: The file.
        max_pixels: Most pixels that a plain picture has.

    Returns:
        True only where Pillow finds the same; False says nothing about the picture.
    """
    if content.startswith(_JPEG):
        return _is_plain_jpeg(content, max_pixels)
    return _is_plain_png(content, max_pixels)


def _is_plain_jpeg(content: bytes, max_pixels: int) -> bool:
    place, end = len(_JPEG), len(content)
    framed = False
    while place + 4 <= end and content[place] == 0xFF:
        marker = content[place + 1]
        length = content[place + 2] << 8 | content[place + 3]
        begin, after = place + 4, place + 2 + length
        if length < 2 or after > end:
            return False
        if marker == _START_OF_SCAN:
            return framed
        if marker == _DQT:
            sizes = range(begin, after, _TABLE_BYTES)
            if (length - 2) % _TABLE_BYTES or any(content[table] > 0x0F for table in sizes):
                return False
        elif marker in _FRAMES:
            if framed or not _is_plain_frame(content[begin:after], max_pixels):
                return False
            framed = True
        elif marker == _APP0:
            if length != 16 or not content.startswith(_JFIF, place + 2):
                return False
        elif marker not in _PASSED_OVER:
            return False
        place = after
    return False


def _is_plain_frame(frame: bytes, max_pixels: int) -> bool:
    if len(frame) < 6:
        return False
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    return (
        bits == 8
        and components in (1, 3)
        and len(frame) == 6 + 3 * components
        and 0 < width * height <= max_pixels
    )


def _is_plain_png(content: bytes, max_pixels: int) -> bool:
    if len(content) < _PNG_START.size or not content.startswith(_PNG):
        return False
    start = _PNG_START.unpack_from(content)
    _, length, first, width, height, bits, colour, compression, filtering, interlace = start[:10]
    checksum, _, second = start[10:]
    return (
        (length, first, second) == (13, b"IHDR", b"IDAT")
        and (bits, compression, filtering) == (8, 0, 0)
        and colour in (_GREY, _RGB)
        and interlace in (0, 1)
        and 0 < width * height <= max_pixels
        and checksum == zlib.crc32(content[12:29])
    )
