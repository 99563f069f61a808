import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_module.schedule.strategy import (
    ACTIONS,
    FORMER_ACTIONS,
    STRATEGIES,
    Action,
    Change,
    Limits,
    StrategyName,
    apply_change,
    make_change,
    parse_plan,
)

SGD, ADAM = 1, 2
WIDE = Limits(batch_size=10**9, learning_rate=0.0)


class TestParse:
    @pytest.mark.parametrize(
        ("text", "plan"),
        [
            ("lr/4", (Change(1, 4),)),
            ("batch*5, lr/5, lr/5", (Change(5, 1), Change(1, 5), Change(1, 5))),
            ("batch*2 lr/2", (Change(2, 2),)),
            ("lr/2 batch*3,batch*1.5", (Change(3, 2), Change(1.5, 1))),
            ("  Batch * 2 ,  LR / 1e1 ", (Change(2, 1), Change(1, 10))),
        ],
    )
    def test_reads_one_change_a_plateau(self, text, plan):
        assert parse_plan(text) == plan

    @pytest.mark.parametrize(
        ("text", "received"),
        [
            ("", ""),
            ("   ", ""),
            ("lr/5,", ""),
            ("lr/5,,lr/5", ""),
            ("lr*5", "lr*5"),
            ("lr/5, batch/5", "batch/5"),
            ("momentum*2", "momentum*2"),
            ("lr/5 then stop", "lr/5 then stop"),
            ("lr/", "lr/"),
            ("lr/2 lr/2", "lr/2 lr/2"),
            ("lr/1", "lr/1"),
            ("batch*0.5", "batch*0.5"),
            ("lr/-4", "lr/-4"),
            ("lr/nan", "lr/nan"),
            ("batch*inf", "batch*inf"),
            ("batch*two", "batch*two"),
        ],
    )
    def test_an_error_gives_rule_value_and_remedy(self, text, received):
        with pytest.raises(ValueError, match=r"must be batch\*F, lr/F or both") as error:
            parse_plan(text)
        assert f"got {received!r}. " in str(error.value)
        assert "`plan=batch*5, lr/5, lr/5`" in str(error.value)


class TestRegistry:
    def test_the_names_are_those_of_the_types(self):
        assert tuple(STRATEGIES) == get_args(StrategyName)
        assert tuple(ACTIONS) == get_args(Action)
        assert set(FORMER_ACTIONS.values()) < set(ACTIONS)

    @pytest.mark.parametrize(
        ("name", "grows"),
        [
            ("lr_decay", [False, False, False]),
            ("batch_increase", [True, True, True]),
            ("hybrid", [True, False, False]),
            ("auto", [True, False, False]),
        ],
    )
    def test_each_strategy_changes_what_its_name_says(self, name, grows):
        assert [STRATEGIES[name].grows_batch(action) for action in range(3)] == grows

    def test_only_auto_measures(self):
        assert [name for name, strategy in STRATEGIES.items() if strategy.is_measured] == ["auto"]

    def test_a_change_is_of_one_of_the_two(self):
        assert make_change(True, 4.0, SGD) == make_change(True, 4.0, ADAM) == Change(4.0, 1.0)
        assert make_change(False, 4.0, SGD) == Change(1.0, 4.0)
        assert make_change(False, 4.0, ADAM) == Change(1.0, 2.0)


class TestApply:
    def test_uncapped_growth_leaves_the_learning_rate_bit_for_bit(self):
        assert apply_change(Change(4.0), 0.1, 64, SGD, WIDE) == (0.1, 256)

    def test_a_decay_divides_exactly(self):
        assert apply_change(make_change(False, 4.0, SGD), 0.001, 64, SGD, WIDE) == (0.001 / 4, 64)

    def test_what_the_cap_cuts_off_goes_into_the_learning_rate(self):
        limits = Limits(128, 0.0)
        assert apply_change(Change(4.0), 0.1, 64, SGD, limits) == (0.05, 128)
        rate, batch = apply_change(Change(4.0), 0.1, 64, ADAM, limits)
        assert (rate, batch) == (pytest.approx(0.1 / math.sqrt(2), rel=1e-15), 128)

    def test_at_the_cap_all_of_it_does(self):
        assert apply_change(Change(4.0), 0.1, 128, SGD, Limits(128, 0.0)) == (0.025, 128)

    def test_a_batch_above_the_cap_does_not_shrink(self):
        assert apply_change(Change(4.0), 0.1, 300, SGD, Limits(128, 0.0)) == (0.025, 300)

    def test_rounding_goes_into_the_learning_rate_too(self):
        rate, batch = apply_change(Change(1.5), 0.1, 65, SGD, WIDE)
        assert batch == 97
        assert rate / batch == pytest.approx(0.1 / 65 / 1.5, rel=1e-15)

    def test_float_rounding_loses_no_example(self):
        assert 100 * 1.15 < 115
        assert apply_change(Change(1.15), 0.1, 100, SGD, WIDE) == (0.1, 115)

    def test_the_floor_clips(self):
        assert apply_change(Change(1.0, 4.0), 0.1, 64, SGD, Limits(64, 0.05)) == (0.05, 64)
        assert apply_change(Change(1.0, 4.0), 0.05, 64, SGD, Limits(64, 0.05)) == (0.05, 64)

    @given(
        st.floats(1.0, 64.0),
        st.floats(1.0, 64.0),
        st.floats(1e-6, 10.0),
        st.integers(1, 10_000),
        st.integers(1, 100_000),
        st.sampled_from([SGD, ADAM]),
    )
    def test_eps_to_the_p_over_batch_drops_by_exactly_what_is_wanted(
        self, by_batch, by_rate, rate, batch, cap, exponent
    ):
        after = apply_change(Change(by_batch, by_rate), rate, batch, exponent, Limits(cap, 0.0))
        wanted = by_batch * by_rate**exponent
        dropped = (rate**exponent / batch) / (after[0] ** exponent / after[1])
        assert dropped == pytest.approx(wanted, rel=1e-12)
        assert after[0] <= rate
        assert batch <= after[1] <= max(cap, batch)
