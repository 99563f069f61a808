"""Detection of out-of-disk errors, whatever a library makes of them."""

import contextlib
import errno
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

from trainer_module.util.checks import UserError, chain

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


class DiskFullError(UserError):
    """Disk without room for what a run writes."""


def full(error: BaseException, output: Path) -> DiskFullError | None:
    """Returns the error in plain words if a full disk is behind it, else None."""
    if not (any(map(_says_so, chain(error))) or _free(output) < _NOTHING):
        return None
    # ML Metadata quotes whole queries; the log holds them.
    text = _SQLITE if _SQLITE in str(error) else str(error)
    reason = textwrap.shorten(text, 160, placeholder=" ...") or type(error).__name__
    return DiskFullError(
        f"there must be room for what a run writes, but the disk of {output} is full",
        reason,
        "Make room on it; the same command resumes from there.",
    )


@contextlib.contextmanager
def named(output: Path) -> Iterator[None]:
    """Raises DiskFullError in place of an OSError that comes of a full disk."""
    try:
        yield
    except OSError as error:
        raise full(error, output) or error from error


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _ERRORS:
        return True
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)


def _free(output: Path) -> int:
    """Returns free bytes on the disk of a folder that may not exist yet."""
    existing = next((folder for folder in (output, *output.parents) if folder.exists()), output)
    return shutil.disk_usage(existing).free
