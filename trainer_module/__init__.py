"""The plateau loop, usable without TFX: `from trainer_module import train`."""

from typing import TYPE_CHECKING

from trainer_module.util.lazy import lazy

if TYPE_CHECKING:
    from trainer_module.callbacks import PlateauCallback, batches
    from trainer_module.recorder import HistoryRecorder
    from trainer_module.run_arguments import trainer_arguments
    from trainer_module.schedule.plateau import PlateauConfig
    from trainer_module.schedule.schedule import ScheduleConfig
    from trainer_module.serving.saved_model import export_model
    from trainer_module.training.loop import train

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
    "PlateauCallback": "callbacks",
    "PlateauConfig": "schedule.plateau",
    "ScheduleConfig": "schedule.schedule",
    "batches": "callbacks",
    "export_model": "serving.saved_model",
    "train": "training.loop",
    "trainer_arguments": "run_arguments",
}

# `train` brings TensorFlow, and compiling a pipeline needs none.
__getattr__, __dir__ = lazy(__name__, _MODULES)
