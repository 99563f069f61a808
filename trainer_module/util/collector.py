"""Garbage collection paused while large libraries are imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Pauses the collector, and leaves what lives afterwards out of every later collection.

    TensorFlow and TFX make a million objects that live as long as the process. Collecting among
    them takes a third of the time of their imports; afterwards it takes a quarter of a second for
    each full collection, and half a second when the process ends.

    Only the first call in a process has an effect: later no large library is left to import, and
    freezing would keep the garbage of earlier runs for ever. Only programs call it: a library
    leaves the collector to its importer.
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
