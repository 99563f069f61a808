"""A full disk, told from whatever a library makes of it."""

import contextlib
import errno
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

_SQLITE = "database or disk is full"
# As the C library says it, SQLite, and NumPy where a write came up short.
_SIGNS = (
    "no space left on device",
    "disk quota exceeded",
    _SQLITE,
    "requested and 0 written",
)
_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
# Less than SQLite needs for its journal: nothing can be recorded any more.
_NOTHING = 64 * 1024


class DiskFullError(OSError):
    """There is no room for what a run writes."""


def full(error: BaseException, output: Path) -> DiskFullError | None:
    """The error in plain words if a full disk is behind it.

    Args:
        error: What was raised.
        output: Output folder.
    """
    if isinstance(error, DiskFullError):
        return error
    if not (any(map(_says_so, _chain(error))) or _free(output) < _NOTHING):
        return None
    # ML Metadata quotes whole queries; the log holds them.
    text = _SQLITE if _SQLITE in str(error) else str(error)
    said = textwrap.shorten(text, 160, placeholder=" ...") or type(error).__name__
    return DiskFullError(
        f"there must be room for what a run writes, but the disk of {output} is full ({said}). "
        "Make room on it; the same command goes on from there."
    )


@contextlib.contextmanager
def named(output: Path) -> Iterator[None]:
    """Have an error within that comes of a full disk say so.

    Args:
        output: Output folder.

    Raises:
        DiskFullError: The disk is full.
    """
    try:
        yield
    except OSError as error:
        found = full(error, output)
        if found is None or found is error:
            raise
        raise found from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _ERRORS:
        return True
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


def _free(output: Path) -> int:
    """Bytes that can be written on the disk of a folder that may not be there yet."""
    there = next((folder for folder in (output, *output.parents) if folder.exists()), output)
    return shutil.disk_usage(there).free
