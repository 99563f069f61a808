"""The plateau loop, usable without TFX: `from trainer_module import train`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer_module.loop import train
    from trainer_module.plateau import PlateauConfig
    from trainer_module.schedule import ScheduleConfig

__all__ = ["PlateauConfig", "ScheduleConfig", "train"]


def __getattr__(name: str) -> Any:
    """Import on first use: `train` brings TensorFlow, and compiling a pipeline needs none."""
    homes = {"train": "loop", "PlateauConfig": "plateau", "ScheduleConfig": "schedule"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
