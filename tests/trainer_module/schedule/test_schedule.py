import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_module.schedule import forecast
from trainer_module.schedule.plateau import PlateauConfig, PlateauState, acted, observe
from trainer_module.schedule.scaling import TrainingSpec, scaling_rule, update_noise
from trainer_module.schedule.schedule import (
    HYSTERESIS,
    MAX_ROLLBACKS,
    MIN_THROUGHPUT_GAIN,
    NonFiniteError,
    ScheduleConfig,
    initial_state,
    next_learning_rate,
    step,
)
from trainer_module.schedule.state import Decision, ScheduleState

CIFAR = TrainingSpec(50_000, "sgd", 0.9)
QUICK = PlateauConfig(patience=2)


def config(**fields: Any) -> ScheduleConfig:
    return ScheduleConfig(**{"plateau": QUICK, **fields})


def run(
    config: ScheduleConfig,
    metrics: list[float | None],
    spec: TrainingSpec = CIFAR,
    learning_rate: float = 0.001,
    batch_size: int = 64,
    seconds_per_epoch: float = 1.0,
    simple_noise_scale: float | None = None,
) -> list[Decision]:
    """Decisions over metrics, up to and with the stop."""
    state, decisions = initial_state(config, spec, learning_rate, batch_size), []
    for epoch, metric in enumerate(metrics, start=1):
        state, decision = step(
            config,
            spec,
            state,
            metric=metric,
            loss=1.0,
            elapsed_seconds=epoch * seconds_per_epoch,
            simple_noise_scale=simple_noise_scale,
        )
        decisions.append(decision)
        if decision.action == "stop":
            break
    return decisions


def acts(decisions: list[Decision]) -> list[tuple[int, str, float, int]]:
    return [change for change in changes(decisions) if change[1] != "none"]


def changes(decisions: list[Decision]) -> list[tuple[int, str, float, int]]:
    return [(d.epoch, d.action, d.learning_rate, d.batch_size) for d in decisions]


def plateau_state(config: ScheduleConfig, **fields: Any) -> ScheduleState:
    """One evaluation before a plateau."""
    seen = PlateauState(best=0.8, reference=0.8, bad_evaluations=config.plateau.patience - 1)
    return initial_state(config, CIFAR, 0.001, 64)._replace(plateau=seen, epoch=9, **fields)


def one(config: ScheduleConfig, state: ScheduleState, spec: TrainingSpec = CIFAR, **values: Any):
    given_values = {"metric": 0.5, "loss": 1.0, "elapsed_seconds": 0.0, **values}
    return step(config, spec, state, **given_values)


class TestConfig:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("strategy", "grow"),
            ("plan", ""),
            ("plan", "lr*5"),
            ("factor", 1.0),
            ("min_learning_rate", math.inf),
            ("warmup_epochs", 100),
            ("warmup_fraction", 0.0),
            ("time_budget", math.nan),
        ],
    )
    def test_a_bad_value_is_refused_with_its_remedy(self, field, value):
        with pytest.raises(ValueError) as error:
            ScheduleConfig(**{field: value})
        assert f"got {value!r}. " in str(error.value)
        assert field in str(error.value).rpartition(", got ")[2]

    def test_a_small_drop_is_allowed(self):
        assert ScheduleConfig(factor=1.5).factor == 1.5

    def test_the_length_of_a_plan_is_its_number_of_actions(self):
        assert ScheduleConfig(actions=7, plan="lr/5, lr/5, lr/5").num_actions == 3
        assert ScheduleConfig(actions=7).num_actions == 7


class TestStart:
    @pytest.mark.parametrize(
        ("learning_rate", "batch_size", "named"),
        [
            (1e-8, 64, "learning_rate"),
            (math.nan, 64, "learning_rate"),
            (math.inf, 64, "learning_rate"),
            (0.001, 0, "batch_size"),
            (0.001, 50_001, "batch_size"),
            (0.001, 600, "max_batch_size"),
        ],
    )
    def test_out_of_bounds_is_refused(self, learning_rate, batch_size, named):
        with pytest.raises(ValueError, match=named):
            initial_state(config(max_batch_size=512), CIFAR, learning_rate, batch_size)

    def test_a_batch_beyond_memory_is_refused(self):
        with pytest.raises(ValueError, match="fits in memory"):
            initial_state(config(), dataclasses.replace(CIFAR, max_batch_size=32), 0.001, 64)


