"""Supervision of a worker's training: ends it on a signal, or when another worker is gone.

TensorFlow holds Python's lock while it connects the workers, so that the process that trains can
neither obey a signal nor notice that another worker died.
"""

import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from trainer_module.distributed.rendezvous import ClusterError, Party
from trainer_module.util.preemption import EXIT_STATUS, FINAL, GRACE_SECONDS

_POLL_SECONDS = 0.2
_REASON_SECONDS = 3.0
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def guarded(party: Party) -> Iterator[None]:
    """Ends this process if another worker is gone within the context; leaves the party after it.

    For a process that cannot be forked. A worker leaves after the chief, whose model it may need.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_SECONDS):
            if error := party.lost():
                _print(error)
                party.leave(error.status, str(error))
                os._exit(error.status)

    thread = threading.Thread(target=watch, name="worker-watch", daemon=True)
    thread.start()
    status = FINAL
    try:
        yield
        party.finish()
        while party.waits_for_chief:
            time.sleep(_POLL_SECONDS)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else FINAL
        raise
    finally:
        over.set()
        thread.join()
        party.leave(status)


def supervise(party: Party, train: Callable[[], int]) -> int:
    """Trains in a forked process, and ends it on SIGTERM or when another worker is gone.

    A worker that has trained waits for the chief, which exports the model: if that fails, all are
    to be started again. Returns the exit status, as `train` does.
    """
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    parent = os.getpid()
    # What is buffered would be printed by both.
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _end_with(parent)
        party.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = status_of(train)
        sys.stdout.flush()
        sys.stderr.flush()
        # TensorFlow waits at exit for the other workers.
        os._exit(status)
    try:
        return _watch(party, child, signals)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def status_of(train: Callable[[], int]) -> int:
    """Returns the exit status of a function that may raise; prints an unexpected error."""
    try:
        return train()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FINAL
    except BaseException:
        traceback.print_exc()
        return FINAL


def _watch(party: Party, child: int, signals: set[signal.Signals]) -> int:
    error: ClusterError | None = None
    signaled, kill_at = 0, math.inf
    while (status := _exit_status(child)) is None:
        if not signaled and not error:
            signaled = _arrived(signals)
            error = None if signaled else party.lost()
            if signaled or error:
                os.kill(child, signal.SIGTERM)
                kill_at = time.monotonic() + GRACE_SECONDS
        else:
            time.sleep(_POLL_SECONDS)
        if time.monotonic() > kill_at:
            os.kill(child, signal.SIGKILL)
    if status == 0:
        # Training has ended well, whatever arrived meanwhile.
        party.finish()
        error = None
        while party.waits_for_chief and not error and not _arrived(signals):
            error = party.lost()
    elif status == EXIT_STATUS and not signaled and not error:
        # TensorFlow may have noticed the end of another worker before its reason arrived.
        limit = time.monotonic() + _REASON_SECONDS
        while not (error := party.lost()) and time.monotonic() < limit:
            time.sleep(_POLL_SECONDS)
    if error:
        _print(error)
        status = error.status
    elif status and signaled:
        status = 128 + signaled
    party.leave(status, str(error or ""))
    return status


def _arrived(signals: set[signal.Signals]) -> int:
    """Waits for a signal and returns its number; 0 if none arrives, or that of a child's end."""
    arrived = signal.sigtimedwait(signals, _POLL_SECONDS)
    return arrived.si_signo if arrived and arrived.si_signo != signal.SIGCHLD else 0


def _exit_status(child: int) -> int | None:
    """Returns the exit status of a process as a shell reports it; None if it is running."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if not pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end_with(parent: int) -> None:
    """Has the kernel kill this process when its parent is gone (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_STATUS)


def _print(error: ClusterError) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)
