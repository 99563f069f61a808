"""The schedule as flat parameters: what execution properties and `custom_config` hold."""

import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, TypeAlias

from trainer_module.schedule.plateau import PlateauConfig
from trainer_module.schedule.schedule import ScheduleConfig

Value: TypeAlias = int | float | str

SCHEDULE_KEY = "schedule"
CHECKPOINTS_KEY = "checkpoints"
CODE_KEY = "code"
TRAIN_CONFIG_KEY = "train_config"
"""Keys of `custom_config`: the schedule's fields, the folder of checkpoints, any text that changes
with the training code, and the `TrainConfig` of Plateau's own `run_fn`."""


def parameter_types() -> dict[str, tuple[type[Value], bool]]:
    """Each parameter of the schedule: int, float or str, and whether it may be missing.

    Component parameters know no Literal: a choice is its word.
    """
    return {
        name: _parameter_type(hint)
        for owner in (PlateauConfig, ScheduleConfig)
        for name, hint in typing.get_type_hints(owner).items()
        if name != "plateau"
    }


def parameters(schedule: ScheduleConfig) -> dict[str, Value]:
    """A schedule as flat parameters; those that are None are left out."""
    values = {**vars(schedule.plateau), **vars(schedule)}
    kinds = parameter_types()
    return {name: kinds[name][0](values[name]) for name in kinds if values[name] is not None}


def schedule(given: Mapping[str, Any]) -> ScheduleConfig:
    """The schedule of flat parameters, those of no schedule ignored; None stands for missing.

    Raises:
        ValueError: A value is out of range.
    """
    kinds = parameter_types()

    def fields(owner: type) -> dict[str, Any]:
        hints = typing.get_type_hints(owner)
        names = [name for name in hints if name in kinds and given.get(name) is not None]
        # Kubeflow gives whole numbers as floats.
        return {name: kinds[name][0](given[name]) for name in names}

    return ScheduleConfig(plateau=PlateauConfig(**fields(PlateauConfig)), **fields(ScheduleConfig))


def _parameter_type(hint: Any) -> tuple[type[Value], bool]:
    choice = typing.get_origin(hint) is Literal
    options = [hint] if choice else list(typing.get_args(hint)) or [hint]
    (kind,) = (option for option in options if option is not NoneType)
    return str if choice else kind, NoneType in options
