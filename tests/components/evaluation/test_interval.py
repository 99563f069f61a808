import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from components.evaluation import interval

Z = norm.ppf(0.975)


@given(st.integers(1, 100_000), st.data())
def test_the_ends_are_the_shares_that_a_score_test_just_accepts(
    examples: int, data: st.DataObject
) -> None:
    right = data.draw(st.integers(0, examples))
    share = right / examples
    low, high = interval.wilson(share, examples)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        # Wilson's definition; at 0 and 1 the end is the share itself, and both sides are 0.
        assert abs(share - end) == pytest.approx(
            Z * math.sqrt(end * (1 - end) / examples), abs=1e-6
        )


def test_the_intervals_of_a_textbook() -> None:
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I: 15 of 148 and 1 of 29.
    assert interval.wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert interval.wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    # Newcombe (1998), Statistics in Medicine 17, 873-890, table II, method 10: 9 and 3 of 10.
    assert interval.difference(0.9, 0.3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_a_difference_lies_in_its_interval_and_is_antisymmetric(
    examples: int, one: float, other: float
) -> None:
    one, other = (round(share * examples) / examples for share in (one, other))
    low, high = interval.difference(one, other, examples)
    assert -1 - 1e-9 <= low <= one - other <= high <= 1 + 1e-9
    assert interval.difference(other, one, examples) == pytest.approx((-high, -low))