class TestPublishedExperiment:
    """The method this began from: two actions by 4, then a stop."""

    def test_first_variant_decays_the_learning_rate(self):
        decisions = run(config(strategy="lr_decay", actions=2), [0.5] * 20)
        assert acts(decisions) == [
            (3, "lr_decay", 0.00025, 64),
            (5, "lr_decay", 0.0000625, 64),
            (7, "stop", 0.0000625, 64),
        ]
        assert decisions[-1].stop_reason == "plateau"

    def test_second_variant_grows_the_batch(self):
        decisions = run(config(strategy="batch_increase", actions=2), [0.5] * 20)
        assert acts(decisions) == [
            (3, "batch_increase", 0.001, 256),
            (5, "batch_increase", 0.001, 1024),
            (7, "stop", 0.001, 1024),
        ]

    def test_hybrid_grows_once_and_decays_from_there(self):
        decisions = run(config(strategy="hybrid", actions=3), [0.5] * 20)
        assert acts(decisions) == [
            (3, "batch_increase", 0.001, 256),
            (5, "lr_decay", 0.00025, 256),
            (7, "lr_decay", 0.0000625, 256),
            (9, "stop", 0.0000625, 256),
        ]

    def test_adam_decays_by_the_square_root(self):
        decisions = run(config(strategy="lr_decay"), [0.5] * 20, TrainingSpec(50_000, "adam", 0.0))
        assert [d.learning_rate for d in decisions if d.action == "lr_decay"] == [0.0005, 0.00025]


class TestActing:
    def test_the_reason_says_what_was_seen_and_done(self):
        _, decision = one(config(), plateau_state(config()))
        assert decision.reason == "no better val_accuracy for 2 epochs; batch 64 -> 256"
        assert decision.epoch == 10

    def test_a_plan_is_followed_to_the_letter(self):
        decisions = run(config(plan="batch*5, lr/5, batch*2 lr/2"), [0.5] * 20)
        assert acts(decisions) == [
            (3, "batch_increase", 0.001, 320),
            (5, "lr_decay", 0.001 / 5, 320),
            (7, "batch_increase_and_lr_decay", 0.001 / 5 / 2, 640),
            (9, "stop", 0.001 / 5 / 2, 640),
        ]

    @pytest.mark.parametrize(
        ("user", "memory", "cap"), [(None, None, 5_000), (200, None, 200), (None, 150, 150)]
    )
    def test_the_cap_is_the_least_of_user_tenth_and_memory(self, user, memory, cap):
        wanted = config(strategy="batch_increase", max_batch_size=user, actions=9)
        spec = dataclasses.replace(CIFAR, max_batch_size=memory)
        stages = forecast.stages(wanted, spec, 1.0, 64)
        assert max(s.batch_size for s in stages) == cap
        assert stages[-1].batch_size == cap

    def test_the_user_may_go_beyond_a_tenth_but_not_beyond_memory(self):
        wanted = config(strategy="batch_increase", max_batch_size=20_000, actions=9)
        assert forecast.stages(wanted, CIFAR, 1.0, 64)[-1].batch_size == 20_000
        tight = dataclasses.replace(CIFAR, max_batch_size=9_000)
        assert forecast.stages(wanted, tight, 1.0, 64)[-1].batch_size == 9_000

    def test_past_the_cap_the_rest_goes_into_the_learning_rate_at_once(self):
        decisions = run(config(strategy="batch_increase", max_batch_size=128), [0.5] * 20)
        assert acts(decisions)[:2] == [
            (3, "batch_increase_and_lr_decay", 0.0005, 128),
            (5, "lr_decay", 0.000125, 128),
        ]

    def test_the_floor_clips_then_ends_the_run_without_phantom_actions(self):
        wanted = config(strategy="lr_decay", actions=9, min_learning_rate=0.0004)
        decisions = run(wanted, [0.5] * 30)
        assert acts(decisions) == [(3, "lr_decay", 0.0004, 64), (5, "stop", 0.0004, 64)]
        assert decisions[-1].stop_reason == "exhausted"
        assert "limits" in decisions[-1].reason

    def test_acting_starts_the_cooldown(self):
        wanted = config(plateau=PlateauConfig(patience=2, cooldown=3))
        state, decision = one(wanted, plateau_state(wanted))
        assert decision.action == "batch_increase"
        assert (state.plateau.cooldown_left, state.plateau.bad_evaluations) == (3, 0)

    @pytest.mark.parametrize("restore", ["none", "weights", "weights_and_slots"])
    def test_restore_comes_with_an_action_only(self, restore):
        wanted = config(restore=restore)
        assert one(wanted, plateau_state(wanted))[1].restore == restore
        fresh = initial_state(wanted, CIFAR, 0.001, 64)
        assert one(wanted, fresh)[1].restore == "none"

    def test_no_actions_is_plain_early_stopping(self):
        decisions = run(config(actions=0), [0.5] * 20)
        assert acts(decisions) == [(3, "stop", 0.001, 64)]

    def test_a_missing_metric_is_no_evaluation(self):
        decisions = run(config(), [0.5, None, 0.5, None, 0.5])
        assert acts(decisions) == [(5, "batch_increase", 0.001, 256)]


