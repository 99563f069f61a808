import math

import pytest

from benchmarks.comparison import Comparison, ratios


def test_the_median_decides_in_either_sense():
    values = (0.5, 1.5, 2.0)
    assert Comparison("a", "b", values, "at least", 1.5).reached is True
    assert Comparison("a", "b", values, "at least", 1.6).reached is False
    assert Comparison("a", "b", values, "at most", 1.5).reached is True
    assert Comparison("a", "b", values, "at most", 1.4).reached is False


def test_without_a_target_nothing_is_reached_or_missed():
    assert Comparison("a", "b", (1.0,)).reached is None


def test_a_value_that_is_no_number_reaches_nothing():
    assert Comparison("a", "b", (math.nan,), "at least", 0.0).reached is False
    assert Comparison("a", "b", (math.inf,), "at most", 1.0).reached is False


def test_survives_a_trip_through_its_dict():
    row = Comparison("a", "b", (1.0, 2.0), "at most", 1.2, "c")
    assert Comparison.from_dict(row.to_dict()) == row
    assert row.to_dict()["median"] == 1.5


def test_an_empty_comparison_is_refused():
    with pytest.raises(ValueError, match="must hold values"):
        Comparison("a", "b", ())


def test_ratios_are_taken_within_a_turn():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == (2.0, 3.0)
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])
