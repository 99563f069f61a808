import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_module.schedule.plan import (
    Limits,
    Split,
    apply_split,
    decay_split,
    parse_plan,
    strategy_plan,
)
from trainer_module.schedule.scaling import update_rule

SGD, ADAM = update_rule("sgd"), update_rule("adam")
WIDE = Limits(batch_size=10**9, learning_rate=0.0)


class TestParse:
    @pytest.mark.parametrize(
        ("text", "plan"),
        [
            ("lr/4", (Split(1, 4),)),
            ("batch*5, lr/5, lr/5", (Split(5, 1), Split(1, 5), Split(1, 5))),
            ("batch*2 lr/2", (Split(2, 2),)),
            ("lr/2 batch*3,batch*1.5", (Split(3, 2), Split(1.5, 1))),
            ("  Batch * 2 ,  LR / 1e1 ", (Split(2, 1), Split(1, 10))),
        ],
    )
    def test_reads_one_split_a_stall(self, text, plan):
        assert parse_plan(text) == plan

    @pytest.mark.parametrize(
        ("text", "rule", "received"),
        [
            ("", "at least one action", "''"),
            ("   ", "at least one action", "'   '"),
            ("lr/5,", "each stall", "''"),
            ("lr/5,,lr/5", "each stall", "''"),
            ("lr*5", "must be batch*F, lr/F", "'lr*5'"),
            ("batch/5", "must be batch*F, lr/F", "'batch/5'"),
            ("momentum*2", "must be batch*F, lr/F", "'momentum*2'"),
            ("lr/5 then stop", "must be batch*F, lr/F", "'then stop'"),
            ("lr/", "must be batch*F, lr/F", "'lr/'"),
            ("lr/2 lr/2", "once at each stall", "'lr/2 lr/2'"),
            ("lr/1", "above 1", "'lr/1'"),
            ("batch*0.5", "above 1", "'batch*0.5'"),
            ("lr/-4", "above 1", "'lr/-4'"),
            ("lr/nan", "above 1", "'lr/nan'"),
            ("batch*inf", "above 1", "'batch*inf'"),
            ("batch*two", "above 1", "'batch*two'"),
        ],
    )
    def test_an_error_gives_rule_value_and_remedy(self, text, rule, received):
        with pytest.raises(ValueError) as error:
            parse_plan(text)
        message = str(error.value)
        assert rule in message
        assert f"got {received}. " in message
        assert 'plan="batch*5, lr/5, lr/5"' in message


class TestStrategies:
    def test_each_splits_the_drop_as_its_name_says(self):
        batch, decay = Split(batch=4.0), Split(learning_rate=4.0)
        assert strategy_plan("lr_decay", 4.0, 3, SGD) == (decay,) * 3
        assert strategy_plan("batch_increase", 4.0, 3, SGD) == (batch,) * 3
        assert strategy_plan("hybrid", 4.0, 3, SGD) == (batch, decay, decay)
        assert strategy_plan("auto", 4.0, 3, SGD) == (batch, decay, decay)

    @pytest.mark.parametrize("strategy", ["lr_decay", "batch_increase", "hybrid", "auto"])
    @pytest.mark.parametrize("actions", [0, 1, 5])
    def test_as_many_splits_as_actions(self, strategy, actions):
        assert len(strategy_plan(strategy, 4.0, actions, SGD)) == actions

    def test_a_decay_under_the_square_root_rule_is_by_the_root(self):
        assert decay_split(4.0, ADAM) == Split(learning_rate=2.0)


class TestApply:
    def test_uncapped_growth_leaves_the_learning_rate_bit_for_bit(self):
        assert apply_split(Split(batch=4.0), 0.1, 64, SGD, WIDE) == (0.1, 256)

    def test_a_decay_divides_exactly(self):
        assert apply_split(decay_split(4.0, SGD), 0.001, 64, SGD, WIDE) == (0.001 / 4, 64)

    def test_what_the_cap_cuts_off_goes_into_the_learning_rate(self):
        limits = Limits(128, 0.0)
        assert apply_split(Split(batch=4.0), 0.1, 64, SGD, limits) == (0.05, 128)
        rate, batch = apply_split(Split(batch=4.0), 0.1, 64, ADAM, limits)
        assert (rate, batch) == (pytest.approx(0.1 / math.sqrt(2), rel=1e-15), 128)

    def test_at_the_cap_all_of_it_does(self):
        assert apply_split(Split(batch=4.0), 0.1, 128, SGD, Limits(128, 0.0)) == (0.025, 128)

    def test_a_batch_above_the_cap_does_not_shrink(self):
        assert apply_split(Split(batch=4.0), 0.1, 300, SGD, Limits(128, 0.0)) == (0.025, 300)

    def test_rounding_goes_into_the_learning_rate_too(self):
        rate, batch = apply_split(Split(batch=1.5), 0.1, 65, SGD, WIDE)
        assert batch == 97
        assert rate / batch == pytest.approx(0.1 / 65 / 1.5, rel=1e-15)

    def test_float_rounding_loses_no_example(self):
        assert 100 * 1.15 < 115
        assert apply_split(Split(batch=1.15), 0.1, 100, SGD, WIDE) == (0.1, 115)

    def test_the_floor_clips(self):
        assert apply_split(Split(1.0, 4.0), 0.1, 64, SGD, Limits(64, 0.05)) == (0.05, 64)
        assert apply_split(Split(1.0, 4.0), 0.05, 64, SGD, Limits(64, 0.05)) == (0.05, 64)

    @given(
        st.floats(1.0, 64.0),
        st.floats(1.0, 64.0),
        st.floats(1e-6, 10.0),
        st.integers(1, 10_000),
        st.integers(1, 100_000),
        st.sampled_from([SGD, ADAM]),
    )
    def test_eps_to_the_p_over_batch_drops_by_exactly_what_is_asked(
        self, by_batch, by_rate, rate, batch, cap, rule
    ):
        after = apply_split(Split(by_batch, by_rate), rate, batch, rule, Limits(cap, 0.0))
        asked = by_batch * by_rate**rule.exponent
        dropped = (rate**rule.exponent / batch) / (after[0] ** rule.exponent / after[1])
        assert dropped == pytest.approx(asked, rel=1e-12)
        assert after[0] <= rate
        assert batch <= after[1] <= max(cap, batch)
