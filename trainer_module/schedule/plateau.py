"""Plateau detection: patience, cooldown and smoothing of a monitored metric.

An evaluation improves when it beats the last significant best by more than `min_delta`; a tie does
not. The `patience`-th evaluation in a row that does not is a plateau. Two bests are kept: the
significant one drives patience, the true one (any finite value better than all before, raw) says
which epoch is worth a checkpoint.

First two plateaus of a flat metric, patience 2, cooldown 0 / 1 / 2, for each rule followed:

    plateau 3,5 / 3,6 / 3,7     keras 3,5 / 3,5 / 3,6     torch 4,7 / 4,8 / 4,9
"""

import math
import re
from ctypes import c_float
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge

from trainer_module.util.checks import check_fields, require

_SMALLER_IS_BETTER = re.compile("loss|error|crossentropy|(^|_)r?(mse|mae|mape|msle)(_|$)")


@dataclass(frozen=True)
class PlateauConfig:
    """When the monitored metric has reached a plateau."""

    monitor: str = "val_accuracy"
    """Metric that steers the schedule, as the loop names it (val_accuracy, val_loss)."""
    mode: Literal["max", "min"] = "max"
    """Whether a larger (max) or a smaller (min) value of the monitor is better."""
    patience: Annotated[int, Ge(0)] = 5
    """Evaluations in a row without improvement after which the schedule acts; under the rule of
    PyTorch it acts on the one after them, so that 0 is possible."""
    min_delta: Annotated[float, Ge(0)] = 0.0
    """By how much a value must beat the best to count as an improvement."""
    min_delta_mode: Literal["absolute", "relative"] = "absolute"
    """Unit of min_delta: absolute, or relative to the magnitude of the best."""
    cooldown: Annotated[int, Ge(0)] = 0
    """Evaluations to skip after an action before counting again."""
    smoothing: Literal["none", "ema", "median"] = "none"
    """Filter applied to the metric before it is judged. The median ignores single outliers. The ema
    approaches a new level ever more slowly, so min_delta should be above 0 with it."""
    smoothing_window: Annotated[int, Ge(1)] = 3
    """Evaluations the filter spans (median), or its time constant (ema)."""
    compatibility: Literal["plateau", "keras", "torch"] = "plateau"
    """Rule to follow: plateau, or exactly that of Keras or PyTorch."""

    def __post_init__(self) -> None:
        """Checks ranges, and that the rule of a library gets only what the library has."""
        check_fields(self)
        require(
            bool(self.monitor),
            "`monitor` must name a metric",
            self.monitor,
            "Try `monitor=val_accuracy`.",
        )
        # The default mode suits an accuracy; a loss maximised by mistake would train on silently
        # until it is worst.
        require(
            self.mode == "min" or not _SMALLER_IS_BETTER.search(self.monitor),
            f"`mode` must be min where the monitor is a loss or an error ({self.monitor})",
            self.mode,
            "Add `mode=min`.",
        )
        require(
            self.patience >= 1 or self.compatibility == "torch",
            "`patience` must be at least 1",
            self.patience,
            "Try `patience=5`.",
        )
        require(
            self.compatibility == "plateau" or self.smoothing == "none",
            f"`smoothing` must be none under the rule of {self.compatibility}",
            self.smoothing,
            "Leave out `smoothing`, or set `compatibility=plateau`.",
        )
        require(
            self.compatibility != "keras" or self.min_delta_mode == "absolute",
            "`min_delta_mode` must be absolute under the rule of keras",
            self.min_delta_mode,
            "Leave out `min_delta_mode`.",
        )


class PlateauState(NamedTuple):
    """State of plateau detection between evaluations, before the first one by default.

    Attributes:
        best: True best: the best finite raw metric so far.
        reference: Significant best of the filtered metric, which a value must beat. NaN only under
            the rule of Keras, where a first NaN stays the best for ever.
        bad_evaluations: Evaluations in a row without improvement.
        cooldown_left: What is left of the cooldown, in evaluations.
        window: Latest finite metrics, oldest first (median).
        ema: Exponentially weighted mean of the finite metrics (ema).
        ema_weight: Sum of its weights, below 1 while the filter is young (ema).
    """

    best: float | None = None
    reference: float | None = None
    bad_evaluations: int = 0
    cooldown_left: int = 0
    window: tuple[float, ...] = ()
    ema: float = 0.0
    ema_weight: float = 0.0


class Observation(NamedTuple):
    """Result of one evaluation.

    Attributes:
        value: Metric after filtering; None if missing, not finite, or the window is not yet full.
        improved_best: Whether the raw metric is the true best, worth a checkpoint.
        improved: Whether it is a significant improvement, which resets patience.
        is_plateau: Whether patience has run out.
        bad_evaluations: Evaluations in a row without improvement, this one included.
        in_cooldown: Whether this evaluation was skipped for the cooldown.
        in_warmup: Whether this evaluation was skipped for the warm-up.
    """

    value: float | None = None
    improved_best: bool = False
    improved: bool = False
    is_plateau: bool = False
    bad_evaluations: int = 0
    in_cooldown: bool = False
    in_warmup: bool = False