class TestStopping:
    def test_after_the_last_epoch_it_stops_rather_than_acts(self):
        wanted = config(max_epochs=10)
        state, decision = one(wanted, plateau_state(wanted))
        assert (decision.action, decision.stop_reason) == ("stop", "max_epochs")
        assert (decision.learning_rate, decision.batch_size) == (0.001, 64)
        assert state.actions_taken == 0

    def test_the_time_budget_stops_at_the_epoch_that_uses_it_up(self):
        decisions = run(config(time_budget=4.0), [0.1, 0.2, 0.3, 0.4, 0.5])
        assert [d.epoch for d in decisions if d.action == "stop"] == [4]
        assert decisions[-1].stop_reason == "time_budget"

    def test_a_last_epoch_that_is_the_best_is_still_seen_as_such(self):
        decision = run(config(max_epochs=2), [0.1, 0.2])[-1]
        assert decision.action == "stop" and decision.observation.improved_best

    def test_a_stopped_schedule_takes_no_step(self):
        wanted = config(max_epochs=1)
        state, _ = one(wanted, initial_state(wanted, CIFAR, 0.001, 64))
        with pytest.raises(ValueError, match="takes no further step"):
            one(wanted, state)


NONFINITE = [
    {"metric": math.nan},
    {"metric": math.inf},
    {"metric": -math.inf},
    {"loss": math.nan},
    {"loss": math.inf},
    {"metric": None, "loss": math.nan},
]


