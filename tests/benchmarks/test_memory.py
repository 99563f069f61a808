import numpy as np

from benchmarks.child import memory_mib


def peak_mib() -> float:
    return memory_mib("VmHWM")


def test_peak_rises_with_what_is_held_and_stays_when_it_is_freed():
    before = peak_mib()
    # Larger than all that was ever held, so that the peak must move.
    held = np.ones(int((before + 64) * 2**20), np.uint8)
    after = peak_mib()
    assert after >= before + 60
    del held
    assert peak_mib() >= after - 1
