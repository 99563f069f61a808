import itertools
import json
import math
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_module.schedule.plateau import (
    Observation,
    PlateauConfig,
    PlateauState,
    acted,
    observe,
)


def plateaus(config: PlateauConfig, metrics: Sequence[float | None]) -> list[int]:
    """Evaluations (from 1) that are plateaus, each acted on."""
    state, found = PlateauState(), []
    for number, metric in enumerate(metrics, start=1):
        state, seen = observe(config, state, metric)
        if seen.is_plateau:
            found.append(number)
            state = acted(config, state)
    return found


def last(config: PlateauConfig, metrics: Sequence[float | None]) -> Observation:
    state, seen = PlateauState(), None
    for metric in metrics:
        state, seen = observe(config, state, metric)
    assert seen is not None
    return seen


class TestConfig:
    @pytest.mark.parametrize("field", ["monitor", "mode", "patience", "min_delta"])
    def test_a_bad_value_is_named_with_its_remedy(self, field):
        bad = {"monitor": "", "mode": "auto", "patience": 0, "min_delta": math.nan}[field]
        with pytest.raises(ValueError, match=f"`{field}` must .*, got {bad!r}. Try `{field}="):
            PlateauConfig(**{field: bad})

    def test_refuses_a_loss_watched_the_wrong_way_round(self):
        with pytest.raises(ValueError, match="`mode=min`"):
            PlateauConfig(monitor="val_loss")

    def test_refuses_what_the_library_followed_does_not_have(self):
        with pytest.raises(ValueError, match="smoothing"):
            PlateauConfig(compatibility="torch", smoothing="ema")
        with pytest.raises(ValueError, match="min_delta_mode"):
            PlateauConfig(compatibility="keras", min_delta_mode="relative")


class TestSingleTransitions:
    def test_the_patience_th_bad_evaluation_is_the_plateau(self):
        config = PlateauConfig(patience=3)
        state = PlateauState(best=0.8, reference=0.8, bad_evaluations=1)
        state, seen = observe(config, state, 0.7)
        assert (seen.is_plateau, seen.bad_evaluations) == (False, 2)
        state, seen = observe(config, state, 0.7)
        assert (seen.is_plateau, seen.bad_evaluations) == (True, 3)

    def test_an_improvement_resets_patience(self):
        state = PlateauState(best=0.8, reference=0.8, bad_evaluations=2)
        state, seen = observe(PlateauConfig(patience=3), state, 0.81)
        assert seen == Observation(0.81, improved_best=True, improved=True)
        assert (state.best, state.reference, state.bad_evaluations) == (0.81, 0.81, 0)

    def test_a_tie_is_no_improvement(self):
        state = PlateauState(best=0.8, reference=0.8)
        _, seen = observe(PlateauConfig(), state, 0.8)
        assert not seen.improved
        assert not seen.improved_best
        assert seen.bad_evaluations == 1

    def test_min_mode_prefers_the_smaller(self):
        config = PlateauConfig(monitor="val_loss", mode="min")
        state = PlateauState(best=0.8, reference=0.8)
        assert observe(config, state, 0.7)[1].improved
        assert not observe(config, state, 0.9)[1].improved

    def test_a_missing_metric_changes_nothing(self):
        state = PlateauState(best=0.8, reference=0.8, bad_evaluations=4, cooldown_left=1)
        after, seen = observe(PlateauConfig(patience=5), state, None)
        assert after == state
        assert seen == Observation(bad_evaluations=4)

    def test_acting_restarts_patience_after_the_cooldown(self):
        state = PlateauState(best=0.8, reference=0.8, bad_evaluations=5)
        after = acted(PlateauConfig(cooldown=2), state)
        assert (after.bad_evaluations, after.cooldown_left, after.best) == (0, 2, 0.8)

    def test_an_improvement_during_cooldown_counts(self):
        state = PlateauState(best=0.8, reference=0.8, cooldown_left=2)
        state, seen = observe(PlateauConfig(cooldown=2), state, 0.9)
        assert seen.in_cooldown and seen.improved and seen.improved_best
        assert (state.best, state.reference, state.cooldown_left) == (0.9, 0.9, 1)

    def test_a_plateau_not_acted_on_is_a_plateau_again(self):
        config = PlateauConfig(patience=2)
        state = PlateauState(best=0.8, reference=0.8, bad_evaluations=1)
        state, first = observe(config, state, 0.7)
        _, second = observe(config, state, 0.7)
        assert first.is_plateau and second.is_plateau


