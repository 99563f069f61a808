"""Every reader holds for its seeds and for what they become with some of their bytes changed.

`python -m tests.fuzz` does the same for minutes, guided by coverage.
"""

import importlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.reader import NAMES, PURE, Reader

EDITS = st.lists(
    st.tuples(
        st.integers(0, 2**16),
        st.integers(0, 8),
        st.one_of(
            st.binary(max_size=8),
            st.sampled_from([b"\n", b'"', b"[" * 2000, b"\0", b"\xff", b"NaN", b"9" * 400]),
        ),
    ),
    min_size=1,
    max_size=6,
)


def changed(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in edits:
        place %= len(seed) + 1
        seed = seed[:place] + new + seed[place + length :]
    return seed


def reader(name: str) -> Reader:
    found: Reader = importlib.import_module(f"tests.fuzz.readers.{name}").reader()
    return found


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in PURE else pytest.mark.component) for n in sorted(NAMES)],
)
def test_readers_hold_for_changed_seeds(name: str) -> None:
    target = reader(name)
    for seed in target.seeds:
        target.check(seed)

    examples = 300 if name in PURE else 100

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(target.seeds), EDITS)
    def holds(seed: bytes, edits: list[tuple[int, int, bytes]]) -> None:
        target.check(changed(seed, edits))

    holds()
