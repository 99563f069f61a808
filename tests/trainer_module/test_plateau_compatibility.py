"""Our detection against the libraries' own: Keras as installed, PyTorch and Optax from traces."""

import json
import math
import os
import random
from pathlib import Path

import pytest

from trainer_module.schedule.plateau import PlateauConfig, PlateauState, acted, observe

TRACES = Path(__file__).parents[3] / "shared" / "data" / "plateau_traces.json"


def firings(config: PlateauConfig, metrics: list[float | None]) -> list[int]:
    """Evaluations (from 0) at which our detection says to act."""
    state, found = PlateauState(), []
    for index, metric in enumerate(metrics):
        state, seen = observe(config, state, metric)
        if seen.is_plateau:
            found.append(index)
            state = acted(config, state)
    return found


def learning_rates(fired: list[int], length: int, factor: float, floor: float) -> list[float]:
    """The rate after each evaluation, from 1.0, cut at each firing down to a floor."""
    rate, rates = 1.0, []
    for index in range(length):
        if index in fired:
            rate = max(rate * factor, floor)
        rates.append(rate)
    return rates


def random_metrics(rng: random.Random, length: int) -> list[float | None]:
    """A walk with ties, tiny steps, missing values, and values that are not finite."""
    value, metrics = rng.uniform(-1, 1), []
    for _ in range(length):
        kind = rng.random()
        if kind < 0.35:
            value += rng.uniform(-0.2, 0.2)
        elif kind < 0.5:
            value += rng.choice([-1, 1]) * 1e-9
        odd = rng.random()
        if odd < 0.03:
            metrics.append(math.nan)
        elif odd < 0.05:
            metrics.append(rng.choice([math.inf, -math.inf]))
        elif odd < 0.1:
            metrics.append(None)
        else:
            metrics.append(value)
    return metrics


@pytest.fixture(scope="module")
def keras():
    os.environ["TF_USE_LEGACY_KERAS"] = "0"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("keras", minversion="3")


def keras_firings(keras, config: PlateauConfig, metrics: list[float | None]) -> list[int]:
    """Evaluations (from 0) at which Keras's own callback cuts the learning rate."""
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    # 0.999 ** 60 stays far from the float32 resolution: every cut shows.
    model.compile(keras.optimizers.SGD(1.0))
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor=config.monitor,
        mode=config.mode,
        factor=0.999,
        patience=config.patience,
        min_delta=config.min_delta,
        cooldown=config.cooldown,
        min_lr=0.0,
    )
    callback.set_model(model)
    callback.on_train_begin()
    found, rate = [], 1.0
    for index, metric in enumerate(metrics):
        callback.on_epoch_end(index, {} if metric is None else {config.monitor: metric})
        now = float(model.optimizer.learning_rate)
        if now != rate:
            found.append(index)
        rate = now
    return found


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("min_delta", [0.0, 1e-4, 0.05])
@pytest.mark.parametrize("cooldown", [0, 1, 2, 5])
def test_keras_fires_where_keras_does(keras, mode, min_delta, cooldown):
    fired = 0
    for seed in range(4):
        rng = random.Random(f"{mode} {min_delta} {cooldown} {seed}")
        config = PlateauConfig(
            monitor="score",
            mode=mode,
            patience=rng.randint(1, 4),
            min_delta=min_delta,
            cooldown=cooldown,
            compatibility="keras",
        )
        metrics = random_metrics(rng, 40)
        expected = keras_firings(keras, config, metrics)
        assert firings(config, metrics) == expected, (config, metrics)
        fired += len(expected)
    assert fired > 0


@pytest.mark.parametrize("first", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_keras_keeps_a_first_value_that_is_not_finite(keras, first, mode):
    config = PlateauConfig(monitor="score", mode=mode, patience=2, compatibility="keras")
    metrics = [first, 0.3, 0.2, 0.4, 0.1, 0.5]
    assert firings(config, metrics) == keras_firings(keras, config, metrics)


def test_keras_compares_in_float32(keras):
    config = PlateauConfig(monitor="score", patience=1, compatibility="keras")
    metrics = [0.5, 0.5 + 1e-12]  # a tie in float32, an improvement in float64
    assert keras_firings(keras, config, metrics) == [1]
    assert firings(config, metrics) == [1]


@pytest.mark.parametrize(
    ("compatibility", "expected"),
    [
        ("plateau", [(3, 5), (3, 6), (3, 7)]),
        ("keras", [(3, 5), (3, 5), (3, 6)]),
        ("torch", [(4, 7), (4, 8), (4, 9)]),
    ],
)
def test_first_two_firings_on_a_flat_metric(compatibility, expected):
    for cooldown, pair in enumerate(expected):
        config = PlateauConfig(patience=2, cooldown=cooldown, compatibility=compatibility)
        fired = firings(config, [0.5] * 12)
        assert (fired[0] + 1, fired[1] + 1) == pair


def test_torch_with_patience_zero_acts_on_the_first_bad_evaluation():
    config = PlateauConfig(patience=0, compatibility="torch")
    assert firings(config, [0.1, 0.2, 0.2, 0.3, 0.1, 0.1]) == [2, 4, 5]
    for compatibility in ("plateau", "keras"):
        with pytest.raises(ValueError, match="`patience` must be at least 1"):
            PlateauConfig(patience=0, compatibility=compatibility)


def trace_cases(library: str) -> list[object]:
    if not TRACES.exists():
        reason = "no recorded traces at ../shared/data/plateau_traces.json"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    cases = [c for c in json.loads(TRACES.read_text())["cases"] if c["library"] == library]
    return [pytest.param(c, id=f"{number}-{c['kind']}") for number, c in enumerate(cases)]


def trace_metrics(case) -> list[float | None]:
    return [math.nan if m is None else m for m in case["metric"]]


@pytest.mark.parametrize("case", trace_cases("torch"))
def test_torch_fires_where_pytorch_did(case):
    asked = case["parameters"]
    config = PlateauConfig(
        monitor="score",
        mode=asked["mode"],
        patience=asked["patience"],
        min_delta=asked["threshold"],
        min_delta_mode={"rel": "relative", "abs": "absolute"}[asked["threshold_mode"]],
        cooldown=asked["cooldown"],
        compatibility="torch",
    )
    metrics = trace_metrics(case)
    fired = firings(config, metrics)
    ours = learning_rates(fired, len(metrics), asked["factor"], asked["min_lr"])
    assert ours == pytest.approx(case["learning_rate"], rel=1e-12)


@pytest.mark.parametrize("case", trace_cases("optax"))
def test_our_own_rule_is_that_of_optax(case):
    # Optax minimises, skips exactly `cooldown` evaluations, and computes in float32.
    asked, metrics = case["parameters"], trace_metrics(case)
    assert asked["rtol"] == 0 or asked["atol"] == 0
    config = PlateauConfig(
        monitor="score",
        mode="min",
        patience=asked["patience"],
        min_delta=asked["rtol"] or asked["atol"],
        min_delta_mode="relative" if asked["rtol"] else "absolute",
        cooldown=asked["cooldown"],
    )
    fired = firings(config, metrics)
    if asked["rtol"] and case["kind"] == "negative":
        # Optax asks for less than (1 - rtol) * best, which a negative best itself fulfils: there
        # it takes every tie for an improvement and never acts. We go by the best's magnitude.
        assert set(case["learning_rate"]) == {1.0}
        assert fired != []
        return
    ours = learning_rates(fired, len(metrics), asked["factor"], asked["min_scale"])
    assert ours == pytest.approx(case["learning_rate"], rel=1e-5)
