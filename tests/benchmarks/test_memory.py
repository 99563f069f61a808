import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In a process of its own: the peak of this one may be gigabytes, more than which it would take.
PROGRAM = """
import numpy as np
from benchmarks.child import memory_mib

before = memory_mib("VmHWM")
# Larger than all that was ever held, so that the peak must move.
held = np.ones(int((before + 64) * 2**20), np.uint8)
after = memory_mib("VmHWM")
del held
print(before, after, memory_mib("VmHWM"))
"""


def test_peak_rises_with_what_is_held_and_stays_when_it_is_freed():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after, freed = map(float, done.stdout.split())
    assert after >= before + 60
    assert freed >= after - 1
