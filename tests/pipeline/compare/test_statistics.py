import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compare import statistics as module
from pipeline.compare.statistics import Comparison, Spread, Trial, curve, difference, ratio
from tests import trials


def trial(
    strategy: str,
    seed: int = 0,
    accuracies: tuple[float, ...] = (0.5, 0.8, 0.9),
    steps: int = 10,
    test: float = 0.9,
    monitor: str = "val_accuracy",
) -> Trial:
    """A run of `steps` updates and a second an epoch, with five seconds to build the graph."""
    best = -math.inf
    records = []
    for epoch, value in enumerate(accuracies, 1):
        records.append(
            trials.epoch(
                epoch,
                metrics={monitor: value, "loss": 1 - value},
                batch_size=320 // steps,
                updates=steps * epoch,
                seconds=5.0 + epoch,
                action="stop" if epoch == len(accuracies) else "none",
                best=value > best,
            )
        )
        best = max(best, value)
    return trials.trial(strategy, seed, records, test, monitor)


def test_costs_are_where_a_run_stopped_and_seconds_leave_out_the_first_epoch() -> None:
    found = trial("hybrid")
    assert [found.cost(unit) for unit in module.UNITS] == [3, 30, 2]
    assert found.axis("seconds") == (0, 1, 2)
    assert found.best_value == 0.9


def test_totals_are_measured_against_the_first_strategy() -> None:
    decay = [trial("lr_decay", seed, steps=10, test=0.90 + 0.02 * seed) for seed in (0, 1)]
    grow = [trial("batch_increase", seed, steps=4 + seed, test=0.91) for seed in (0, 1)]
    first, second = Comparison((*decay, *grow)).totals
    assert (first.strategy, second.strategy) == ("lr_decay", "batch_increase")
    assert second.costs["updates"].values == (12, 15)
    assert second.ratios["updates"] == pytest.approx((27 / 60, 12 / 30, 15 / 30))
    assert first.ratios["updates"] == (1, 1, 1)
    assert first.test_score.deviation == pytest.approx(0.02 / math.sqrt(2))
    assert second.difference.value == pytest.approx(0)
    assert second.difference.by_chance


@pytest.mark.parametrize(
    ("values", "of_first", "deviations", "by_chance"),
    [
        # Deviation 0.1 each; of three seeds the standard error is 0.1 sqrt(2/3) = 0.082.
        ((0.7, 0.8, 0.9), (0.6, 0.7, 0.8), 1.0, True),
        ((0.7, 0.8, 0.9), (0.53, 0.63, 0.73), 1.7, False),
        ((0.4, 0.5, 0.6), (0.6, 0.7, 0.8), 2.0, False),
        ((0.9, 0.9), (0.9, 0.9), None, True),
        ((0.9, 0.9), (0.8, 0.8), None, False),
        ((0.9,), (0.8,), None, None),
    ],
)
def test_a_difference_is_judged_by_the_spread_of_the_seeds(
    values: tuple[float, ...],
    of_first: tuple[float, ...],
    deviations: float | None,
    by_chance: bool | None,
) -> None:
    found = difference(Spread(values), Spread(of_first))
    assert found.deviations == (None if deviations is None else pytest.approx(deviations))
    assert found.by_chance is by_chance


def test_a_ratio_is_clear_where_the_seeds_agree() -> None:
    assert ratio([1, 3], [2, 4]).clear
    assert not ratio([1, 5], [2, 4]).clear
    nothing = ratio([1, 0], [2, 0])
    assert math.isnan(nothing.value)
    assert not nothing.clear


def test_a_curve_is_the_mean_and_spread_of_the_seeds() -> None:
    found = curve("hybrid", [((1, 2, 3), (0.2, 0.6, 0.8)), ((1, 2, 3), (0.4, 0.8, 0.8))])
    assert found.x == (1, 2, 3)
    assert found.mean == pytest.approx((0.3, 0.7, 0.8))
    assert found.deviation == pytest.approx((0.1 * math.sqrt(2), 0.1 * math.sqrt(2), 0))
    assert found.runs == (2, 2, 2)


def test_between_measurements_a_curve_is_straight_and_it_goes_on_without_those_that_ended() -> None:
    found = curve("hybrid", [((10, 20), (0.0, 1.0)), ((8, 15, 40), (0.0, 0.5, 1.0))])
    assert found.x == (10, 15, 20, 40)
    assert found.runs == (2, 2, 2, 1)
    assert found.mean == pytest.approx(((0 + 1 / 7) / 2, 0.5, (1 + 0.6) / 2, 1.0))
    assert found.deviation[-1] is None


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=4))
def test_a_mean_lies_among_the_runs(values: list[list[float]]) -> None:
    found = curve("auto", [(tuple(range(1, len(ys) + 1)), tuple(ys)) for ys in values])
    assert len(found.x) == max(map(len, values))
    for place, mean in enumerate(found.mean):
        here = [ys[place] for ys in values if place < len(ys)]
        assert min(here) - 1e-9 <= mean <= max(here) + 1e-9
        assert found.runs[place] == len(here)


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ((), "one run of each strategy"),
        ((trial("hybrid", 0), trial("hybrid", 0)), "one run of each strategy"),
        ((trial("hybrid", 0), trial("auto", 1)), "one run of each strategy"),
        ((trial("hybrid"), trial("auto", monitor="val_loss")), "must monitor one metric"),
        ((trial("hybrid", accuracies=()), trial("auto")), "must have finished an epoch"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(trials: tuple[Trial, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Comparison(trials)


def test_a_strategy_had_a_part_in_its_best_epoch_only_after_a_decision() -> None:
    run = trial("hybrid", accuracies=(0.5, 0.7, 0.9))
    assert not run.decided_before_best
    records = list(run.history.epochs)
    records[1] = dataclasses.replace(records[1], action="batch_increase")
    history = dataclasses.replace(run.history, epochs=tuple(records))
    assert dataclasses.replace(run, history=history).decided_before_best


def test_every_number_survives_json_and_what_is_none_is_null() -> None:
    runs = (trial("lr_decay"), trial("hybrid", accuracies=(0.5, math.nan)))
    found: dict[str, Any] = json.loads(json.dumps(Comparison(runs).to_dict(), allow_nan=False))
    assert found["strategies"] == ["lr_decay", "hybrid"]
    assert [total["updates"]["mean"] for total in found["totals"]] == [30, 20]
    assert [run["epochs"][-1]["metrics"]["val_accuracy"] for run in found["runs"]] == [0.9, None]
    assert len(found["runs"][0]["epochs"]) == 3
    assert found["totals"][1]["ratios"]["updates"]["value"] == pytest.approx(2 / 3)
