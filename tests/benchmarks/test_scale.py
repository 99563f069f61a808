import dataclasses

import pytest

from benchmarks import scale
from benchmarks.report import Row
from benchmarks.scale import DECODING, ENGINES, PLAIN, Measured
from benchmarks.settings import Settings
from benchmarks.step import COMPONENTS, REST, Cost

NAMES = (*COMPONENTS, REST)


def measured(**changes: Cost) -> Measured:
    """Twice the seconds for ten times the images, and memory that stays; changes at the most."""
    few = Cost(seconds=2.0, processor=5.0, peak_mib=800.0, anonymous_mib=400.0, loss=2.0)
    many = dataclasses.replace(few, seconds=4.0, peak_mib=880.0, loss=1.5)
    costs = {
        100: dict.fromkeys(NAMES, few),
        1_000: dict.fromkeys(NAMES, few),
        10_000: {name: changes.get(name, many) for name in NAMES},
    }
    seconds = {PLAIN: (2.0, 4.0), DECODING: (8.0, 8.0), ENGINES[0]: (2.0, 5.0)}
    writing = {10_000: {**seconds, ENGINES[1]: (4.0, 4.0)}}
    return Measured(costs, dataclasses.replace(many, anonymous_mib=800.0), writing)


def row(start: str, found: Measured) -> Row:
    (only,) = [r for r in scale.compare(found) if r.what.startswith(start)]
    return only


def test_seconds_may_grow_as_the_images_do() -> None:
    start = "growth of Transform's"
    assert row(start, measured()).values == (pytest.approx(0.2),), "of 0.1 and 0.2"
    assert row(start, measured()).reached
    slow = Cost(seconds=27.0, processor=5.0, peak_mib=800.0, anonymous_mib=400.0)
    assert row(start, measured(Transform=slow)).reached is False
    assert "1,000 to 10,000: 1.35" in row(start, measured(Transform=slow)).note


def test_memory_is_compared_between_the_second_size_and_the_last() -> None:
    assert row("peak memory of Evaluator", measured()).values == (1.1,)
    assert row("peak memory of Evaluator", measured()).reached
    fat = Cost(seconds=4.0, processor=5.0, peak_mib=960.0, anonymous_mib=500.0)
    assert row("peak memory of Evaluator", measured(Evaluator=fat)).reached is False
    assert row(f"peak memory of {REST}", measured()).reached


def test_a_cache_on_disk_must_change_no_result() -> None:
    start = "difference of the validation loss"
    assert row(start, measured()).reached
    other = Cost(seconds=4.0, processor=5.0, peak_mib=880.0, anonymous_mib=400.0, loss=1.5001)
    assert row(start, measured(Trainer=other)).reached is False
    assert row("memory of the Trainer without", measured()).values == (0.5,)


def test_images_a_second_are_compared_with_the_writer_of_the_same_turn() -> None:
    what = "images a second of ImageExampleGen on"
    found = {(r.what, r.against): r for r in scale.compare(measured()) if r.what.startswith(what)}
    one = found[f"{what} direct, 10,000 images", PLAIN]
    assert (one.values, one.target, one.reached) == ((1.0, 0.8), 0.8, True)
    two = found[f"{what} direct:2, 10,000 images", PLAIN]
    assert (two.values, two.target, two.reached) == ((0.5, 1.0), 1.0, False)
    decoding = found[f"{what} direct, 10,000 images", DECODING]
    assert (decoding.values, decoding.target) == ((4.0, 1.6), None)


def test_further_images_are_compared_without_what_it_takes_to_start() -> None:
    few = {PLAIN: (1.0, 1.0), DECODING: (4.0, 4.0), ENGINES[0]: (1.5, 1.0), ENGINES[1]: (3.0, 3.5)}
    both = dataclasses.replace(measured(), writing={1_000: few, **measured().writing})
    start = f"images a second of ImageExampleGen on {ENGINES[1]}, from 1,000 to 10,000"
    assert row(start, both).values == (1.0, 6.0), "(2 - 1) / (4 - 3) and (4 - 1) / (4 - 3.5)"
    assert row(start, both).reached is None


def test_tables_have_a_line_a_size() -> None:
    found = scale.tables(measured())
    assert "| 10,000 | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 | 4.0 |" in found
    assert "| 1,000 to 10,000 | 0.222 |" in found
    assert "| 10,000 | 880 |" in found
    assert "| 10,000 | 5,000 | 1,250 | 5,000 | 2,500 |" in found


@pytest.mark.parametrize("sizes", [(1000,), (1000, 100)])
def test_sizes_that_do_not_rise_are_refused(sizes) -> None:
    with pytest.raises(ValueError, match="two or more, rising"):
        scale.measure(Settings(sizes=sizes))