class TestNotFinite:
    @pytest.mark.parametrize("values", NONFINITE)
    @pytest.mark.parametrize("first", [True, False])
    def test_raise_names_epoch_value_and_remedy(self, values, first):
        wanted = config(on_nonfinite="raise")
        state = initial_state(wanted, CIFAR, 0.001, 64) if first else plateau_state(wanted)
        with pytest.raises(NonFiniteError) as error:
            one(wanted, state, **values)
        message = str(error.value)
        name, value = next((k, v) for k, v in values.items() if v is not None)
        shown = "val_accuracy" if name == "metric" else name
        assert f"{shown} {value}" in message
        assert f"epoch {1 if first else 10}" in message
        assert "on_nonfinite=" in message

    @pytest.mark.parametrize("values", NONFINITE)
    @pytest.mark.parametrize("first", [True, False])
    def test_bad_epoch_counts_against_patience_and_is_never_a_best(self, values, first):
        wanted = config(on_nonfinite="bad_epoch")
        state = initial_state(wanted, CIFAR, 0.001, 64) if first else plateau_state(wanted)
        after, decision = one(wanted, state, **values)
        assert after.plateau.best == state.plateau.best
        assert decision.observation.bad_evaluations == state.plateau.bad_evaluations + 1
        assert decision.action == ("none" if first else "batch_increase")

    @pytest.mark.parametrize("mode", ["max", "min"])
    @pytest.mark.parametrize("compatibility", ["plateau", "keras", "torch"])
    def test_a_metric_that_is_infinite_is_judged_by_the_rule_followed(self, mode, compatibility):
        plateau = PlateauConfig(
            monitor="score", mode=mode, patience=2, cooldown=1, compatibility=compatibility
        )
        wanted = config(plateau=plateau, on_nonfinite="bad_epoch", actions=50, factor=1.01)
        metrics = [0.1, math.inf, 0.3, 0.2, 0.4, -math.inf, 0.5, 0.6, 0.0, -0.1, 0.7, 0.7, 0.7, 0.7]
        state, expected = PlateauState(), []
        for metric in metrics:
            state, seen = observe(plateau, state, metric)
            expected.append(seen.is_plateau)
            state = acted(plateau, state) if seen.is_plateau else state
        assert any(expected)
        assert [decision.action != "none" for decision in run(wanted, metrics)] == expected

    @pytest.mark.parametrize("values", NONFINITE)
    @pytest.mark.parametrize("first", [True, False])
    def test_rollback_goes_back_to_the_best_with_a_smaller_learning_rate(self, values, first):
        wanted = config(on_nonfinite="rollback_and_reduce")
        state = initial_state(wanted, CIFAR, 0.001, 64) if first else plateau_state(wanted)
        after, decision = one(wanted, state, **values)
        assert (decision.action, decision.restore) == ("rollback", "weights_and_slots")
        assert (decision.learning_rate, decision.batch_size) == (0.00025, 64)
        assert after.plateau.best == state.plateau.best
        assert (after.actions_taken, after.rollbacks) == (0, 1)

    def test_rollbacks_in_a_row_are_bounded(self):
        wanted = config(on_nonfinite="rollback_and_reduce")
        decisions = run(wanted, [math.nan] * 20, learning_rate=10.0)
        assert [d.action for d in decisions] == ["rollback"] * MAX_ROLLBACKS + ["stop"]
        assert decisions[-1].stop_reason == "nonfinite"
        assert decisions[-1].restore == "weights_and_slots"

    def test_a_finite_epoch_between_starts_the_count_again(self):
        wanted = config(on_nonfinite="rollback_and_reduce", plateau=PlateauConfig(patience=50))
        decisions = run(wanted, [math.nan, math.nan, 0.5] * 3, learning_rate=10.0)
        assert [d.action for d in decisions] == ["rollback", "rollback", "none"] * 3

    def test_at_the_floor_there_is_nothing_left_to_reduce(self):
        wanted = config(on_nonfinite="rollback_and_reduce", min_learning_rate=0.0004)
        decisions = run(wanted, [math.nan] * 5)
        assert [(d.action, d.learning_rate) for d in decisions] == [
            ("rollback", 0.0004),
            ("stop", 0.0004),
        ]

    def test_a_rollback_on_the_last_epoch_is_a_stop(self):
        wanted = config(on_nonfinite="rollback_and_reduce", max_epochs=1)
        decision = run(wanted, [math.nan])[-1]
        assert (decision.action, decision.stop_reason) == ("stop", "max_epochs")
        assert decision.restore == "weights_and_slots"

    def test_adam_rolls_back_by_the_square_root(self):
        wanted = config(on_nonfinite="rollback_and_reduce")
        decision = run(wanted, [math.nan], TrainingSpec(50_000, "adam", 0.0))[0]
        assert decision.learning_rate == 0.0005


