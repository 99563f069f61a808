"""One run at a time in an output folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class OutputBusyError(RuntimeError):
    """Another process is running in the same output folder."""


@contextmanager
def hold(output: Path) -> Iterator[None]:
    """Hold the output folder for as long as the context lasts.

    The operating system frees the lock when its process ends, however it ends.

    Args:
        output: Folder; made if it is not there.

    Raises:
        OutputBusyError: Another process holds it.
        ValueError: It is no folder, or cannot be written to.
    """
    # The lock file is emptied by every attempt to take it, so the holder's name stands beside it.
    holder = output / ".lock-holder"
    lock = FileLock(output / ".lock", timeout=0)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        pid = holder.read_text().strip() if holder.exists() else "unknown"
        raise OutputBusyError(
            f"only one run at a time may use an output folder, and process {pid} is using "
            f"{output}. Wait for it, or give this run another folder with --output."
        ) from None
    except OSError as error:
        raise ValueError(
            f"--output must be a folder that can be written to, got {output} ({error.strerror}). "
            "Give another one, or make it writable."
        ) from error
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
