"""Plateau schedule: decays the learning rate or grows the batch at each plateau, then stops.

Pure: no TensorFlow, no I/O, no clock. The loop calls `step` once after each epoch's evaluation and
does what the decision says. Each plateau lowers the update noise by `factor` (scaling.py); the
strategy or plan says whether the learning rate or the batch carries the drop (strategy.py). One
rule stops: the plateau after the last action, or the first one at which nothing can change any
more, or the end of the epochs or of the time allowed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Interval

from trainer_module.schedule import plateau
from trainer_module.schedule.plateau import Observation, PlateauConfig, PlateauState
from trainer_module.schedule.scaling import TrainingSpec, scaling_rule
from trainer_module.schedule.state import Decision, Restore, ScheduleState, StopReason
from trainer_module.schedule.strategy import (
    STRATEGIES,
    Action,
    Change,
    Limits,
    StrategyName,
    apply_change,
    make_change,
    parse_plan,
)
from trainer_module.util.checks import UserError, check_fields, require

MAX_ROLLBACKS = 3
"""Rollbacks in a row before the run is given up: at factor 4, a learning rate 64 times smaller."""

HYSTERESIS = 1.5
"""How far the simple noise scale must be on the other side of the batch for auto to change its
choice."""

MIN_THROUGHPUT_GAIN = 1.2
"""Examples per second at the larger batch, over those at the present one, from which auto grows the
batch: a smaller gain is within the noise of a short measurement."""


class NonFiniteError(UserError):
    """Loss or metric is NaN or infinite and `on_nonfinite` is raise."""


@dataclass(frozen=True)
class ScheduleConfig:
    """What to do at each plateau, and when to stop."""

    plateau: PlateauConfig = field(default_factory=PlateauConfig)
    """When the metric has reached a plateau."""
    strategy: StrategyName = "hybrid"
    """Which of learning rate and batch carries the drop of the update noise."""
    plan: str | None = None
    """One action for each plateau, such as "batch*5, lr/5, lr/5"; overrides the strategy."""
    factor: Annotated[float, Gt(1)] = 4.0
    """How many times smaller the update noise becomes at each plateau, above 1. Keras's
    ReduceLROnPlateau multiplies the learning rate by its factor, below 1: with SGD and lr_decay,
    its factor is 1 / this one."""
    actions: Annotated[int, Ge(0)] = 2
    """Plateaus to act on; the plateau after the last one stops the run."""
    max_batch_size: Annotated[int | None, Ge(1)] = None
    """Global batch size never exceeded; a tenth of the examples if not given."""
    min_learning_rate: Annotated[float, Ge(0)] = 1e-6
    """Learning rate never gone below."""
    restore: Restore = "none"
    """What to take back from the best epoch when acting on a plateau."""
    on_nonfinite: Literal["raise", "bad_epoch", "rollback_and_reduce"] = "raise"
    """What to do when loss or metric is NaN or infinite."""
    warmup_epochs: Annotated[int, Ge(0)] = 0
    """Epochs in which the learning rate rises linearly, before the first plateau is looked for.
    Their evaluations count for the best, but not against patience."""
    warmup_fraction: Annotated[float, Interval(gt=0, le=1)] = 0.1
    """Share of the learning rate that the first epoch of the warm-up has."""
    max_epochs: Annotated[int, Ge(1)] = 100
    """Epochs after which the run stops whatever the metric does."""
    time_budget: Annotated[float | None, Gt(0)] = None
    """Seconds of training after which the run stops; no limit if not given."""

    def __post_init__(self) -> None:
        """Checks ranges, and that the plan can be read."""
        check_fields(self)
        require(
            self.warmup_epochs < self.max_epochs,
            f"`warmup_epochs` must be below `max_epochs` ({self.max_epochs})",
            self.warmup_epochs,
            "Lower `warmup_epochs`, or raise `max_epochs`.",
        )
        if self.plan is not None:
            parse_plan(self.plan)

    @property
    def num_actions(self) -> int:
        """Plateaus acted on: the length of the plan where there is one, else `actions`."""
        return self.actions if self.plan is None else len(parse_plan(self.plan))

    @property
    def is_measured(self) -> bool:
        """Whether measurements decide what a plateau changes."""
        return self.plan is None and STRATEGIES[self.strategy].is_measured


def initial_state(
    config: ScheduleConfig, spec: TrainingSpec, learning_rate: float, batch_size: int
) -> ScheduleState:
    """Returns the state before the first epoch.

    Raises:
        UserError: Learning rate or batch size out of its bounds.
    """
    require(
        config.min_learning_rate <= learning_rate < math.inf and learning_rate > 0,
        f"`learning_rate` must be finite, above 0 and at least `min_learning_rate`"
        f" ({config.min_learning_rate:g})",
        learning_rate,
        "Raise `learning_rate`, or lower `min_learning_rate`.",
    )
    require(batch_size >= 1, "`batch_size` must be at least 1", batch_size, "Raise `batch_size`.")
    for name, limit in (
        ("the number of training examples", spec.num_examples),
        ("`max_batch_size`", config.max_batch_size),
        ("what fits in memory", spec.max_batch_size),
    ):
        require(
            limit is None or batch_size <= limit,
            f"`batch_size` must be at most {name} ({limit})",
            batch_size,
            "Lower `batch_size`.",
        )
    return ScheduleState(PlateauState(), 0, float(learning_rate), batch_size)


def step(
    config: ScheduleConfig,
    spec: TrainingSpec,
    state: ScheduleState,
    *,
    metric: float | None,
    loss: float | None,
    elapsed_seconds: float,
    simple_noise_scale: float | None = None,
    throughput_gain: float | None = None,
) -> tuple[ScheduleState, Decision]:
    """Decides what to do after an epoch.

    A decision of strategy auto to grow the batch is taken again with the throughput gain of that
    batch, which costs too much to measure after every epoch.

    Args:
        config: What to do at a plateau, and the stop rule.
        spec: What is trained.
        state: State after the epoch before.
        metric: Monitored metric of this epoch's evaluation; None if there was none.
        loss: Training loss of this epoch; None if unknown.
        elapsed_seconds: Training time of the whole run so far, resumed parts included.
        simple_noise_scale: B_simple in examples (McCandlish et al. 2018, arXiv:1812.06162), for
            strategy auto; None if not measured, infinity where noise hides the signal.
        throughput_gain: Examples per second at the batch that auto would grow to, over those at
            the present one, 0 if it does not fit in memory; None if not measured.

    Returns:
        The state to save and the decision to carry out.

    Raises:
        NonFiniteError: Loss or metric is NaN or infinite and on_nonfinite is raise.
        UserError: The schedule had already stopped.
    """
    require(
        state.stop_reason is None,
        "a schedule that has stopped takes no further step",
        state.stop_reason,
        "Start a new run to train on.",
    )
    state = state._replace(epoch=state.epoch + 1)
    nonfinite = _nonfinite({"loss": loss, config.plateau.monitor: metric})
    if nonfinite and config.on_nonfinite == "raise":
        raise NonFiniteError(
            f"loss and metric must be finite (epoch {state.epoch})",
            nonfinite,
            "Lower `learning_rate`, or try `on_nonfinite=rollback_and_reduce`.",
        )
    limit = _limit(config, state, elapsed_seconds)
    if nonfinite and config.on_nonfinite == "rollback_and_reduce":
        outcome = _roll_back(config, spec, state, nonfinite, limit)
    else:
        # A loss that is not finite voids the metric; a metric that is not is judged as it is.
        void = nonfinite and (metric is None or math.isfinite(metric))
        detection, observation = plateau.observe(
            config.plateau,
            state.plateau,
            math.nan if void else metric,
            in_warmup=state.epoch <= config.warmup_epochs,
        )
        state = state._replace(plateau=detection, rollbacks=0)
        reason = plateau.describe(config.plateau, observation, metric, nonfinite)
        measured = Measured(simple_noise_scale, throughput_gain)
        outcome = _act(config, spec, state, observation, reason, limit, measured)
    after = outcome.state
    return after, Decision(
        epoch=after.epoch,
        action=outcome.action,
        learning_rate=next_learning_rate(config, after),
        batch_size=after.batch_size,
        reason=outcome.reason,
        observation=outcome.observation,
        restore=outcome.restore,
        stop_reason=after.stop_reason,
    )


def next_learning_rate(config: ScheduleConfig, state: ScheduleState) -> float:
    """Returns the learning rate of the next epoch.

    In the warm-up, epoch i of n has f + (1 - f) (i - 1) / n of the learning rate, f being
    warmup_fraction; the floor holds then too.
    """
    if state.epoch >= config.warmup_epochs:
        return state.learning_rate
    f = config.warmup_fraction
    share = f + (1 - f) * state.epoch / config.warmup_epochs
    return max(share * state.learning_rate, min(config.min_learning_rate, state.learning_rate))


class Measured(NamedTuple):
    """Measurements that strategy auto decides by; None for what was not measured."""

    simple_noise_scale: float | None = None
    throughput_gain: float | None = None


_UNMEASURED = Measured()


def advance(
    config: ScheduleConfig,
    spec: TrainingSpec,
    state: ScheduleState,
    measured: Measured = _UNMEASURED,
) -> ScheduleState:
    """Returns the state after the next action."""
    grows = STRATEGIES[config.strategy].grows_batch(state.actions_taken)
    scale, gain = measured
    if config.is_measured and scale is not None and scale >= 0:
        grows = _noise_dominates(state, scale)
        state = state._replace(auto_choice="batch" if grows else "learning_rate")
    if config.is_measured and gain is not None:
        # Both lower the noise alike; without a gain of time, the smaller batch makes more updates.
        grows = grows and gain >= MIN_THROUGHPUT_GAIN
    change = parse_plan(config.plan)[state.actions_taken] if config.plan is not None else None
    learning_rate, batch_size = _apply(config, spec, state, grows, change)
    return state._replace(
        learning_rate=learning_rate, batch_size=batch_size, actions_taken=state.actions_taken + 1
    )


def _apply(
    config: ScheduleConfig,
    spec: TrainingSpec,
    state: ScheduleState,
    grows_batch: bool,
    change: Change | None = None,
) -> tuple[float, int]:
    """Returns learning rate and batch size after a change, by default the strategy's."""
    exponent = scaling_rule(spec.optimizer).exponent
    # Beyond a tenth of the examples N / B - 1 is no longer close to N / B (Smith et al. 2018).
    cap = config.max_batch_size or max(spec.num_examples // 10, 1)
    largest = min(cap, spec.max_batch_size or cap, spec.num_examples)
    return apply_change(
        change or make_change(grows_batch, config.factor, exponent),
        state.learning_rate,
        state.batch_size,
        exponent,
        Limits(largest, config.min_learning_rate),
    )


def _noise_dominates(state: ScheduleState, simple_noise_scale: float) -> bool:
    """Returns whether a bigger batch would still buy a better gradient.

    Below B_simple the gradient is mostly noise and a bigger batch is nearly free; above it, it is
    nearly wasted (McCandlish et al. 2018). Once a side is chosen the measurement, itself noisy,
    has to cross by HYSTERESIS to change it.
    """
    lean = {None: 1.0, "batch": 1 / HYSTERESIS, "learning_rate": HYSTERESIS}[state.auto_choice]
    return simple_noise_scale > state.batch_size * lean


def _limit(
    config: ScheduleConfig, state: ScheduleState, elapsed_seconds: float
) -> tuple[StopReason, str] | None:
    """Returns why the run must end after this epoch whatever the metric does, if it must."""
    if state.epoch >= config.max_epochs:
        return "max_epochs", f"{state.epoch} epochs done, as many as allowed"
    if config.time_budget is not None and elapsed_seconds >= config.time_budget:
        return "time_budget", f"the time budget of {config.time_budget:g} s is used up"
    return None


class _Outcome(NamedTuple):
    state: ScheduleState
    action: Action
    reason: str
    observation: Observation
    restore: Restore = "none"


def _stop(state: ScheduleState, code: StopReason, reason: str, *more: Any) -> _Outcome:
    return _Outcome(state._replace(stop_reason=code), "stop", reason, *more)


def _act(
    config: ScheduleConfig,
    spec: TrainingSpec,
    state: ScheduleState,
    observation: Observation,
    reason: str,
    limit: tuple[StopReason, str] | None,
    measured: Measured,
) -> _Outcome:
    """Acts on a plateau, or stops."""
    if observation.is_plateau and state.actions_taken >= config.num_actions:
        reason += f", after {state.actions_taken} of {config.num_actions} actions"
        return _stop(state, "plateau", reason, observation)
    if limit is not None:
        return _stop(state, *limit, observation)
    if not observation.is_plateau:
        return _Outcome(state, "none", reason, observation)
    after = advance(config, spec, state, measured)
    action = action_between(state, after)
    if action == "none":
        reason += "; learning rate and batch are at their limits"
        return _stop(state, "exhausted", reason, observation)
    after = after._replace(plateau=plateau.acted(config.plateau, after.plateau))
    reason += f"; {_describe_change(state, after)}"
    gain = measured.throughput_gain
    if config.is_measured and gain is not None:
        speed = f"{gain:.2f} times the examples/s in the larger batch"
        reason += f" ({speed if gain else 'the larger batch does not fit in memory'})"
    return _Outcome(after, action, reason, observation, config.restore)


def _roll_back(
    config: ScheduleConfig,
    spec: TrainingSpec,
    state: ScheduleState,
    nonfinite: str,
    limit: tuple[StopReason, str] | None,
) -> _Outcome:
    """Returns to the best weights with a smaller learning rate; the evaluation is void."""
    void = Observation(bad_evaluations=state.plateau.bad_evaluations)
    learning_rate, _ = _apply(config, spec, state, grows_batch=False)
    if limit is None and state.rollbacks >= MAX_ROLLBACKS:
        limit = "nonfinite", f"{nonfinite} again after {MAX_ROLLBACKS} rollbacks in a row"
    if limit is None and learning_rate == state.learning_rate:
        limit = "nonfinite", f"{nonfinite}, with the learning rate already at its floor"
    if limit is not None:
        return _stop(state, *limit, void, "weights_and_slots")
    after = state._replace(
        plateau=plateau.acted(config.plateau, state.plateau),
        learning_rate=learning_rate,
        rollbacks=state.rollbacks + 1,
    )
    reason = f"{nonfinite}; back to the best weights, {_describe_change(state, after)}"
    return _Outcome(after, "rollback", reason, void, "weights_and_slots")


def action_between(before: ScheduleState, after: ScheduleState) -> Action:
    """Returns the action that leads from a state to the next."""
    grew = after.batch_size > before.batch_size
    decayed = after.learning_rate < before.learning_rate
    if grew and decayed:
        return "batch_increase_and_lr_decay"
    return "batch_increase" if grew else "lr_decay" if decayed else "none"


def _describe_change(before: ScheduleState, after: ScheduleState) -> str:
    """Returns what changed, as in "batch 64 -> 256, learning rate 0.05 -> 0.025"."""
    changes = []
    if after.batch_size != before.batch_size:
        changes.append(f"batch {before.batch_size} -> {after.batch_size}")
    if after.learning_rate != before.learning_rate:
        changes.append(f"learning rate {before.learning_rate:.6g} -> {after.learning_rate:.6g}")
    return ", ".join(changes)


def _nonfinite(values: Mapping[str, float | None]) -> str:
    """Returns which values are not finite, as in "loss nan and val_loss inf"."""
    return " and ".join(
        f"{name} {value}"
        for name, value in values.items()
        if value is not None and not math.isfinite(value)
    )
