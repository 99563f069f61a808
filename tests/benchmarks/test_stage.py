import pytest

from benchmarks.stage import Cost, cost


def test_extra_is_what_exceeds_an_ordinary_step():
    change = Cost(first=5.0, ordinary=(1.0, 1.0, 1.2, 0.8))
    assert change.extra == pytest.approx(4.0)
    assert change.extra_steps == pytest.approx(4.0)


def test_a_cost_lost_in_the_noise_counts_as_the_noise():
    change = Cost(first=0.9, ordinary=(1.0, 1.4, 0.6, 1.0))
    assert change.extra == pytest.approx(0.3)
    assert change.extra_steps == pytest.approx(-0.1)


def test_the_change_comes_before_the_first_step():
    log = []

    measured = cost(lambda: log.append("step"), lambda: log.append("change"), steps=2)
    assert log == ["change", "step", "step", "step"]
    assert len(measured.ordinary) == 2 and measured.first > 0
