"""State of the schedule, its decision after an epoch, and the stages of its forecast."""

import json
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from trainer_module.schedule.plateau import Observation, PlateauState
from trainer_module.schedule.strategy import Action

Restore: TypeAlias = Literal["none", "weights", "weights_and_slots", "weights_reset_slots"]
StopReason: TypeAlias = Literal["plateau", "exhausted", "max_epochs", "time_budget", "nonfinite"]


class ScheduleState(NamedTuple):
    """State of the schedule between epochs; every field survives JSON exactly.

    Attributes:
        plateau: State of plateau detection.
        epoch: Epochs completed.
        learning_rate: Learning rate of the next epoch, or during warm-up the one it leads to.
        batch_size: Global batch size of the next epoch, in examples.
        actions_taken: Plateaus acted on so far.
        rollbacks: Rollbacks in a row, the last epoch's included.
        auto_choice: What the simple noise scale last told strategy auto to change.
        stop_reason: Why the run has ended; None until then.
    """

    plateau: PlateauState
    epoch: int
    learning_rate: float
    batch_size: int
    actions_taken: int = 0
    rollbacks: int = 0
    auto_choice: Literal["batch", "learning_rate"] | None = None
    stop_reason: StopReason | None = None

    def to_json(self) -> str:
        """Returns the state as JSON text, floats exact (NaN as Python's json writes it)."""
        return json.dumps({**self._asdict(), "plateau": self.plateau._asdict()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ScheduleState":
        """Parses what `to_json` wrote."""
        fields = json.loads(text)
        detection = fields.pop("plateau")
        window = tuple(detection.pop("window"))
        return cls(PlateauState(**detection, window=window), **fields)


class Decision(NamedTuple):
    """What the loop is to do after an epoch.

    Attributes:
        epoch: Epochs completed: 1 after the first.
        action: What to do.
        learning_rate: Learning rate of the next epoch.
        batch_size: Global batch size of the next epoch, in examples.
        reason: Why, as a sentence.
        observation: Result of the evaluation.
        restore: What to take back from the best epoch, or from the first weights where no epoch
            has been finite yet.
        stop_reason: Why the run ends; None unless action is stop.
    """

    epoch: int
    action: Action
    learning_rate: float
    batch_size: int
    reason: str
    observation: Observation
    restore: Restore
    stop_reason: StopReason | None


@dataclass(frozen=True)
class Stage:
    """Part of the run between two actions, or the warm-up before them.

    Attributes:
        index: 0 up to the first plateau, i after the i-th action.
        action: What leads into the stage; none for those up to the first plateau.
        learning_rate: Learning rate during the stage, in the warm-up that of the first epoch.
        batch_size: Global batch size during the stage, in examples.
        steps_per_epoch: Updates an epoch; a last part-filled batch is dropped.
        update_noise: Update noise during the stage.
    """

    index: int
    action: Action
    learning_rate: float
    batch_size: int
    steps_per_epoch: int
    update_noise: float
