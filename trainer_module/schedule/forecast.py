"""Forecast of a schedule's stages before a run, and the plan that repeats a run afterwards."""

from collections.abc import Iterable, Sequence

from trainer_module.schedule.scaling import TrainingSpec, scaling_rule, update_noise
from trainer_module.schedule.schedule import (
    ScheduleConfig,
    action_between,
    advance,
    initial_state,
    next_learning_rate,
)
from trainer_module.schedule.state import ScheduleState, Stage
from trainer_module.schedule.strategy import CHANGES, make_change


def stages(
    config: ScheduleConfig, spec: TrainingSpec, learning_rate: float, batch_size: int
) -> tuple[Stage, ...]:
    """Returns the stages of a run that neither ends early nor rolls back.

    When each begins depends on the metric. Strategy auto, which decides by measurement, is forecast
    as hybrid, which it follows where nothing was measured.
    """
    before = after = initial_state(config, spec, learning_rate, batch_size)
    passed = [_stage(config, spec, before, after)]
    if config.warmup_epochs:
        before = after = after._replace(epoch=config.warmup_epochs)
        passed.append(_stage(config, spec, before, after))
    while after.actions_taken < config.num_actions:
        before, after = after, advance(config, spec, after)
        if action_between(before, after) == "none":
            break
        passed.append(_stage(config, spec, before, after))
    return tuple(passed)


def verify(
    stages: Sequence[Stage], changes: Iterable[tuple[int, str, float, int]]
) -> tuple[str, ...]:
    """Returns where a run left its forecast, as sentences.

    A run that ended before the last stage has not left it. A rollback leaves it.

    Args:
        stages: The forecast.
        changes: Epoch, action, and learning rate and batch size of the next epoch.
    """
    expected = [
        _describe(stage.action, stage.learning_rate, stage.batch_size)
        for stage in stages
        if stage.index > 0
    ]
    differences = []
    for epoch, action, learning_rate, batch_size in changes:
        if action in ("none", "stop"):
            continue
        change = _describe(action, learning_rate, batch_size)
        wanted = expected.pop(0) if expected else "no further action"
        if change != wanted:
            differences.append(f"epoch {epoch}: {change}, but the forecast was {wanted}")
    return tuple(differences)


def repeating_plan(config: ScheduleConfig, optimizer: str, actions: Iterable[str]) -> str:
    """Returns the plan that repeats what a run did at its plateaus, "" if it did nothing.

    Args:
        config: The schedule of the run.
        optimizer: Class of its optimizer.
        actions: Its actions, in order.
    """
    changes = (
        make_change("batch" in action, config.factor, scaling_rule(optimizer).exponent)
        for action in actions
        if action in CHANGES and action != "none"
    )
    return ", ".join(
        f"batch*{batch:.17g}" if batch > 1 else f"lr/{rate:.17g}" for batch, rate in changes
    )


def _stage(
    config: ScheduleConfig, spec: TrainingSpec, before: ScheduleState, after: ScheduleState
) -> Stage:
    rate = next_learning_rate(config, after)
    return Stage(
        index=after.actions_taken,
        action=action_between(before, after),
        learning_rate=rate,
        batch_size=after.batch_size,
        steps_per_epoch=max(spec.num_examples // after.batch_size, 1),
        update_noise=update_noise(rate, after.batch_size, spec),
    )


def _describe(action: str, learning_rate: float, batch_size: int) -> str:
    return f"{action} to learning rate {learning_rate!r} and batch {batch_size}"
