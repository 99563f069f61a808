"""What to do at a stall: decay the learning rate, grow the batch, or both, until nothing helps.

Pure: no TensorFlow, no I/O, no clock. The loop calls `step` once after each epoch's evaluation and
does what the decision says. Each stall lowers the noise scale by `factor` (see scaling.py for what
that means and where it comes from); the strategy or plan says whether the learning rate or the
batch carries the drop (plan.py). One rule stops: the stall after the last action, or the first one
at which nothing can change any more, or the end of the epochs or of the time allowed.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from trainer_module.schedule import plateau
from trainer_module.schedule.decision import (
    Action,
    Decision,
    Restore,
    ScheduleState,
    Stage,
    StopReason,
    describe_change,
    describe_observation,
    name_action,
    nonfinite,
    state_from_json,
    state_to_json,
    verify,
)
from trainer_module.schedule.plan import (
    Limits,
    Split,
    apply_split,
    decay_split,
    parse_plan,
    strategy_plan,
)
from trainer_module.schedule.plateau import Observation, PlateauConfig
from trainer_module.schedule.scaling import Problem, check_problem, noise_scale, update_rule
from trainer_module.util.checks import check_fields, require

__all__ = [
    "HYSTERESIS",
    "MAX_ROLLBACKS",
    "Action",
    "Decision",
    "NonFiniteError",
    "Problem",
    "Restore",
    "ScheduleConfig",
    "ScheduleState",
    "Stage",
    "StopReason",
    "forecast",
    "initial_state",
    "next_learning_rate",
    "noise_scale",
    "state_from_json",
    "state_to_json",
    "step",
    "update_rule",
    "verify",
]

MAX_ROLLBACKS = 3
"""Rollbacks in a row before the run is given up: at factor 4, a learning rate 64 times smaller."""

HYSTERESIS = 1.5
"""How far the gradient noise must be on the other side of the batch for auto to change its mind."""


class NonFiniteError(ValueError):
    """Loss or metric is NaN or infinite and the schedule was told to raise."""


@dataclass(frozen=True)
class ScheduleConfig:
    """What to do at each plateau, and when to stop."""

    plateau: PlateauConfig = field(default_factory=PlateauConfig)
    """When the metric has reached a plateau."""
    strategy: Literal["lr_decay", "batch_increase", "hybrid", "auto"] = "hybrid"
    """Which of learning rate and batch carries the drop of the noise scale."""
    plan: str | None = None
    """One action for each plateau, such as "batch*5, lr/5, lr/5"; overrides the strategy."""
    factor: Annotated[float, Gt(1)] = 4.0
    """How many times smaller the noise scale becomes at each plateau, above 1. Keras's
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
        """Stalls acted on: the length of the plan where there is one, else `actions`."""
        return self.actions if self.plan is None else len(parse_plan(self.plan))


def initial_state(
    config: ScheduleConfig, problem: Problem, learning_rate: float, batch_size: int
) -> ScheduleState:
    """The state before the first epoch.

    Raises:
        ValueError: Learning rate or batch size out of its bounds, or problem out of range.
    """
    check_problem(problem)
    require(
        config.min_learning_rate <= learning_rate < math.inf and learning_rate > 0,
        f"learning_rate must be finite, above 0 and at least min_learning_rate"
        f" ({config.min_learning_rate:g})",
        learning_rate,
        "Raise learning_rate, or lower min_learning_rate.",
    )
    require(
        1 <= batch_size <= problem.num_examples,
        f"batch_size must be 1 to the number of training examples ({problem.num_examples})",
        batch_size,
        "Lower batch_size.",
    )
    require(
        config.max_batch_size is None or batch_size <= config.max_batch_size,
        f"batch_size must be at most max_batch_size ({config.max_batch_size})",
        batch_size,
        "Lower batch_size, or raise max_batch_size.",
    )
    require(
        problem.max_batch_size is None or batch_size <= problem.max_batch_size,
        f"batch_size must fit in memory (at most {problem.max_batch_size})",
        batch_size,
        "Lower batch_size.",
    )
    return ScheduleState(plateau.initial_state(), 0, float(learning_rate), batch_size)


