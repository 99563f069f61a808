"""Between the typed config of a training run and the flat parameters of a component.  Pure."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from schemas import parameter
from trainer_module.config import TrainConfig
from trainer_module.history import History
from trainer_module.schedule.parameters import Value, schedule


def without_schedule(config: TrainConfig) -> str:
    """A config as JSON but for its schedule, which travels as parameters of its own."""
    fields = json.loads(config.to_json())
    del fields["schedule"]
    return parameter.compressed(json.dumps(fields, sort_keys=True))


def assemble(config: str, given: Mapping[str, Any]) -> TrainConfig:
    """The config of what `without_schedule` wrote and the parameters of its schedule.

    Raises:
        ValueError: Not such a text, or a value out of range.
    """
    fields = {**json.loads(parameter.text(config)), "schedule": dataclasses.asdict(schedule(given))}
    return TrainConfig.from_json(json.dumps(fields))


def summary(history: History) -> dict[str, Value]:
    """What a list of runs shows of a training run; a best value only if there is one."""
    last, best = history.epochs[-1], history.best
    values: dict[str, Value] = {
        "monitor": history.monitor,
        "epochs": last.epoch,
        "actions": sum(r.action not in ("none", "stop") for r in history.epochs),
        "updates": last.updates,
        "examples": last.examples,
        "seconds": last.seconds,
        "stop_reason": history.stop_reason,
    }
    value = best.metrics[history.monitor] if best else math.nan
    if best and math.isfinite(value):
        values |= {"best_value": value, "best_epoch": best.epoch}
    return values
