"""Graceful shutdown on SIGTERM (preemption)."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

EXIT_STATUS = 128 + signal.SIGTERM
"""143, on which job controllers start again."""

FINAL = 2
"""Exit status of an error that another start would repeat."""

GRACE_SECONDS = 5.0
"""Time that a running step has to finish."""


class Preempted(SystemExit):
    """SIGTERM arrived; the last finished epoch is in the checkpoints."""

    def __init__(self) -> None:
        super().__init__(EXIT_STATUS)


@contextlib.contextmanager
def leaving_on_sigterm() -> Iterator[None]:
    """Raises `Preempted` in the main thread on SIGTERM; ends the process if that takes too long.

    Python runs signal handlers between bytecodes, and one call into TensorFlow may take minutes, so
    a thread watches too. Checkpoints are atomic, so nothing is lost when it ends the process. Has
    no effect outside the main thread, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = threading.Event()
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        while number := os.read(read, 1):
            if number[0] == signal.SIGTERM and not left.wait(GRACE_SECONDS):
                os._exit(EXIT_STATUS)
        os.close(read)

    def leave(number: int, frame: object) -> None:
        raise Preempted

    # Python's own handler writes the signal's number here at once, whatever the main thread does.
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGTERM, leave)
    watcher = threading.Thread(target=watch, name="sigterm-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        signal.signal(signal.SIGTERM, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(write)
