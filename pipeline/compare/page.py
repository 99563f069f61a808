"""A comparison as one self-contained HTML page, in the look of the training report.  Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from components.training_report import figures
from components.training_report import page as report
from components.training_report.figures import Figure, Key
from trainer_module.history import EpochRecord
from trainer_module.schedule.strategy import ACTIONS, STRATEGIES

from . import text as comparison_text
from .statistics import UNITS, Comparison, Curve, Trial, Unit

_SYMBOLS = {"stop": "x", "rollback": "star-triangle-down"}
_TITLES: Mapping[Unit, str] = {
    "epochs": "epochs",
    "updates": "updates",
    "seconds": "seconds after the first epoch",
}
_DASHES = ("solid", "dot", "dash", "longdash", "dashdot")
_HEIGHT = 320


@dataclass(frozen=True)
class Page:
    """All that the page tells.

    Attributes:
        title: Heading.
        written: When, with its time zone.
        comparison: The runs.
        command: Command that repeats the comparison.
        config: What all runs have in common, as JSON values.
        cores: CPU cores of the machine that wrote the page; seconds depend on it.
    """

    title: str
    written: datetime
    comparison: Comparison
    command: str
    config: Mapping[str, Any]
    cores: int


def render(page: Page) -> str:
    """The page: HTML that needs nothing but itself, with every text escaped."""
    comparison = page.comparison
    plots: dict[str, Figure] = {unit: metric_over(comparison, unit) for unit in UNITS}
    plots |= {"accuracy": accuracies(comparison), "schedule": schedule(comparison)}
    plots = {name: {"key": (), **plot} for name, plot in plots.items()}
    return _template().render(
        p=page,
        c=comparison,
        first=comparison.totals[0],
        # Jinja's groupby would sort the strategies by name.
        runs=[trial for name in comparison.strategies for trial in comparison.of(name)],
        curves={unit: comparison.curves(unit) for unit in UNITS},
        verdict=comparison_text.verdict(comparison),
        units=UNITS,
        key=[Key(name, colour(name), "line") for name in comparison.strategies],
        actions=ACTIONS,
        symbols=_SYMBOLS,
        colour=colour,
        text=comparison_text,
        config=report.flatten(page.config),
        plots=plots,
        page_data=report.script_json({"axes": axes(comparison), "plots": plots}),
        css=Markup(report.asset("report.css")),
        script=Markup(report.asset("report.js")),
        plotly=Markup(report.plotly_js()),
    )


def colour(strategy: str) -> str:
    """CSS variable of a strategy."""
    return STRATEGIES[strategy].colour if strategy in STRATEGIES else "--train"


def axes(comparison: Comparison) -> dict[str, list[float]]:
    """What may be on the x axis of the schedule: start and epochs of each run, run after run.

    The script of the report looks the places of a trace up in one list and takes the last entry
    for the end of the axis, so the largest of all runs stands there once more.
    """
    found: dict[str, list[float]] = {}
    for unit in UNITS:
        joined = [x for trial in comparison.trials for x in (0.0, *trial.axis(unit))]
        found[unit] = [*joined, max(joined)]
    return found


def metric_over(comparison: Comparison, unit: Unit) -> Figure:
    """The metric that steered the schedule: mean and spread, each seed, and its decisions."""
    data: list[Figure] = []
    for found in comparison.curves(unit):
        trials = comparison.of(found.strategy)
        shade = colour(found.strategy)
        if len(trials) > 1:
            data += _band(found, shade)
            data += [_run(trial, comparison.monitor, unit, shade) for trial in trials]
        data += _mean(found, len(trials), shade)
        data += _decisions(trials, comparison.monitor, unit, shade)
    return {
        "data": data,
        "layout": {
            "height": _HEIGHT,
            "margin": {"l": 10, "r": 12, "t": 12, "b": 42},
            "hovermode": "x unified" if unit == "epochs" else "closest",
            "xaxis": {
                **figures.AXIS,
                "title": {"text": _TITLES[unit]},
                "rangemode": "tozero",
                "nticks": 6,
            },
            "yaxis": {
                **figures.AXIS,
                "title": {"text": figures.plain(comparison.monitor)},
                "automargin": True,
                "range": _window(comparison),
            },
        },
    }


def accuracies(comparison: Comparison) -> Figure:
    """Test accuracy of each run as a dot, and mean and standard deviation of each strategy."""
    data: list[Figure] = []
    for place, total in enumerate(comparison.totals):
        values, shade = total.test_accuracy.values, colour(total.strategy)
        seeds = len(values)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": total.strategy,
                # Side by side, since runs are often equal.
                "x": [place - 0.12 + 0.24 * (i + 0.5) / seeds for i in range(seeds)],
                "y": list(values),
                "text": [f"seed {trial.seed}" for trial in comparison.of(total.strategy)],
                "marker": {"size": 8, "color": shade, "opacity": 0.55},
                "hovertemplate": f"{total.strategy}, %{{text}}: %{{y:.4f}}<extra></extra>",
            }
        )
        if total.test_accuracy.deviation is not None:
            text = comparison_text.share(total.test_accuracy)
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{total.strategy}, mean",
                    "x": [place + 0.24],
                    "y": [total.test_accuracy.mean],
                    "error_y": {
                        "type": "data",
                        "array": [total.test_accuracy.deviation],
                        "color": shade,
                        "thickness": 2,
                        "width": 6,
                    },
                    "marker": {"symbol": "diamond", "size": 10, "color": shade},
                    "hovertemplate": f"{total.strategy}, mean {text}<extra></extra>",
                }
            )
    names = [total.strategy for total in comparison.totals]
    return {
        "data": data,
        "layout": {
            "height": _HEIGHT,
            "margin": {"l": 10, "r": 12, "t": 12, "b": 42},
            "hovermode": "closest",
            "xaxis": {
                **figures.AXIS,
                "tickmode": "array",
                "tickvals": list(range(len(names))),
                "ticktext": [figures.plain(name) for name in names],
                "range": [-0.5, len(names) - 0.5],
                "showgrid": False,
                "ticks": "",
            },
            "yaxis": {
                **figures.AXIS,
                "title": {"text": "test accuracy"},
                "automargin": True,
                "range": _around([t.test_accuracy for t in comparison.trials]),
            },
        },
    }


def schedule(comparison: Comparison) -> Figure:
    """Learning rate, batch and update noise of every run as steps, one pane each."""
    panes: tuple[tuple[str, Callable[[EpochRecord], float]], ...] = (
        ("learning rate", lambda record: record.learning_rate),
        ("batch", lambda record: float(record.batch_size)),
        ("update noise", lambda record: record.update_noise),
    )
    figure = figures.stack([title for title, _ in panes], [1.0] * len(panes))
    for pane, (title, value) in enumerate(panes):
        start = 0
        drawn: list[float] = []
        for trial in comparison.trials:
            values = [value(record) for record in trial.history.epochs]
            name = f"{trial.strategy}, seed {trial.seed}"
            figures.add_steps(figure, pane, values, name, colour(trial.strategy))
            figure["index"][-1] = [start + place for place in figure["index"][-1]]
            place = comparison.seeds.index(trial.seed)
            figure["data"][-1]["line"] |= {"width": 2, "dash": _DASHES[place % len(_DASHES)]}
            figure["data"][-1]["opacity"] = 0.85
            figure["data"][-1]["hovertemplate"] = (
                f"{name}: {title} %{{y:.5~g}} to %{{x:,.4~g}}<extra></extra>"
            )
            start += len(values) + 1
            drawn += values
        figures.log_if_wide(figure, pane, drawn, ratio=3)
    figure["layout"] |= {"height": 480, "hovermode": "closest"}
    return figure


def _window(comparison: Comparison) -> list[float] | None:
    """Range of the axis of values; None for all of it.

    The first epochs of a run lie so far from the rest that what matters would be a flat line, so
    the first quarter of each run may lie outside.
    """
    values = [
        record.metrics[comparison.monitor]
        for trial in comparison.trials
        for record in trial.history.epochs[len(trial.history.epochs) // 4 :]
        if math.isfinite(record.metrics.get(comparison.monitor, math.nan))
    ]
    return _around(values) if values else None


def _around(values: Sequence[float]) -> list[float]:
    """A range that shows values which may be equal, with room at both ends."""
    low, high = min(values), max(values)
    room = max(0.08 * (high - low), 0.002)
    return [low - room, high + room]


def _band(found: Curve, shade: str) -> list[Figure]:
    """The mean, one standard deviation down and up, where several runs are left."""
    rows = [
        (x, mean, deviation)
        for x, mean, deviation in zip(found.x, found.mean, found.deviation, strict=True)
        if deviation is not None
    ]
    edges = [[mean - deviation for _, mean, deviation in rows]]
    edges.append([mean + deviation for _, mean, deviation in rows])
    line = {"color": shade, "width": 0}
    common = {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, *_ in rows],
        "line": line,
        "hoverinfo": "skip",
        "name": f"{found.strategy}, spread",
    }
    low, high = ({**common, "y": edge} for edge in edges)
    return [low, {**high, "fill": "tonexty", "fillcolor": f"{shade}-soft"}]


def _run(trial: Trial, monitor: str, unit: Unit, shade: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{trial.strategy}, seed {trial.seed}",
        "x": list(trial.axis(unit)),
        "y": [figures.finite(record.metrics.get(monitor)) for record in trial.history.epochs],
        "line": {"color": shade, "width": 1},
        "opacity": 0.28,
        "hoverinfo": "skip",
    }


def _mean(found: Curve, runs: int, shade: str) -> list[Figure]:
    """The mean: a line while all runs go on, dotted where some have ended."""
    whole = sum(number == runs for number in found.runs)
    parts = [(0, whole, "solid")]
    if whole < len(found.x):
        parts.append((max(whole - 1, 0), len(found.x), "dot"))
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": found.strategy,
            "x": list(found.x[start:end]),
            "y": [figures.finite(value) for value in found.mean[start:end]],
            "text": _of(found, start, end, runs),
            "line": {"color": shade, "width": 2.5, "dash": dash},
            "hovertemplate": f"{found.strategy} %{{y:.4f}}%{{text}}<extra></extra>",
        }
        for start, end, dash in parts
    ]


def _of(found: Curve, start: int, end: int, runs: int) -> list[str]:
    """What a mean is of, for its hover label."""
    if runs == 1:
        return [""] * (end - start)
    return [
        f", {number} of {runs} seeds" if deviation is None else f" ± {deviation:.4f}"
        for number, deviation in zip(found.runs[start:end], found.deviation[start:end], strict=True)
    ]


def _decisions(trials: Sequence[Trial], monitor: str, unit: Unit, shade: str) -> list[Figure]:
    """A mark at each decision of each seed."""
    rows = [
        (x, record, trial)
        for trial in trials
        for x, record in zip(trial.axis(unit), trial.history.epochs, strict=True)
        if record.action != "none"
    ]
    if not rows:
        return []
    strategy = trials[0].strategy
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": f"{strategy}, decisions",
            "x": [x for x, *_ in rows],
            "y": [figures.finite(record.metrics.get(monitor)) for _, record, _ in rows],
            "text": [
                f"{strategy}, seed {trial.seed}, epoch {record.epoch}: "
                + ACTIONS.get(record.action, figures.plain(record.action))
                for _, record, trial in rows
            ],
            "marker": {
                "symbol": [_SYMBOLS.get(record.action, "circle") for _, record, _ in rows],
                "size": 8,
                "color": shade,
                "line": {"width": 1.2, "color": "--card"},
            },
            "hovertemplate": "%{text}<extra></extra>",
        }
    ]


@lru_cache
def _template() -> jinja2.Template:
    """The page's own template among the filters and settings of the report's."""
    environment = report.template().environment.overlay(
        loader=jinja2.FileSystemLoader(Path(__file__).parent)
    )
    return environment.get_template("page.html")
