"""Display of training histories and reports in notebooks, for TFX's InteractiveContext."""

import builtins
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfx import types
from tfx.orchestration.experimental.interactive import visualizations

from components import training_report
from components.artifacts import HtmlReport, TrainingHistory
from trainer_module import history
from trainer_module.history import History

_TEMPLATE = Path(__file__).parent / "page" / "plot.html"


def register() -> None:
    """Registers both artifact types with TFX and IPython; nothing happens outside of IPython.

    `context.show(channel)` displays them then, and so does an artifact, or the `History` that
    `train` returns, on the last line of a cell.
    """
    if not getattr(builtins, "__IPYTHON__", False):
        return
    # IPython ships no types.
    from IPython import get_ipython  # type: ignore[import-untyped]

    for visualization in (_HistoryVisualization, _ReportVisualization):
        visualizations.get_registry().register(visualization)
    shell = get_ipython()
    formatter = shell.display_formatter.formatters["text/html"]
    displays: tuple[tuple[type, Callable[[Any], str]], ...] = (
        (TrainingHistory, _of_history_artifact),
        (HtmlReport, _of_report_artifact),
        (History, plot),
    )
    for kind, show in displays:
        formatter.for_type(kind, show)


def plot(record: History) -> str:
    """Returns metric, learning rate and batch size over the epochs as an HTML frame."""
    # Plotly and the templates are read only where something is shown.
    from components.page import render
    from components.training_report import figures

    if not record.epochs:
        return "<p>No epoch was finished, so there is nothing to plot.</p>"
    drawn = figures.training(record)
    text = render.page(_TEMPLATE, {"training": drawn})
    return _frame(text, drawn.figure.layout.height + 200)


def _frame(document: str, height: int) -> str:
    """A document with scripts of its own, kept apart from the notebook."""
    return (
        f'<iframe srcdoc="{html.escape(document)}" style="width: 100%; border: 0" '
        f'height="{height}" sandbox="allow-scripts"></iframe>'
    )


def _of_history_artifact(artifact: types.Artifact) -> str:
    return plot(history.read(Path(artifact.uri) / history.FILE_NAME))


def _of_report_artifact(artifact: types.Artifact) -> str:
    return _frame((Path(artifact.uri) / training_report.FILE_NAME).read_text("utf-8"), 800)


def _display(text: str) -> None:
    from IPython.display import HTML, display  # type: ignore[import-untyped]

    display(HTML(text))


class _HistoryVisualization(visualizations.ArtifactVisualization):  # type: ignore[misc]
    ARTIFACT_TYPE = TrainingHistory

    def display(self, artifact: types.Artifact) -> None:
        _display(_of_history_artifact(artifact))


class _ReportVisualization(visualizations.ArtifactVisualization):  # type: ignore[misc]
    ARTIFACT_TYPE = HtmlReport

    def display(self, artifact: types.Artifact) -> None:
        _display(_of_report_artifact(artifact))
