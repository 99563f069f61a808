"""Comparison of strategies as one self-contained HTML page.  Pure: values in, text out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from components.page import plots, render
from components.page.plots import Key, Plot
from trainer_module.history import EpochRecord
from trainer_module.schedule.strategy import ACTIONS, STRATEGIES

from . import text as comparison_text
from .statistics import UNITS, Comparison, Curve, Spread, Trial, Unit

_TEMPLATE = Path(__file__).parent / "comparison.html"

_SYMBOLS = {"stop": "x", "rollback": "star-triangle-down"}
_TITLES: Mapping[Unit, str] = {
    "epochs": "epochs",
    "updates": "updates",
    "seconds": "seconds after the first epoch",
}
_HEIGHT = 320


@dataclass(frozen=True)
class Page:
    """Content of the page.

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


def page(content: Page) -> str:
    """Returns the page: HTML that loads nothing, with every text escaped."""
    comparison = content.comparison
    drawn: dict[str, Plot] = {unit: metric_over(comparison, unit) for unit in UNITS}
    drawn["accuracy"] = accuracies(comparison)
    return render.page(
        _TEMPLATE,
        drawn,
        p=content,
        c=comparison,
        first=comparison.totals[0],
        runs=comparison.ordered,
        verdict=comparison_text.verdict(comparison),
        units=UNITS,
        key=[Key(name, colour(name), "line") for name in comparison.strategies],
        actions=ACTIONS,
        colour=colour,
        text=comparison_text,
        config=render.flatten(content.config),
    )


def colour(strategy: str) -> str:
    """Returns the CSS variable of a strategy."""
    return STRATEGIES[strategy].colour if strategy in STRATEGIES else "--train"


def metric_over(comparison: Comparison, unit: Unit) -> Plot:
    """Draws the monitored metric: mean and spread, each seed, and its decisions."""
    made = plots.figure(
        _HEIGHT,
        hovermode="x unified" if unit == "epochs" else "closest",
        xaxis={"title": {"text": _TITLES[unit]}, "rangemode": "tozero", "nticks": 6},
        yaxis={"title": {"text": plots.plain(comparison.monitor)}, "range": _window(comparison)},
    )
    for curve in comparison.curves(unit):
        trials = comparison.of(curve.strategy)
        if len(trials) > 1:
            _add_band(made, curve)
            for trial in trials:
                made.add_scatter(
                    mode="lines",
                    name=f"{trial.strategy}, seed {trial.seed}",
                    x=list(trial.axis(unit)),
                    y=_metric(trial, trial.history.epochs),
                    line={"color": f"var({colour(trial.strategy)})", "width": 1},
                    opacity=0.28,
                    hoverinfo="skip",
                )
        _add_mean(made, curve, len(trials))
        _add_decisions(made, trials, unit)
    return Plot(made)


def _metric(trial: Trial, records: Sequence[EpochRecord]) -> list[float | None]:
    return [plots.finite(record.metrics.get(trial.history.monitor)) for record in records]


def _add_band(made: go.Figure, curve: Curve) -> None:
    """Draws the mean, one standard deviation down and up, where several runs are left."""
    rows = [
        (x, mean, deviation)
        for x, mean, deviation in zip(curve.x, curve.mean, curve.deviation, strict=True)
        if deviation is not None
    ]
    for sign in (-1, 1):
        made.add_scatter(
            mode="lines",
            name=f"{curve.strategy}, spread",
            x=[x for x, *_ in rows],
            y=[mean + sign * deviation for _, mean, deviation in rows],
            line={"color": f"var({colour(curve.strategy)})", "width": 0},
            hoverinfo="skip",
            fill="tonexty" if sign > 0 else None,
            fillcolor=f"var({colour(curve.strategy)}-soft)" if sign > 0 else None,
        )


