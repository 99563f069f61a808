import gc
import subprocess
import sys

import pytest

from trainer_module.util import collector

# Freezing the objects of the tests themselves would hide their garbage.
PROGRAM = """
import gc
from trainer_module.util import collector

frozen = gc.get_freeze_count()
with collector.paused():
    assert not gc.isenabled()
    with collector.paused():
        import scipy.stats
    assert not gc.isenabled()
    assert gc.get_freeze_count() == frozen
assert gc.isenabled()
print(gc.get_freeze_count() - frozen, len(gc.get_objects()))
"""

REPEATED = """
import gc
import weakref
from trainer_module.util import collector


class Model:
    def __init__(self):
        self.itself = self


with collector.paused():
    pass
model = Model()
left = weakref.ref(model)
del model
with collector.paused():
    pass
gc.collect()
assert left() is None
"""


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_imported_is_not_looked_at_again():
    frozen, looked_at = map(int, run(PROGRAM).split())
    assert frozen > 100 * looked_at


def test_garbage_of_one_run_is_collected_in_the_next():
    run(REPEATED)


def test_a_failed_import_turns_it_on_again(monkeypatch):
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 0)
    with pytest.raises(ImportError), collector.paused():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off(monkeypatch):
    monkeypatch.setattr(gc, "isenabled", lambda: False)
    monkeypatch.setattr(gc, "enable", lambda: pytest.fail("it was turned on"))
    with collector.paused():
        pass