class TestMinDelta:
    def test_a_small_gain_is_a_new_best_but_no_improvement(self):
        config = PlateauConfig(min_delta=0.01)
        state = PlateauState(best=0.8, reference=0.8)
        state, seen = observe(config, state, 0.805)
        assert seen.improved_best and not seen.improved
        assert (state.best, state.reference) == (0.805, 0.8)

    def test_small_gains_add_up_against_the_significant_best(self):
        config = PlateauConfig(min_delta=0.01, patience=3)
        assert plateaus(config, [0.800, 0.806, 0.812, 0.818, 0.824, 0.830]) == []

    def test_a_gain_of_exactly_min_delta_is_no_improvement(self):
        state = PlateauState(best=0.5, reference=0.5)
        assert not observe(PlateauConfig(min_delta=0.25), state, 0.75)[1].improved

    @pytest.mark.parametrize(
        ("mode", "reference", "enough", "too_little"),
        [
            ("max", 200.0, 221.0, 219.0),
            ("max", -200.0, -179.0, -181.0),
            ("min", 200.0, 179.0, 181.0),
            ("min", -200.0, -221.0, -219.0),
        ],
    )
    def test_relative_goes_by_the_magnitude_of_the_best(self, mode, reference, enough, too_little):
        config = PlateauConfig(monitor="score", mode=mode, min_delta=0.1, min_delta_mode="relative")
        state = PlateauState(best=reference, reference=reference)
        assert observe(config, state, enough)[1].improved
        assert not observe(config, state, too_little)[1].improved


class TestCooldown:
    @pytest.mark.parametrize("cooldown", [0, 1, 2, 7])
    @pytest.mark.parametrize("patience", [1, 2, 5])
    def test_skips_exactly_that_many_evaluations(self, patience, cooldown):
        config = PlateauConfig(patience=patience, cooldown=cooldown)
        first = 1 + patience
        assert plateaus(config, [0.5] * 40)[:2] == [first, first + cooldown + patience]

    def test_a_missing_metric_uses_none_of_it_up(self):
        config = PlateauConfig(patience=2, cooldown=2)
        # The evaluations that count: 1 best, 2 and 3 bad, then 4 and 5 skipped, 6 and 7 bad.
        metrics = [0.5, 0.5, 0.5, None, 0.5, None, 0.5, 0.5, None, 0.5]
        assert plateaus(config, metrics) == [3, 10]


class TestNotFinite:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("mode", ["max", "min"])
    @pytest.mark.parametrize("smoothing", ["none", "ema", "median"])
    def test_first_or_later_it_is_never_a_best(self, bad, mode, smoothing):
        config = PlateauConfig(mode=mode, smoothing=smoothing, smoothing_window=1)
        state, seen = observe(config, PlateauState(), bad)
        assert not seen.improved and not seen.improved_best
        assert seen.bad_evaluations == 1
        assert (state.best, state.reference) == (None, None)
        state, seen = observe(config, state, 0.5)
        assert seen.improved and seen.improved_best
        state, seen = observe(config, state, bad)
        assert not seen.improved and seen.bad_evaluations == 1
        assert (state.best, state.reference) == (0.5, 0.5)

    def test_a_run_of_them_is_a_plateau(self):
        assert plateaus(PlateauConfig(patience=3), [math.nan] * 7) == [3, 6]

    @pytest.mark.parametrize("compatibility", ["keras", "torch"])
    def test_the_true_best_stays_finite_under_the_rule_of_a_library(self, compatibility):
        config = PlateauConfig(mode="min", compatibility=compatibility)
        state = PlateauState()
        for metric in (math.nan, 2.0, -math.inf, 1.0):
            state, _ = observe(config, state, metric)
        assert state.best == 1.0


class TestSmoothing:
    def test_the_median_says_nothing_until_its_window_is_full(self):
        config = PlateauConfig(smoothing="median", smoothing_window=3, patience=1)
        state, first = observe(config, PlateauState(), 0.9)
        state, second = observe(config, state, 0.5)
        assert (first.value, second.value) == (None, None)
        assert first.improved_best and not first.improved
        assert second.bad_evaluations == 0
        _, third = observe(config, state, 0.6)
        assert third.value == 0.6 and third.improved

    def test_the_median_follows_the_latest_window(self):
        config = PlateauConfig(smoothing="median", smoothing_window=3)
        assert last(config, [0.1, 0.9, 0.2, 0.3]).value == 0.3

    def test_the_ema_weighs_by_age_over_its_time_constant(self):
        config = PlateauConfig(smoothing="ema", smoothing_window=2)
        weights = [math.exp(-age / 2) for age in (2, 1, 0)]
        expected = sum(w * x for w, x in zip(weights, (1.0, 2.0, 4.0), strict=True)) / sum(weights)
        assert last(config, [1.0, 2.0, 4.0]).value == pytest.approx(expected, rel=1e-14)

    def test_the_checkpoint_goes_by_the_raw_metric(self):
        config = PlateauConfig(smoothing="median", smoothing_window=3)
        seen = last(config, [0.1, 0.2, 0.3, 0.9])
        assert seen.improved_best
        assert seen.value == 0.3

    @pytest.mark.parametrize("patience", [2, 3])
    def test_the_median_removes_an_outlier(self, patience):
        # Patience 1 would act on the tie of two medians as the outlier leaves the window.
        config = PlateauConfig(patience=patience, smoothing="median")
        metrics = [0.50, 0.55, 0.90, 0.60, 0.64, 0.67, 0.70, 0.73, 0.76]
        assert plateaus(config, metrics) == []

    @given(
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["max", "min"]),
        st.integers(1, 200),
        st.integers(1, 8),
    )
    def test_the_ema_takes_a_flat_metric_for_flat(self, metric, mode, window, patience):
        config = PlateauConfig(
            mode=mode, patience=patience, smoothing="ema", smoothing_window=window
        )
        plain = PlateauConfig(mode=mode, patience=patience)
        assert last(config, [metric] * 30).value == metric
        assert plateaus(config, [metric] * 30) == plateaus(plain, [metric] * 30)

    @given(
        st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=10),
        st.floats(-1e6, 1e6),
        st.integers(1, 5),
    )
    def test_the_ema_never_passes_the_level_it_approaches(self, before, level, window):
        config, state = PlateauConfig(smoothing="ema", smoothing_window=window), PlateauState()
        values = []
        for metric in [*before, *[level] * 20]:
            state, seen = observe(config, state, metric)
            values.append(seen.value)
        approach = [*values[len(before) - 1 :], level]
        assert approach == sorted(approach, reverse=level < approach[0])


