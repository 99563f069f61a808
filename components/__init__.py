"""Custom TFX components and their artifact types: `from components import PlateauTrainer`.

Each is a folder: component (the class, or TFX's function component), executor, and modules without
TFX.
"""

from typing import TYPE_CHECKING

from trainer_module.util.lazy import lazy

if TYPE_CHECKING:
    from components.anomaly_gate.component import AnomalyGate
    from components.artifacts import DataDrift, HtmlReport, TrainingHistory
    from components.drift_gate.baseline import LatestBlessedStatistics
    from components.drift_gate.component import DriftGate
    from components.image_example_gen.component import ImageExampleGen
    from components.inline_schema_gen.component import InlineSchemaGen
    from components.latest_blessed.component import LatestBlessed
    from components.plateau_trainer.component import PlateauTrainer
    from components.servable.component import Servable
    from components.serving_pusher.component import ServingPusher
    from components.table_example_gen.component import TableExampleGen
    from components.training_report.component import TrainingReport

__all__ = [
    "AnomalyGate",
    "DataDrift",
    "DriftGate",
    "HtmlReport",
    "ImageExampleGen",
    "InlineSchemaGen",
    "LatestBlessed",
    "LatestBlessedStatistics",
    "PlateauTrainer",
    "Servable",
    "ServingPusher",
    "TableExampleGen",
    "TrainingHistory",
    "TrainingReport",
]

_MODULES = {
    "AnomalyGate": "anomaly_gate.component",
    "DataDrift": "artifacts",
    "DriftGate": "drift_gate.component",
    "HtmlReport": "artifacts",
    "ImageExampleGen": "image_example_gen.component",
    "InlineSchemaGen": "inline_schema_gen.component",
    "LatestBlessed": "latest_blessed.component",
    "LatestBlessedStatistics": "drift_gate.baseline",
    "PlateauTrainer": "plateau_trainer.component",
    "Servable": "servable.component",
    "ServingPusher": "serving_pusher.component",
    "TableExampleGen": "table_example_gen.component",
    "TrainingHistory": "artifacts",
    "TrainingReport": "training_report.component",
}

# Each component brings TFX.
__getattr__, __dir__ = lazy(__name__, _MODULES)
