"""Formats and bounds of image files.

They stand apart from `image`, whose cached TensorFlow functions must be freed before TensorFlow is:
Python ends modules in the order in which they were first imported.
"""

MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 1024**2

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
"""Pillow's names of the formats that are read."""

JPEG = ("JPEG", "MPO")
"""Pillow's names of JPEG: MPO where further images follow, as in the files of many cameras."""