def _add_mean(made: go.Figure, curve: Curve, runs: int) -> None:
    """Draws the mean: a line until the first run has ended, dotted from there."""
    whole = sum(number == runs for number in curve.runs)
    parts = [(0, whole, "solid")]
    if whole < len(curve.x):
        parts.append((max(whole - 1, 0), len(curve.x), "dot"))
    for start, end, dash in parts:
        labels = [
            ""
            if runs == 1
            else f", {curve.runs[i]} of {runs} seeds"
            if (deviation := curve.deviation[i]) is None
            else f" ± {deviation:.4f}"
            for i in range(start, end)
        ]
        made.add_scatter(
            mode="lines",
            name=curve.strategy,
            x=list(curve.x[start:end]),
            y=[plots.finite(value) for value in curve.mean[start:end]],
            text=labels,
            line={"color": f"var({colour(curve.strategy)})", "width": 2.5, "dash": dash},
            hovertemplate=f"{curve.strategy} %{{y:.4f}}%{{text}}<extra></extra>",
        )


def _add_decisions(made: go.Figure, trials: Sequence[Trial], unit: Unit) -> None:
    """Draws a mark at each decision of each seed."""
    rows = [
        (x, record, trial)
        for trial in trials
        for x, record in zip(trial.axis(unit), trial.history.epochs, strict=True)
        if record.action != "none"
    ]
    if not rows:
        return
    strategy = trials[0].strategy
    made.add_scatter(
        mode="markers",
        name=f"{strategy}, decisions",
        x=[x for x, *_ in rows],
        y=[value for _, record, trial in rows for value in _metric(trial, [record])],
        text=[
            f"{strategy}, seed {trial.seed}, epoch {record.epoch}: "
            + ACTIONS.get(record.action, plots.plain(record.action))
            for _, record, trial in rows
        ],
        marker={
            "symbol": [_SYMBOLS.get(record.action, "circle") for _, record, _ in rows],
            "size": 8,
            "color": f"var({colour(strategy)})",
            "line": {"width": 1.2, "color": "var(--card)"},
        },
        hovertemplate="%{text}<extra></extra>",
    )


def accuracies(comparison: Comparison) -> Plot:
    """Draws each run's metric on the test split, and its spread for each strategy."""
    names = [total.strategy for total in comparison.totals]
    made = plots.figure(
        _HEIGHT,
        xaxis=plots.names_axis(names),
        yaxis={
            "title": {"text": f"test {comparison.measure}"},
            "range": _around([trial.test_score for trial in comparison.trials]),
        },
    )
    for place, total in enumerate(comparison.totals):
        shade = f"var({colour(total.strategy)})"
        _add_seeds(made, place, comparison.of(total.strategy), shade)
        if total.test_score.deviation is not None:
            _add_spread(made, place, total.strategy, total.test_score, shade)
    return Plot(made)


def _add_seeds(made: go.Figure, place: int, trials: Sequence[Trial], shade: str) -> None:
    strategy = trials[0].strategy
    made.add_scatter(
        mode="markers",
        name=strategy,
        # Side by side, since runs are often equal.
        x=[place - 0.12 + 0.24 * (i + 0.5) / len(trials) for i in range(len(trials))],
        y=[trial.test_score for trial in trials],
        text=[f"seed {trial.seed}" for trial in trials],
        marker={"size": 8, "color": shade, "opacity": 0.55},
        hovertemplate=f"{strategy}, %{{text}}: %{{y:.4f}}<extra></extra>",
    )


def _add_spread(made: go.Figure, place: int, strategy: str, spread: Spread, shade: str) -> None:
    bar = {"type": "data", "array": [spread.deviation], "color": shade, "thickness": 2, "width": 6}
    made.add_scatter(
        mode="markers",
        name=f"{strategy}, mean",
        x=[place + 0.24],
        y=[spread.mean],
        error_y=bar,
        marker={"symbol": "diamond", "size": 10, "color": shade},
        hovertemplate=f"{strategy}, mean {comparison_text.share(spread)}<extra></extra>",
    )


def _window(comparison: Comparison) -> list[float] | None:
    """Returns the range of the axis of values; None for all of it.

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
    """Returns a range that shows values which may be equal, with a margin at both ends."""
    low, high = min(values), max(values)
    margin = max(0.08 * (high - low), 0.002)
    return [low - margin, high + margin]
