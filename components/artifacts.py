"""Artifact types of our own, for all components and any pipeline."""

from tfx.types import artifact

ABSENT = "absent"
"""Custom property: 1 on an artifact that stands for none, where an output cannot be left out."""


class TrainingHistory(artifact.Artifact):  # type: ignore[misc]
    """The record of a training run: `history.jsonl`, as `trainer_module.history` reads it.

    Its custom properties are a summary: `monitor`, `best_value`, `best_epoch`, `epochs`,
    `actions`, `updates`, `examples`, `seconds` and `stop_reason`.
    """

    TYPE_NAME = "plateau.TrainingHistory"


class TrainingReport(artifact.Artifact):  # type: ignore[misc]
    """A page for people: `report.html`, self-contained."""

    # The name under which Kubeflow's user interface shows an artifact as a page.
    TYPE_NAME = "system.HTML"


class DataDrift(artifact.Artifact):  # type: ignore[misc]
    """How far the data has moved: `drift.json`, every feature's distance with its bound."""

    TYPE_NAME = "plateau.DataDrift"


def class_paths() -> dict[str, str]:
    """Dotted path of the class of each type, by the name that a compiled pipeline has for it."""
    return {
        kind.TYPE_NAME: f"{__name__}.{kind.__name__}"
        for kind in (TrainingHistory, TrainingReport, DataDrift)
    }