def step(
    config: ScheduleConfig,
    problem: Problem,
    state: ScheduleState,
    *,
    metric: float | None,
    loss: float | None,
    elapsed_seconds: float,
    gradient_noise: float | None = None,
) -> tuple[ScheduleState, Decision]:
    """Decide what to do after an epoch.

    Args:
        config: The plan and the stop rule.
        problem: What is trained.
        state: State after the epoch before.
        metric: Monitored metric of this epoch's evaluation; None if there was none.
        loss: Training loss of this epoch; None if unknown.
        elapsed_seconds: Training time of the whole run so far, resumed parts included.
        gradient_noise: B_simple in examples (McCandlish et al. 2018, arXiv:1812.06162), for
            strategy auto; None if not measured, infinity where noise hides the signal.

    Returns:
        The state to save and the decision to carry out.

    Raises:
        NonFiniteError: Loss or metric is NaN or infinite and on_nonfinite is raise.
        ValueError: The schedule had already stopped.
    """
    require(
        state.stop_reason is None,
        "a schedule that has stopped takes no further step",
        state.stop_reason,
        "Start a new run to train on.",
    )
    state = state._replace(epoch=state.epoch + 1)
    broken = nonfinite(**{"loss": loss, config.plateau.monitor: metric})
    if broken and config.on_nonfinite == "raise":
        raise NonFiniteError(
            f"loss and metric must be finite, got {broken} in epoch {state.epoch}."
            ' Lower learning_rate, or try on_nonfinite="rollback_and_reduce".'
        )
    limit = _limit(config, state, elapsed_seconds)
    if broken and config.on_nonfinite == "rollback_and_reduce":
        return _roll_back(config, problem, state, broken, limit)

    # A loss that is not finite voids the metric; a metric that is not is judged as it is.
    void = broken and (metric is None or math.isfinite(metric))
    seen, observation = plateau.observe(
        config.plateau,
        state.plateau,
        math.nan if void else metric,
        in_warmup=state.epoch <= config.warmup_epochs,
    )
    state = state._replace(plateau=seen, rollbacks=0)
    why = describe_observation(config.plateau, observation, metric, broken)
    if observation.stalled and state.actions_taken >= config.num_actions:
        why += f", after {state.actions_taken} of {config.num_actions} actions"
        return _stop(config, problem, state, "plateau", why, observation)
    if limit is not None:
        return _stop(config, problem, state, *limit, observation)
    if not observation.stalled:
        return state, _decision(config, problem, state, state, why, observation)

    after = _advance(config, problem, state, gradient_noise)
    if name_action(state, after) == "none":
        why += "; learning rate and batch are at their limits"
        return _stop(config, problem, state, "exhausted", why, observation)
    after = after._replace(plateau=plateau.acted(config.plateau, after.plateau))
    why += f"; {describe_change(state, after)}"
    return after, _decision(config, problem, state, after, why, observation, config.restore)


def forecast(
    config: ScheduleConfig, problem: Problem, learning_rate: float, batch_size: int
) -> tuple[Stage, ...]:
    """The stages the run will pass through, if it neither ends early nor rolls back.

    When each begins is for the metric to say. Strategy auto, which decides by measurement, is
    forecast as hybrid, which it follows without one.
    """
    before = after = initial_state(config, problem, learning_rate, batch_size)
    stages = [_stage(config, problem, before, after)]
    if config.warmup_epochs:
        before = after = after._replace(epoch=config.warmup_epochs)
        stages.append(_stage(config, problem, before, after))
    while after.actions_taken < config.num_actions:
        before, after = after, _advance(config, problem, after, None)
        if name_action(before, after) == "none":
            break
        stages.append(_stage(config, problem, before, after))
    return tuple(stages)


def next_learning_rate(config: ScheduleConfig, state: ScheduleState) -> float:
    """Learning rate of the next epoch.

    In the warm-up, epoch i of n has f + (1 - f) (i - 1) / n of the learning rate, f being
    warmup_fraction; the floor holds then too.
    """
    if state.epoch >= config.warmup_epochs:
        return state.learning_rate
    f = config.warmup_fraction
    share = f + (1 - f) * state.epoch / config.warmup_epochs
    return max(share * state.learning_rate, min(config.min_learning_rate, state.learning_rate))


def _advance(
    config: ScheduleConfig, problem: Problem, state: ScheduleState, gradient_noise: float | None
) -> ScheduleState:
    """The state after the next action of the plan."""
    rule = update_rule(problem.optimizer)
    if config.plan is not None:
        split = parse_plan(config.plan)[state.actions_taken]
    elif config.strategy == "auto" and gradient_noise is not None and gradient_noise >= 0:
        grow = _noise_dominates(state, gradient_noise)
        split = Split(batch=config.factor) if grow else decay_split(config.factor, rule)
        state = state._replace(auto_choice="batch" if grow else "learning_rate")
    else:
        plan = strategy_plan(config.strategy, config.factor, config.actions, rule)
        split = plan[state.actions_taken]
    learning_rate, batch_size = apply_split(
        split, state.learning_rate, state.batch_size, rule, _limits(config, problem)
    )
    return state._replace(
        learning_rate=learning_rate, batch_size=batch_size, actions_taken=state.actions_taken + 1
    )


