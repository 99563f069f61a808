"""Atomic writing of files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".part"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Writes a file atomically: to a temporary name that is renamed at the end of the context.

    Args:
        path: File, replaced if it exists, in a folder that exists.

    Yields:
        Path to write to, deleted after an error.
    """
    # Another process may be writing the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        # The disk may be full.
        temporary.unlink(missing_ok=True)
        raise


def temporary_files(folder: Path) -> list[Path]:
    """Returns the temporary files of a folder, of killed processes or of ones still writing."""
    return list(folder.glob(f".*{_SUFFIX}"))