def observe(
    config: PlateauConfig, state: PlateauState, metric: float | None, *, in_warmup: bool = False
) -> tuple[PlateauState, Observation]:
    """Takes in one evaluation.

    Args:
        config: When a metric has reached a plateau.
        state: State after the evaluation before.
        metric: Raw value of the monitor. None (not measured) is no evaluation at all: it neither
            counts against patience nor uses up cooldown. NaN and infinities never become a best
            and count as evaluations without improvement.
        in_warmup: Whether the learning rate is still rising: the evaluation then counts for the
            best, but not against patience.

    Returns:
        The next state and the result. Call `acted` on that state if the plateau is acted on;
        otherwise the next evaluation without improvement is a plateau again.
    """
    if metric is None:
        return state, Observation(bad_evaluations=state.bad_evaluations, in_warmup=in_warmup)
    finite = math.isfinite(metric)
    improved_best = finite and (state.best is None or _better(config, metric, state.best))
    # Keras's cooldown of N skips N - 1 evaluations, since it counts down before it looks.
    in_cooldown = state.cooldown_left > (1 if config.compatibility == "keras" else 0)
    state, value = _filter(config, state, metric)
    judged = value if value is not None or finite else metric

    improved = judged is not None and _significant(config, judged, state.reference)
    skipped = in_cooldown or in_warmup
    bad = 0 if improved or skipped else state.bad_evaluations + (judged is not None)
    # PyTorch tolerates `patience` evaluations and acts on the one after them.
    is_plateau = bad >= config.patience + (config.compatibility == "torch")
    state = state._replace(
        best=metric if improved_best else state.best,
        reference=judged if improved else state.reference,
        bad_evaluations=bad,
        cooldown_left=max(state.cooldown_left - 1, 0),
    )
    return state, Observation(
        value, improved_best, improved, is_plateau, bad, in_cooldown, in_warmup
    )


def acted(config: PlateauConfig, state: PlateauState) -> PlateauState:
    """Returns the state after an action: patience starts again, after the cooldown."""
    return state._replace(bad_evaluations=0, cooldown_left=config.cooldown)


def describe(
    config: PlateauConfig, observation: Observation, metric: float | None, nonfinite: str
) -> str:
    """Returns an observation in words; nonfinite names the values that were not finite, if any."""
    bad = observation.bad_evaluations
    if observation.is_plateau:
        return f"no better {config.monitor} for {bad} epoch{'s' * (bad != 1)}"
    if nonfinite:
        skipped = observation.in_warmup
        counted = "in the warm-up" if skipped else "counted as an epoch without improvement"
        return f"{nonfinite}, {counted}"
    if metric is None:
        return f"no {config.monitor} this epoch"
    value = f"{config.monitor} {metric:.6g}"
    if observation.improved_best:
        return f"{value}, the best so far"
    if observation.in_warmup:
        return f"{value}, in the warm-up"
    if observation.in_cooldown:
        return f"{value}, in the cooldown after an action"
    if observation.improved:
        return f"{value}, improving"
    if observation.value is None:
        return f"{value}, too early for the {config.smoothing} filter"
    return f"no better {config.monitor} for {bad} of {config.patience} epochs"


def _better(config: PlateauConfig, value: float, other: float) -> bool:
    return value > other if config.mode == "max" else value < other


def _significant(config: PlateauConfig, value: float, reference: float | None) -> bool:
    """Returns whether value beats reference by more than min_delta, under the rule followed."""
    delta = config.min_delta if config.mode == "max" else -config.min_delta
    if config.compatibility == "keras":
        # Keras compares tensors, which hold float32; its first value is taken whatever it is.
        return reference is None or _better(
            config, c_float(value - delta).value, c_float(reference).value
        )
    if config.compatibility == "torch":
        if reference is None:
            reference = -math.inf if config.mode == "max" else math.inf
        relative = config.min_delta_mode == "relative"
        return _better(config, value, reference * (1 + delta) if relative else reference + delta)
    if not math.isfinite(value):
        return False
    if reference is None:
        return True
    margin = delta * abs(reference) if config.min_delta_mode == "relative" else delta
    return _better(config, value, reference + margin)


def _filter(
    config: PlateauConfig, state: PlateauState, metric: float
) -> tuple[PlateauState, float | None]:
    """Returns the state with metric in the filter, and the filtered value.

    The median says nothing until its window is full: of fewer values, a spike could be the median.
    The ema of time constant n weighs a value of age t by exp(-t/n), divided by the sum of weights
    so that the first values are not drawn towards zero (as in Adam, Kingma and Ba 2015). It is
    updated by its difference to the metric, so that rounding never moves it off a flat metric.
    """
    if not math.isfinite(metric):
        return state, None
    if config.smoothing == "median":
        window = (*state.window, metric)[-config.smoothing_window :]
        full = len(window) == config.smoothing_window
        return state._replace(window=window), median(window) if full else None
    if config.smoothing == "ema":
        decay = math.exp(-1 / config.smoothing_window)
        weight = decay * state.ema_weight + (1 - decay)
        value = state.ema + (1 - decay) / weight * (metric - state.ema)
        return state._replace(ema=value, ema_weight=weight), value
    return state, metric
