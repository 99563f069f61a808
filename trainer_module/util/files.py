"""Files that are whole or not there at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".part"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file under another name, which becomes its own at the end of the context.

    Args:
        path: File; replaced if it is there. Its folder must be there.

    Yields:
        What to write to. Nothing is left of it if an error comes from within.
    """
    # Another process may be writing the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        # What is half written takes the room of a disk that may be full.
        temporary.unlink(missing_ok=True)
        raise


def unfinished(folder: Path) -> list[Path]:
    """What processes that were killed, or are still writing, have in a folder."""
    return list(folder.glob(f".*{_SUFFIX}"))
