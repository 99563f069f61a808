"""Lock of an output folder: one run at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trainer_module.util.checks import UserError


class OutputBusyError(UserError):
    """Lock that another process holds."""


@contextmanager
def hold(output: Path) -> Iterator[None]:
    """Locks an output folder, which is created, for as long as the context lasts.

    The operating system frees the lock when its process ends, however it ends.

    Raises:
        OutputBusyError: Another process holds it.
        UserError: It is no folder, or cannot be written to.
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
            f"only one run at a time may use an output folder, and process {pid} is using it",
            str(output),
            "Wait for it, or set `output` to another folder.",
        ) from None
    except OSError as error:
        raise UserError(
            f"`output` must be a folder that can be written to ({error.strerror})",
            str(output),
            "Name another one, or make it writable.",
        ) from error
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
