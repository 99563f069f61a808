"""Conversion between a training config, a history and the flat parameters of PlateauTrainer."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from schemas import parameter
from trainer_module.config import TrainConfig
from trainer_module.history import History
from trainer_module.schedule.parameters import Value, schedule
from trainer_module.schedule.schedule import ScheduleConfig


def without_schedule(config: TrainConfig) -> str:
    """Returns a config as a parameter; its schedule, which has its own, is the default one."""
    return parameter.compressed(dataclasses.replace(config, schedule=ScheduleConfig()).to_json())


def assemble(config: str, values: Mapping[str, Any]) -> TrainConfig:
    """Returns the config of `without_schedule` with the schedule of its parameters.

    Raises:
        UserError: Not such a text, or a value out of range.
    """
    saved = TrainConfig.from_json(parameter.text(config))
    return dataclasses.replace(saved, schedule=schedule(values))


def summary(history: History) -> dict[str, Value]:
    """Returns what a list of runs shows of a training run; a best value only if there is one."""
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
