"""Compression of long texts that are parameters of a component.

On Kubeflow the parameters of a task are one argument of a program, which Linux limits to 128 KiB.
"""

import base64
import zlib

LONGEST = 8192
"""Characters of a text that stays readable."""

_COMPRESSED = "zlib:"


def compressed(text: str) -> str:
    """Returns a text as a parameter, compressed where it is long."""
    if len(text) <= LONGEST:
        return text
    return _COMPRESSED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def text(parameter: str) -> str:
    """Returns the text of a parameter that `compressed` made.

    Raises:
        ValueError: The compressed part is damaged.
    """
    if not parameter.startswith(_COMPRESSED):
        return parameter
    try:
        return zlib.decompress(base64.b64decode(parameter.removeprefix(_COMPRESSED))).decode()
    except (ValueError, zlib.error) as error:
        raise ValueError(
            f"a compressed parameter must be complete, got {parameter[:60]!r} ({error}). "
            "Compile the pipeline again."
        ) from error
