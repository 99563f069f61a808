"""Python's garbage collector, kept from what it need not look at."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Import large libraries without it, and leave what lives then out of every later collection.

    TensorFlow and TFX make a million objects that live as long as the process. Looking through
    them again and again takes a third of the time of their imports; afterwards it takes a quarter
    of a second for each full collection, and half a second when the process ends.

    It is paused once in a process. Later there is nothing large left to import, and among what
    lives would be the garbage of earlier runs, which would never be collected.

    For programs only: a library leaves the collector to whoever imports it.
    """
    if not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