def _noise_dominates(state: ScheduleState, gradient_noise: float) -> bool:
    """Whether a bigger batch would still buy a better gradient.

    Below B_simple the gradient is mostly noise and a bigger batch is nearly free; above it, it is
    nearly wasted (McCandlish et al. 2018). Once a side is chosen the measurement, itself noisy,
    has to cross by HYSTERESIS to change it.
    """
    lean = {None: 1.0, "batch": 1 / HYSTERESIS, "learning_rate": HYSTERESIS}[state.auto_choice]
    return gradient_noise > state.batch_size * lean


def _limits(config: ScheduleConfig, problem: Problem) -> Limits:
    # Beyond a tenth of the examples N / B - 1 is no longer close to N / B (Smith et al. 2018).
    cap = config.max_batch_size or max(problem.num_examples // 10, 1)
    memory = problem.max_batch_size or cap
    return Limits(min(cap, memory, problem.num_examples), config.min_learning_rate)


def _limit(
    config: ScheduleConfig, state: ScheduleState, elapsed_seconds: float
) -> tuple[StopReason, str] | None:
    """Why the run must end after this epoch whatever the metric does, if it must."""
    if state.epoch >= config.max_epochs:
        return "max_epochs", f"{state.epoch} epochs done, as many as allowed"
    if config.time_budget is not None and elapsed_seconds >= config.time_budget:
        return "time_budget", f"the time budget of {config.time_budget:g} s is used up"
    return None


def _roll_back(
    config: ScheduleConfig,
    problem: Problem,
    state: ScheduleState,
    broken: str,
    limit: tuple[StopReason, str] | None,
) -> tuple[ScheduleState, Decision]:
    """Back to the best weights with a smaller learning rate; the epoch's evaluation is void."""
    void = Observation(None, False, False, False, state.plateau.bad_evaluations, False, False)
    rule = update_rule(problem.optimizer)
    learning_rate, _ = apply_split(
        decay_split(config.factor, rule),
        state.learning_rate,
        state.batch_size,
        rule,
        _limits(config, problem),
    )
    if limit is None and state.rollbacks >= MAX_ROLLBACKS:
        limit = "nonfinite", f"{broken} again after {MAX_ROLLBACKS} rollbacks in a row"
    if limit is None and learning_rate == state.learning_rate:
        limit = "nonfinite", f"{broken}, with the learning rate already at its floor"
    if limit is not None:
        return _stop(config, problem, state, *limit, void, "weights_and_slots")
    after = state._replace(
        plateau=plateau.acted(config.plateau, state.plateau),
        learning_rate=learning_rate,
        rollbacks=state.rollbacks + 1,
    )
    why = f"{broken}; back to the best weights, {describe_change(state, after)}"
    decision = _decision(config, problem, state, after, why, void, "weights_and_slots")
    return after, decision._replace(action="rollback")


def _stop(
    config: ScheduleConfig,
    problem: Problem,
    state: ScheduleState,
    code: StopReason,
    why: str,
    observation: Observation,
    restore: Restore = "none",
) -> tuple[ScheduleState, Decision]:
    state = state._replace(stop_reason=code)
    decision = _decision(config, problem, state, state, why, observation, restore)
    return state, decision._replace(action="stop")


def _decision(
    config: ScheduleConfig,
    problem: Problem,
    before: ScheduleState,
    after: ScheduleState,
    why: str,
    observation: Observation,
    restore: Restore = "none",
) -> Decision:
    rate = next_learning_rate(config, after)
    return Decision(
        epoch=after.epoch,
        action=name_action(before, after),
        learning_rate=rate,
        batch_size=after.batch_size,
        noise_scale=noise_scale(rate, after.batch_size, problem),
        reason=why,
        observation=observation,
        restore=restore,
        stop_reason=after.stop_reason,
    )


def _stage(
    config: ScheduleConfig, problem: Problem, before: ScheduleState, after: ScheduleState
) -> Stage:
    rate = next_learning_rate(config, after)
    return Stage(
        index=after.actions_taken,
        action=name_action(before, after),
        learning_rate=rate,
        batch_size=after.batch_size,
        steps_per_epoch=max(problem.num_examples // after.batch_size, 1),
        noise_scale=noise_scale(rate, after.batch_size, problem),
    )
