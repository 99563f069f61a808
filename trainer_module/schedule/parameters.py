"""The schedule as flat parameters: what execution properties and `custom_config` hold."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import NoneType
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

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
    """Returns each parameter of the schedule: int, float or str, and whether it may be missing.

    Component parameters know no Literal: a choice is its word.
    """
    return dict(_types(PlateauConfig)) | dict(_types(ScheduleConfig))


def parameters(schedule: ScheduleConfig) -> dict[str, Value]:
    """Returns a schedule as flat parameters; those that are None are left out."""
    values = vars(schedule.plateau) | vars(schedule)
    types = parameter_types()
    return {name: types[name][0](values[name]) for name in types if values[name] is not None}


def schedule(values: Mapping[str, Any]) -> ScheduleConfig:
    """Returns the schedule of flat parameters, others ignored; None stands for missing.

    Raises:
        UserError: A value is out of range.
    """

    def arguments(owner: type[Any]) -> dict[str, Any]:
        # Kubeflow gives whole numbers as floats.
        return {n: kind(values[n]) for n, (kind, _) in _types(owner) if values.get(n) is not None}

    return ScheduleConfig(PlateauConfig(**arguments(PlateauConfig)), **arguments(ScheduleConfig))


def _types(owner: type[Any]) -> Iterator[tuple[str, tuple[type[Value], bool]]]:
    """Yields the fields of a config but for the plateau's, with their types."""
    for field in fields(owner):
        hint: Any = field.type
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        if get_origin(hint) is Literal:
            yield field.name, (str, False)
        elif field.name != "plateau":
            options = get_args(hint) or (hint,)
            (kind,) = (option for option in options if option is not NoneType)
            yield field.name, (kind, NoneType in options)
