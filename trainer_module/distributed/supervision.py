"""A process that watches over a worker's training and holds none of TensorFlow's locks."""

import contextlib
import ctypes
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from trainer_module.distributed.rendezvous import Party
from trainer_module.util.preemption import EXIT_STATUS, FINAL, GRACE_SECONDS

_POLL_SECONDS = 0.2
_REASON_SECONDS = 3.0
_PR_SET_PDEATHSIG = 1


def supervise(party: Party, train: Callable[[Callable[[], object]], int]) -> int:
    """Train in a forked process, and end it on SIGTERM or when another worker is gone.

    TensorFlow holds Python's lock while it connects the workers, so that the process that trains
    can neither obey a signal nor notice that another worker died.

    Args:
        party: Connections to the other workers.
        train: Trains and returns the exit status; calls its argument once it no longer needs the
            other workers.

    Returns:
        The exit status.
    """
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    read, write = os.pipe()
    os.set_blocking(read, False)
    parent = os.getpid()
    # What is buffered would be printed by both.
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _end_with(parent)
        os.close(read)
        party.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        status = status_of(lambda: train(lambda: os.write(write, b"1")))
        sys.stdout.flush()
        sys.stderr.flush()
        # TensorFlow waits at exit for the other workers.
        os._exit(status)
    os.close(write)
    try:
        return _watch(party, child, read, signals)
    finally:
        os.close(read)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def status_of(train: Callable[[], int]) -> int:
    """The exit status of a function that may raise; what it raises unexpectedly is printed."""
    try:
        return train()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FINAL
    except BaseException:
        traceback.print_exc()
        return FINAL


def _watch(party: Party, child: int, trained: int, signals: set[signal.Signals]) -> int:
    verdict, why = 0, ""
    kill_at = math.inf
    while (status := _ended(child)) is None:
        arrived = signal.sigtimedwait(signals, _POLL_SECONDS)
        if _has_byte(trained):
            party.leave(0)
        if not verdict and arrived and arrived.si_signo != signal.SIGCHLD:
            verdict = 128 + arrived.si_signo
        elif not verdict and (lost := party.lost()):
            verdict, why = lost
            print(f"error: {why}", file=sys.stderr, flush=True)
        if verdict and kill_at == math.inf:
            os.kill(child, signal.SIGTERM)
            kill_at = time.monotonic() + GRACE_SECONDS
        if time.monotonic() > kill_at:
            os.kill(child, signal.SIGKILL)
    if not verdict and status == EXIT_STATUS:
        # TensorFlow may have noticed the end of another worker before its reason arrived.
        limit = time.monotonic() + _REASON_SECONDS
        while not (lost := party.lost()) and time.monotonic() < limit:
            time.sleep(_POLL_SECONDS)
        if lost:
            verdict, why = lost
            print(f"error: {why}", file=sys.stderr, flush=True)
    # What a worker did to its end is done, whatever arrived meanwhile.
    status = verdict if verdict and status != 0 else status
    party.leave(status, why)
    return status


def _ended(child: int) -> int | None:
    """Exit status of a process as a shell reports it; None if it is running."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if not pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _has_byte(pipe: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        return bool(os.read(pipe, 1))
    return False


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_STATUS)
