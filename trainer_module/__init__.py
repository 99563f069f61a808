"""The plateau loop, usable without TFX: `from trainer_module import train`."""

from typing import TYPE_CHECKING

from trainer_module.lazy import lazy

if TYPE_CHECKING:
    from trainer_module.callback import PlateauCallback, batches
    from trainer_module.loop import train
    from trainer_module.plateau import PlateauConfig
    from trainer_module.recorder import HistoryRecorder
    from trainer_module.run_arguments import trainer_arguments
    from trainer_module.saved_model import export_model
    from trainer_module.schedule import ScheduleConfig

__version__ = "0.1.0"
__all__ = [
    "HistoryRecorder",
    "PlateauCallback",
    "PlateauConfig",
    "ScheduleConfig",
    "batches",
    "export_model",
    "train",
    "trainer_arguments",
]

_MODULES = {
    "HistoryRecorder": "recorder",
    "PlateauCallback": "callback",
    "PlateauConfig": "plateau",
    "ScheduleConfig": "schedule",
    "batches": "callback",
    "export_model": "saved_model",
    "train": "loop",
    "trainer_arguments": "run_arguments",
}

# `train` brings TensorFlow, and compiling a pipeline needs none.
__getattr__, __dir__ = lazy(__name__, _MODULES)