class TestAuto:
    auto = config(strategy="auto", actions=9)

    def choice(self, noise: float | None, gain: float | None = None, **fields: Any) -> str:
        state = plateau_state(self.auto, **fields)
        measured = {"simple_noise_scale": noise, "throughput_gain": gain}
        return one(self.auto, state, **measured)[1].action

    def test_where_noise_dominates_the_batch_grows(self):
        assert self.choice(64.5) == "batch_increase"

    def test_where_noise_hides_the_signal_the_batch_grows_every_time(self):
        assert self.choice(math.inf) == "batch_increase"
        assert (
            self.choice(math.inf, actions_taken=1, auto_choice="learning_rate") == "batch_increase"
        )

    def test_where_it_does_not_the_learning_rate_decays(self):
        assert self.choice(63.5) == "lr_decay"
        assert self.choice(0.0) == "lr_decay"

    @pytest.mark.parametrize("noise", [None, math.nan])
    def test_without_a_usable_measurement_it_goes_as_hybrid(self, noise):
        assert self.choice(noise) == "batch_increase"
        assert self.choice(noise, actions_taken=1) == "lr_decay"

    def test_a_choice_once_made_is_kept_against_small_changes(self):
        above, below = 64 * HYSTERESIS * 1.01, 64 / HYSTERESIS * 0.99
        assert self.choice(65.0, auto_choice="learning_rate") == "lr_decay"
        assert self.choice(above, auto_choice="learning_rate") == "batch_increase"
        assert self.choice(63.0, auto_choice="batch") == "batch_increase"
        assert self.choice(below, auto_choice="batch") == "lr_decay"

    @pytest.mark.parametrize("noise", [None, 6400.0, math.inf])
    def test_a_larger_batch_must_be_faster_too(self, noise):
        assert self.choice(noise, MIN_THROUGHPUT_GAIN) == "batch_increase"
        assert self.choice(noise, math.nextafter(MIN_THROUGHPUT_GAIN, 0)) == "lr_decay"

    def test_speed_alone_is_no_reason_to_grow(self):
        assert self.choice(1.0, 4.0) == "lr_decay"

    def test_only_auto_looks_at_speed(self):
        grows = config(strategy="batch_increase")
        _, decision = one(grows, plateau_state(grows), throughput_gain=0.0)
        assert decision.action == "batch_increase"
        assert "examples/s" not in decision.reason

    def test_the_choice_is_remembered(self):
        state, _ = one(self.auto, plateau_state(self.auto), simple_noise_scale=1.0)
        assert state.auto_choice == "learning_rate"


class TestWarmup:
    warm = config(warmup_epochs=4, warmup_fraction=0.2)

    def rates(self, config: ScheduleConfig, epochs: int) -> list[float]:
        """Learning rates of the first epochs, on a flat metric."""
        state, rates = initial_state(config, CIFAR, 0.1, 64), []
        for _ in range(epochs):
            rates.append(next_learning_rate(config, state))
            state, decision = one(config, state)
            assert decision.learning_rate == next_learning_rate(config, state)
        return rates

    def test_the_learning_rate_rises_linearly_from_a_fraction(self):
        assert self.rates(self.warm, 6) == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])

    def test_it_never_begins_below_the_floor(self):
        wanted = config(warmup_epochs=2, warmup_fraction=0.1, min_learning_rate=0.04)
        assert self.rates(wanted, 3) == pytest.approx([0.04, 0.055, 0.1])

    def test_patience_begins_after_it(self):
        decisions = run(self.warm, [0.5] * 20, learning_rate=0.1)
        assert acts(decisions)[0] == (6, "batch_increase", 0.1, 256)
        assert decisions[1].reason == "val_accuracy 0.5, in the warm-up"
        assert decisions[1].observation.bad_evaluations == 0

    def test_its_evaluations_count_for_the_best(self):
        decisions = run(self.warm, [0.5, 0.9, 0.6, 0.6, 0.8, 0.8], learning_rate=0.1)
        assert [d.observation.improved_best for d in decisions] == [True, True, *[False] * 4]
        assert decisions[-1].action == "batch_increase"

    def test_a_rollback_in_it_lowers_the_rate_that_it_leads_to(self):
        wanted = dataclasses.replace(self.warm, on_nonfinite="rollback_and_reduce")
        decisions = run(wanted, [0.5, math.nan, 0.5, 0.5, 0.5], learning_rate=0.1)
        assert decisions[1].action == "rollback"
        rates = [decision.learning_rate for decision in decisions]
        assert rates == pytest.approx([0.04, 0.06 / 4, 0.08 / 4, 0.1 / 4, 0.1 / 4])

    def test_a_bad_epoch_in_it_does_not_count(self):
        wanted = dataclasses.replace(self.warm, on_nonfinite="bad_epoch")
        decision = run(wanted, [0.5, math.nan], learning_rate=0.1)[1]
        assert decision.observation.bad_evaluations == 0
        assert decision.reason == "val_accuracy nan, in the warm-up"

    def test_the_forecast_has_it_as_its_first_stage(self):
        stages = forecast.stages(self.warm, CIFAR, 0.1, 64)
        assert [(s.index, s.action, s.learning_rate) for s in stages] == [
            (0, "none", pytest.approx(0.02)),
            (0, "none", 0.1),
            (1, "batch_increase", 0.1),
            (2, "lr_decay", 0.025),
        ]
        assert forecast.verify(stages, changes(run(self.warm, [0.5] * 20, learning_rate=0.1))) == ()


