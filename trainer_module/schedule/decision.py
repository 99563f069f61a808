"""What the schedule decides, remembers and forecasts: the values and their words, no rules."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from trainer_module.schedule.plateau import Observation, PlateauConfig, PlateauState

Action: TypeAlias = Literal[
    "none", "decay_lr", "grow_batch", "grow_batch_and_decay_lr", "rollback", "stop"
]
Restore: TypeAlias = Literal["none", "weights", "weights_and_slots", "weights_reset_slots"]
StopReason: TypeAlias = Literal["plateau", "exhausted", "max_epochs", "time_budget", "nonfinite"]


class ScheduleState(NamedTuple):
    """All that the schedule remembers between epochs; every field survives JSON exactly.

    Attributes:
        plateau: State of stall detection.
        epoch: Epochs completed.
        learning_rate: Learning rate of the next epoch, or during warm-up the one it leads to.
        batch_size: Global batch size of the next epoch, in examples.
        actions_taken: Stalls acted on so far.
        rollbacks: Rollbacks in a row, the last epoch's included.
        auto_choice: What strategy auto chose last on a measurement.
        stop_reason: Why the run has ended; None while it goes on.
    """

    plateau: PlateauState
    epoch: int
    learning_rate: float
    batch_size: int
    actions_taken: int = 0
    rollbacks: int = 0
    auto_choice: Literal["batch", "learning_rate"] | None = None
    stop_reason: StopReason | None = None


class Decision(NamedTuple):
    """What the loop is to do after an epoch.

    Attributes:
        epoch: Epochs completed: 1 after the first.
        action: What to do.
        learning_rate: Learning rate of the next epoch.
        batch_size: Global batch size of the next epoch, in examples.
        noise_scale: Scale of the gradient noise with those two (scaling.noise_scale).
        reason: Why, as a sentence.
        observation: What the evaluation showed.
        restore: What to take back from the best epoch, or from the first weights where no epoch
            has been finite yet.
        stop_reason: Why the run ends; None unless action is stop.
    """

    epoch: int
    action: Action
    learning_rate: float
    batch_size: int
    noise_scale: float
    reason: str
    observation: Observation
    restore: Restore
    stop_reason: StopReason | None


@dataclass(frozen=True)
class Stage:
    """A stretch of the run between two actions, or the warm-up before them.

    Attributes:
        index: 0 up to the first stall, i after the i-th action.
        action: What leads into the stage; none for those up to the first stall.
        learning_rate: Learning rate during the stage, in the warm-up that of the first epoch.
        batch_size: Global batch size during the stage, in examples.
        steps_per_epoch: Updates an epoch; a last part-filled batch is dropped.
        noise_scale: Scale of the gradient noise during the stage.
    """

    index: int
    action: Action
    learning_rate: float
    batch_size: int
    steps_per_epoch: int
    noise_scale: float


def state_to_json(state: ScheduleState) -> str:
    """The state as JSON text, floats exact (NaN as Python's json writes it)."""
    return json.dumps({**state._asdict(), "plateau": state.plateau._asdict()}, sort_keys=True)


def state_from_json(text: str) -> ScheduleState:
    """The state that `state_to_json` wrote."""
    fields = json.loads(text)
    seen = fields.pop("plateau")
    seen["window"] = tuple(seen["window"])
    return ScheduleState(plateau=PlateauState(**seen), **fields)


def name_action(before: ScheduleState, after: ScheduleState) -> Action:
    """The name of a change of learning rate, batch size or both; none if neither changed."""
    grew = after.batch_size > before.batch_size
    decayed = after.learning_rate < before.learning_rate
    if grew and decayed:
        return "grow_batch_and_decay_lr"
    return "grow_batch" if grew else "decay_lr" if decayed else "none"


def describe_change(before: ScheduleState, after: ScheduleState) -> str:
    """What changed, as in "batch 64 -> 256, learning rate 0.05 -> 0.025"."""
    changes = []
    if after.batch_size != before.batch_size:
        changes.append(f"batch {before.batch_size} -> {after.batch_size}")
    if after.learning_rate != before.learning_rate:
        changes.append(f"learning rate {before.learning_rate:.6g} -> {after.learning_rate:.6g}")
    return ", ".join(changes)


def describe_observation(
    config: PlateauConfig, seen: Observation, metric: float | None, broken: str
) -> str:
    """What an epoch's evaluation showed; broken names the values that were not finite, if any."""
    bad = seen.bad_evaluations
    if seen.stalled:
        return f"no better {config.monitor} for {bad} epoch{'s' * (bad != 1)}"
    if broken:
        skipped = "in the warm-up" if seen.in_warmup else "counted as an epoch without improvement"
        return f"{broken}, {skipped}"
    if metric is None:
        return f"no {config.monitor} this epoch"
    shown = f"{config.monitor} {metric:.6g}"
    if seen.improved_best:
        return f"{shown}, the best so far"
    if seen.in_warmup:
        return f"{shown}, in the warm-up"
    if seen.in_cooldown:
        return f"{shown}, in the cooldown after an action"
    if seen.improved:
        return f"{shown}, improving"
    if seen.value is None:
        return f"{shown}, too early for the {config.smoothing} filter"
    return f"no better {config.monitor} for {bad} of {config.patience} epochs"


def nonfinite(**values: float | None) -> str:
    """Which values are not finite, as in "loss nan and val_loss inf"; empty if none."""
    broken = [f"{k} {v}" for k, v in values.items() if v is not None and not math.isfinite(v)]
    return " and ".join(broken)


class Change(Protocol):
    """A decision, or whatever else tells what followed an epoch."""

    @property
    def epoch(self) -> int:
        """Epochs completed."""

    @property
    def action(self) -> str:
        """What was done."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch."""

    @property
    def batch_size(self) -> int:
        """Global batch size of the next epoch, in examples."""


def verify(stages: Sequence[Stage], decisions: Sequence[Change]) -> tuple[str, ...]:
    """Where the decisions of a run left its forecast, as sentences; empty if nowhere.

    A run that ended before the last stage has not left it. A rollback leaves it, and so may auto.
    """
    expected = [stage for stage in stages if stage.index > 0]
    differences = []
    for decision in decisions:
        if decision.action in ("none", "stop"):
            continue
        got = _outcome(decision)
        want = _outcome(expected.pop(0)) if expected else "no further action"
        if got != want:
            differences.append(f"epoch {decision.epoch}: {got}, but the forecast was {want}")
    return tuple(differences)


def _outcome(of: Change | Stage) -> str:
    return f"{of.action} to learning rate {of.learning_rate!r} and batch {of.batch_size}"