def third_plateau_of_noise(config: PlateauConfig, seed: int) -> tuple[int, int]:
    """The third plateau of a stationary noisy metric: ours, and that of the plain rule."""
    state = PlateauState()
    metrics = random.Random(seed)
    best, bad, ours, plain = -math.inf, 0, [], []
    for number in itertools.count(1):
        metric = metrics.random()
        state, seen = observe(config, state, metric)
        if seen.is_plateau:
            state = acted(config, state)
            ours.append(number)
        best, bad = (metric, 0) if metric > best else (best, bad + 1)
        if bad == config.patience:
            bad = 0
            plain.append(number)
        if len(ours) >= 3 and len(plain) >= 3:
            return ours[2], plain[2]
    raise AssertionError


def test_plateaus_of_a_noisy_stationary_metric_are_those_of_the_plain_rule():
    config = PlateauConfig(patience=3)
    pairs = [third_plateau_of_noise(config, seed) for seed in range(10_000)]
    assert [ours for ours, _ in pairs] == [plain for _, plain in pairs]


METRICS = st.lists(
    st.one_of(
        st.none(),
        st.floats(width=32),
        st.sampled_from([0.1, 0.2, 0.3, math.nan, math.inf, -math.inf]),
    ),
    max_size=30,
)
CONFIGS = st.one_of(
    st.builds(
        PlateauConfig,
        monitor=st.just("score"),
        mode=st.sampled_from(["max", "min"]),
        patience=st.integers(1, 5),
        min_delta=st.sampled_from([0.0, 0.01, 0.5]),
        min_delta_mode=st.sampled_from(["absolute", "relative"]),
        cooldown=st.integers(0, 4),
        smoothing=st.sampled_from(["none", "ema", "median"]),
        smoothing_window=st.integers(1, 4),
    ),
    st.builds(
        PlateauConfig,
        monitor=st.just("score"),
        mode=st.sampled_from(["max", "min"]),
        patience=st.integers(1, 5),
        min_delta=st.sampled_from([0.0, 0.01, 0.5]),
        cooldown=st.integers(0, 4),
        compatibility=st.sampled_from(["keras", "torch"]),
    ),
)


class TestProperties:
    @given(CONFIGS, METRICS)
    def test_the_true_best_is_the_best_finite_metric(self, config, metrics):
        state = PlateauState()
        for metric in metrics:
            state, _ = observe(config, state, metric)
        finite = [m for m in metrics if m is not None and math.isfinite(m)]
        pick = max if config.mode == "max" else min
        assert state.best == (pick(finite) if finite else None)

    @given(CONFIGS, METRICS)
    def test_two_plateaus_are_patience_and_cooldown_apart(self, config, metrics):
        found = plateaus(config, [m for m in metrics if m is not None])
        skipped = config.cooldown
        if config.compatibility == "keras":
            skipped = max(skipped - 1, 0)
        for first, second in pairwise(found):
            assert second - first >= config.patience + skipped

    @given(CONFIGS, METRICS)
    def test_only_the_rule_of_keras_ever_keeps_a_nan(self, config, metrics):
        state = PlateauState()
        for metric in metrics:
            state, _ = observe(config, state, metric)
        kept_nan = state.reference is not None and math.isnan(state.reference)
        assert not kept_nan or config.compatibility == "keras"

    @given(CONFIGS, METRICS)
    def test_the_state_survives_json_exactly(self, config, metrics):
        state = PlateauState()
        for metric in metrics:
            state, _ = observe(config, state, metric)
        fields = json.loads(json.dumps(state._asdict()))
        again = PlateauState(**{**fields, "window": tuple(fields["window"])})
        assert repr(again) == repr(state)