class TestForecast:
    def test_says_each_stage(self):
        stages = forecast.stages(config(strategy="hybrid"), CIFAR, 0.001, 64)
        assert [dataclasses.astuple(s) for s in stages] == [
            (0, "none", 0.001, 64, 781, update_noise(0.001, 64, CIFAR)),
            (1, "batch_increase", 0.001, 256, 195, update_noise(0.001, 256, CIFAR)),
            (2, "lr_decay", 0.00025, 256, 195, update_noise(0.00025, 256, CIFAR)),
        ]

    def test_ends_where_nothing_can_change(self):
        wanted = config(strategy="lr_decay", actions=9, min_learning_rate=0.0004)
        assert [s.learning_rate for s in forecast.stages(wanted, CIFAR, 0.001, 64)] == [
            0.001,
            0.0004,
        ]

    def test_a_run_cut_short_has_not_left_it(self):
        wanted = config()
        stages = forecast.stages(wanted, CIFAR, 0.001, 64)
        assert forecast.verify(stages, changes(run(wanted, [0.5] * 4))) == ()

    def test_verify_says_where_a_run_left_it(self):
        decisions = changes(run(config(strategy="lr_decay"), [0.5] * 20))
        stages = forecast.stages(config(strategy="hybrid", actions=1), CIFAR, 0.001, 64)
        assert forecast.verify(stages, decisions) == (
            "epoch 3: lr_decay to learning rate 0.00025 and batch 64, but the forecast was"
            " batch_increase to learning rate 0.001 and batch 256",
            "epoch 5: lr_decay to learning rate 6.25e-05 and batch 64, but the forecast was"
            " no further action",
        )

    def test_verify_notices_a_rollback(self):
        wanted = config(on_nonfinite="rollback_and_reduce")
        stages = forecast.stages(wanted, CIFAR, 0.001, 64)
        (difference,) = forecast.verify(stages, changes(run(wanted, [0.5, math.nan])))
        assert difference.startswith("epoch 2: rollback to learning rate 0.00025")


