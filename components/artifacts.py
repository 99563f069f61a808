"""Artifact types.

Each name is also a path that imports, from which TFX's entrypoint on Kubeflow restores the class.
"""

from tfx.types import artifact

ABSENT = "absent"
"""Custom property: 1 on an artifact that stands for none, where an output cannot be left out."""


class TrainingHistory(artifact.Artifact):  # type: ignore[misc]
    """The record of a training run: `history.jsonl`, as `trainer_module.history` reads it.

    Its custom properties are a summary: `monitor`, `best_value`, `best_epoch`, `epochs`,
    `actions`, `updates`, `examples`, `seconds` and `stop_reason`.
    """

    TYPE_NAME = "components.TrainingHistory"


class HtmlReport(artifact.Artifact):  # type: ignore[misc]
    """A page: `report.html`, self-contained."""

    TYPE_NAME = "components.HtmlReport"


class DataDrift(artifact.Artifact):  # type: ignore[misc]
    """Data drift: `drift.json`, every feature's distance with its threshold."""

    TYPE_NAME = "components.DataDrift"
