"""Display of training histories and reports in notebooks, for TFX's InteractiveContext."""

import builtins
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfx import types
from tfx.orchestration.experimental.interactive import visualizations

from components.artifacts import HtmlReport, TrainingHistory
from trainer_module import history
from trainer_module.history import History


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
    shown: tuple[tuple[type, Callable[[Any], str]], ...] = (
        (TrainingHistory, _of_history_artifact),
        (HtmlReport, _of_report_artifact),
        (History, plot),
    )
    for kind, show in shown:
        formatter.for_type(kind, show)


def plot(record: History) -> str:
    """Returns metrics, learning rate and batch size over the epochs as an HTML frame."""
    # Plotly and the report's templates are read only where something is shown.
    from components.training_report import figures, page

    # The first theme of the sheet is the light one.
    found = re.findall(r"(--[a-z-]+):\s*(#[0-9a-f]+)", page.asset("report.css"))
    colours = dict(reversed(found))
    figure = figures.training(record)
    epochs = figures.axes(record)["epochs"]
    data = [
        {**trace, "x": [epochs[place] for place in index]}
        for trace, index in zip(figure["data"], figure["index"], strict=True)
    ]
    layout = figure["layout"]
    for place, line, number in zip(
        figure["marks"], layout["shapes"], layout["annotations"], strict=True
    ):
        line |= {"x0": epochs[place], "x1": epochs[place]}
        number["x"] = epochs[place]
    text = json.dumps({"data": data, "layout": layout}, default=str)
    for name, colour in colours.items():
        text = text.replace(json.dumps(name), json.dumps(colour))
    text = text.replace("<", "\\u003c")
    return _frame(
        f'<div id="plot"></div><script>{page.plotly_js()}</script>'
        f'<script>const made = {text}; Plotly.newPlot("plot", made.data, made.layout);</script>',
        layout["height"] + 40,
    )


def _frame(document: str, height: int) -> str:
    """A document with scripts of its own, kept apart from the notebook."""
    return (
        f'<iframe srcdoc="{html.escape(document)}" style="width: 100%; border: 0" '
        f'height="{height}" sandbox="allow-scripts"></iframe>'
    )


def _of_history_artifact(artifact: types.Artifact) -> str:
    return plot(history.read(Path(artifact.uri) / history.FILE_NAME))


def _of_report_artifact(artifact: types.Artifact) -> str:
    from components.training_report import page

    return _frame((Path(artifact.uri) / page.FILE_NAME).read_text("utf-8"), 800)


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