METRIC = st.one_of(
    st.none(),
    st.floats(-2, 2),
    st.sampled_from([0.1, 0.2, 0.3, math.nan, math.inf, -math.inf]),
)
EPOCH = st.tuples(
    METRIC,
    st.one_of(st.just(1.0), st.none(), st.sampled_from([math.nan, math.inf])),
    st.one_of(st.none(), st.floats(1, 20_000)),
    st.one_of(st.none(), st.floats(0, 4)),
)
SCHEDULES = st.builds(
    ScheduleConfig,
    plateau=st.one_of(
        st.builds(
            PlateauConfig,
            mode=st.sampled_from(["max", "min"]),
            patience=st.integers(1, 4),
            cooldown=st.integers(0, 2),
            smoothing=st.sampled_from(["none", "ema", "median"]),
        ),
        st.builds(
            PlateauConfig,
            patience=st.integers(1, 4),
            cooldown=st.integers(0, 2),
            compatibility=st.sampled_from(["keras", "torch"]),
        ),
    ),
    strategy=st.sampled_from(["lr_decay", "batch_increase", "hybrid", "auto"]),
    plan=st.one_of(st.none(), st.sampled_from(["batch*5, lr/5, lr/5", "batch*2.5 lr/2, lr/3"])),
    factor=st.sampled_from([1.5, 2.0, 4.0, 10.0]),
    actions=st.integers(0, 5),
    max_batch_size=st.one_of(st.none(), st.integers(32, 2_000)),
    min_learning_rate=st.sampled_from([0.0, 1e-6, 1e-3]),
    on_nonfinite=st.sampled_from(["bad_epoch", "rollback_and_reduce"]),
    warmup_epochs=st.integers(0, 3),
    max_epochs=st.integers(4, 40),
)
SPECS = st.builds(
    TrainingSpec,
    num_examples=st.integers(100, 60_000),
    optimizer=st.sampled_from(["sgd", "adam", "mystery"]),
    momentum=st.sampled_from([0.0, 0.9]),
    max_batch_size=st.one_of(st.none(), st.integers(32, 4_000)),
)
RATES = st.sampled_from([0.1, 0.01, 0.001])
EPOCHS = st.lists(EPOCH, max_size=40)


def walk(config, spec, state, epochs):
    """States and decisions from a state on, until the stop."""
    states, decisions = [state], []
    for metric, loss, noise, gain in epochs:
        if state.stop_reason is not None:
            break
        state, decision = step(
            config,
            spec,
            state,
            metric=metric,
            loss=loss,
            elapsed_seconds=float(state.epoch),
            simple_noise_scale=noise,
            throughput_gain=gain,
        )
        states.append(state)
        decisions.append(decision)
    return states, decisions


class TestProperties:
    @given(SCHEDULES, SPECS, RATES, EPOCHS, st.data())
    def test_a_resumed_run_decides_exactly_as_an_unbroken_one(
        self, config, spec, rate, epochs, data
    ):
        states, decisions = walk(config, spec, initial_state(config, spec, rate, 32), epochs)
        split = data.draw(st.integers(0, len(decisions)))
        text = states[split].to_json()
        again, later = walk(config, spec, ScheduleState.from_json(text), epochs[split:])
        assert again[0].to_json() == text
        # By repr, since a NaN that the rule of Keras keeps is not equal to itself.
        assert repr(again) == repr(states[split:])
        assert repr(later) == repr(decisions[split:])

    @given(SCHEDULES, SPECS, RATES, EPOCHS)
    def test_the_plan_of_a_run_repeats_it(self, config, spec, rate, epochs):
        config = dataclasses.replace(config, plan=None)
        start = initial_state(config, spec, rate, 32)
        _, decisions = walk(config, spec, start, epochs)
        actions = [decision.action for decision in decisions]
        plan = forecast.repeating_plan(config, spec.optimizer, actions)
        acted = [d.epoch for d in decisions if d.action not in ("none", "rollback", "stop")]
        assert bool(plan) == bool(acted)
        # Where the run had more epochs to go, a plateau after them would end the shorter plan.
        if not decisions or decisions[-1].action != "stop":
            epochs = epochs[: max(acted, default=0)]
        if plan:
            _, again = walk(dataclasses.replace(config, plan=plan), spec, start, epochs)
            assert changes(again) == changes(decisions[: len(epochs)])

    @given(SCHEDULES, SPECS, RATES, EPOCHS)
    def test_the_update_noise_never_rises(self, config, spec, rate, epochs):
        config = dataclasses.replace(config, warmup_epochs=0)
        start = initial_state(config, spec, rate, 32)
        _, decisions = walk(config, spec, start, epochs)
        scales = [
            update_noise(rate, 32, spec),
            *(update_noise(d.learning_rate, d.batch_size, spec) for d in decisions),
        ]
        assert scales == sorted(scales, reverse=True)

    @given(SCHEDULES, SPECS, RATES, EPOCHS)
    def test_learning_rate_and_batch_stay_within_bounds(self, config, spec, rate, epochs):
        _, decisions = walk(config, spec, initial_state(config, spec, rate, 32), epochs)
        caps = [config.max_batch_size or spec.num_examples // 10, spec.num_examples]
        if spec.max_batch_size is not None:
            caps.append(spec.max_batch_size)
        for decision in decisions:
            assert config.min_learning_rate <= decision.learning_rate <= rate
            assert 32 <= decision.batch_size <= max(32, min(caps))

    @given(SCHEDULES, SPECS, RATES, EPOCHS)
    def test_actions_never_exceed_the_plan_and_none_is_a_phantom(self, config, spec, rate, epochs):
        states, decisions = walk(config, spec, initial_state(config, spec, rate, 32), epochs)
        taken = [d for d in decisions if d.action not in ("none", "rollback", "stop")]
        assert len(taken) == states[-1].actions_taken <= config.num_actions
        for before, after, decision in zip(states, states[1:], decisions, strict=False):
            changed = (before.learning_rate, before.batch_size) != (
                after.learning_rate,
                after.batch_size,
            )
            assert changed == (decision.action not in ("none", "stop"))

    @given(SCHEDULES, SPECS, RATES, EPOCHS)
    def test_each_action_drops_eps_to_the_p_over_batch_by_exactly_the_factor(
        self, config, spec, rate, epochs
    ):
        config = dataclasses.replace(config, plan=None)
        p = scaling_rule(spec.optimizer).exponent
        states, decisions = walk(config, spec, initial_state(config, spec, rate, 32), epochs)
        for before, after, decision in zip(states, states[1:], decisions, strict=False):
            if decision.action in ("none", "stop"):
                continue
            ratio = before.learning_rate / after.learning_rate
            dropped = ratio**p * (after.batch_size / before.batch_size)
            if after.learning_rate > config.min_learning_rate:
                assert dropped == pytest.approx(config.factor, rel=1e-12)
            else:
                assert dropped <= config.factor * (1 + 1e-12)

    @given(SCHEDULES, SPECS, RATES, st.lists(st.sampled_from([0.1, 0.2, 0.3]), max_size=40))
    def test_without_measurement_or_rollback_a_run_follows_its_forecast(
        self, config, spec, rate, metrics
    ):
        epochs = [(metric, 1.0, None, None) for metric in metrics]
        _, decisions = walk(config, spec, initial_state(config, spec, rate, 32), epochs)
        assert forecast.verify(forecast.stages(config, spec, rate, 32), changes(decisions)) == ()

    @given(SCHEDULES, SPECS, RATES, EPOCHS)
    def test_a_decision_says_why_and_a_stop_says_which_rule(self, config, spec, rate, epochs):
        states, decisions = walk(config, spec, initial_state(config, spec, rate, 32), epochs)
        for state, decision in zip(states[1:], decisions, strict=True):
            assert decision.reason
            assert (decision.action == "stop") == (decision.stop_reason is not None)
            assert state.stop_reason == decision.stop_reason


def test_the_state_of_a_checkpoint_of_version_0_1_is_read():
    text = """{"actions_taken": 1, "auto_choice": "batch", "batch_size": 256, "epoch": 12,
        "learning_rate": 0.05, "plateau": {"bad_evaluations": 1, "best": 0.75, "cooldown_left": 2,
        "ema": 0.5, "ema_weight": 0.25, "reference": 0.7, "window": [0.5, 0.7]},
        "rollbacks": 0, "stop_reason": null}"""
    state = ScheduleState.from_json(text)
    assert state.plateau == PlateauState(0.75, 0.7, 1, 2, (0.5, 0.7), 0.5, 0.25)
    assert state == ScheduleState(state.plateau, 12, 0.05, 256, 1, 0, "batch", None)
    assert json.loads(state.to_json()) == json.loads(text)
