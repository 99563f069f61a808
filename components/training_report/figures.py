"""The plots of a report as Plotly specifications.  Pure: values in, plain JSON values out.

Colours are names of CSS variables ("--train"), which the page looks up, so that they follow light
and dark mode. Lines over the epochs have an `index` into the axes instead of x values: 0 is the
start of the run, i the end of the i-th epoch; the page fills in epochs, updates or seconds.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from components.evaluation.results import ConfusionMatrix, Evaluation
from trainer_module.history import EpochRecord, History

Figure: TypeAlias = dict[str, Any]

CLASSES_SHOWN = 40
"""Classes in a plot, at most: more cannot be told apart on a screen."""
WORST_SHOWN = 20
"""Classes in the plot of the worst ones."""


class Key(NamedTuple):
    """An entry of a plot's legend.

    Attributes:
        name: What is drawn.
        colour: Name of the CSS variable.
        shape: Class of the mark, as report.css draws it.
    """

    name: str
    colour: str
    shape: str


_GAP = 0.06
_NAME_SHOWN = 18
_LOG_RATIO = 15


def axes(history: History) -> dict[str, list[float]]:
    """What may be on the x axis: the state at the start and after each epoch."""
    records = history.epochs
    return {
        "epochs": [0, *(record.epoch for record in records)],
        "updates": [0, *(record.updates for record in records)],
        "seconds": [0, *(round(record.seconds, 3) for record in records)],
    }


def pairs(history: History) -> list[tuple[str, str | None, str | None]]:
    """(quantity, metric on the training split, on the validation split), the monitored one first.

    `val_accuracy` belongs with `accuracy`.
    """
    names = list(dict.fromkeys(name for record in history.epochs for name in record.metrics))
    found: dict[str, tuple[str | None, str | None]] = {}
    for name in names:
        quantity = name.removeprefix("val_")
        training, validation = found.get(quantity, (None, None))
        found[quantity] = (training, name) if name.startswith("val_") else (name, validation)
    monitored = history.monitor.removeprefix("val_")
    order = sorted(found, key=lambda quantity: (quantity != monitored, quantity != "loss"))
    return [(quantity, *found[quantity]) for quantity in order]


def training(history: History) -> Figure:
    """Metrics, learning rate and batch size, one pane each over a common x axis."""
    quantities = pairs(history)
    heights = [*(2.0 for _ in quantities), 1.0, 1.0]
    figure = stack([*(quantity for quantity, *_ in quantities), "learning rate", "batch"], heights)
    records = history.epochs
    for pane, (quantity, of_training, of_validation) in enumerate(quantities):
        drawn: list[float | None] = []
        for name, words, style in (
            (of_training, "training", {"color": "--train", "width": 2, "dash": "dot"}),
            (of_validation, "validation", {"color": "--validation", "width": 2.5}),
        ):
            if name is None:
                continue
            values = [record.metrics.get(name) for record in records]
            _add(figure, pane, _after(records), values, f"{words} {quantity}", style)
            drawn += values
        # Losses fall by powers of ten; an accuracy is read in points.
        if quantity == "loss":
            log_if_wide(figure, pane, drawn)
    panes = len(quantities)
    rates = [record.learning_rate for record in records]
    batches = [float(record.batch_size) for record in records]
    add_steps(figure, panes, rates, "learning rate", "--rate")
    log_if_wide(figure, panes, rates)
    add_steps(figure, panes + 1, batches, "batch size", "--batch")
    log_if_wide(figure, panes + 1, batches)
    _mark_best(figure, history, quantities)
    _mark_decisions(figure, history)
    figure["key"] = [
        Key("training", "--train", "line dotted"),
        Key("validation", "--validation", "line"),
        Key("best", "--best", "star"),
    ]
    figure["layout"]["height"] = 220 * panes + 220
    return figure


def noise(history: History) -> Figure:
    """Batch size beside B_simple, and the update noise, over the same x axis."""
    records = history.epochs
    figure = stack(["examples", "update noise"], [1.4, 1.0])
    measured = [record.simple_noise_scale for record in records]
    batches = [record.batch_size for record in records]
    figure["key"] = [Key("batch size", "--batch", "line")]
    add_steps(figure, 0, batches, "batch size", "--batch")
    if any(value is not None for value in measured):
        style = {"color": "--noise", "width": 2.5}
        _add(figure, 0, _after(records), measured, "B_simple", style)
        figure["key"].append(Key("B_simple", "--noise", "line"))
    log_if_wide(figure, 0, [*measured, *batches], ratio=4)
    scales = [record.update_noise for record in records]
    add_steps(figure, 1, scales, "update noise", "--rate")
    log_if_wide(figure, 1, scales, ratio=4)
    _mark_decisions(figure, history)
    figure["layout"]["height"] = 380
    return figure


def by_class(evaluation: Evaluation) -> Figure | None:
    """The metric that ranks the classes in each of the worst ones, and the thresholds on it."""
    metric = evaluation.ranked_by
    shown = [
        (name, metrics.values[metric])
        for name, metrics in evaluation.classes
        if math.isfinite(metrics.values.get(metric, math.nan))
    ][:WORST_SHOWN]
    if not shown:
        return None
    names = [name for name, _ in shown]
    rows = list(range(len(names)))
    values = [value for _, value in shown]
    data: list[Figure] = []
    old = [evaluation.baseline_classes.get(name) for name in names]
    if any(old):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "baseline",
                "y": rows,
                "x": [None if m is None else finite(m.values.get(metric)) for m in old],
                "marker": {
                    "symbol": "circle-open",
                    "size": 11,
                    "color": "--muted",
                    "line": {"width": 2, "color": "--muted"},
                },
            }
        )
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "candidate",
            "y": rows,
            "x": values,
            "marker": {"size": 9, "color": "--validation"},
        }
    )
    thresholds = {
        gate.subject: gate.threshold
        for gate in evaluation.gates
        if gate.subject in names and gate.metric == metric and not gate.is_change
    }
    if thresholds:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "threshold",
                "y": rows,
                "x": [thresholds.get(name) for name in names],
                "marker": {
                    "symbol": "line-ns",
                    "size": 13,
                    "color": "--bad",
                    "line": {"width": 2, "color": "--bad"},
                },
            }
        )
    shapes = {"baseline": "--muted ring", "candidate": "--validation dot", "threshold": "--bad bar"}
    key = [Key(trace["name"], *shapes[trace["name"]].split()) for trace in data]
    for trace in data:
        trace["text"] = [plain(name) for name in names]
        trace["hovertemplate"] = f"%{{text}}: %{{x:.4f}}<extra>{trace['name']}</extra>"
    layout = {
        "height": 80 + 24 * len(names),
        "margin": {"l": 10, "r": 16, "t": 10, "b": 40},
        "xaxis": {"title": {"text": plain(metric)}, **AXIS},
        "yaxis": {
            **AXIS,
            **_ticks(names, down=True),
            "automargin": True,
        },
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout, "key": key}


def confusion(matrix: ConfusionMatrix, indices: Sequence[int]) -> Figure:
    """A confusion matrix whose shade is the share of the row: right answers apart from wrong.

    Args:
        matrix: All of it.
        indices: Classes to show.
    """
    names = [matrix.name(index) for index in indices]
    totals = matrix.totals()

    def grid(right: bool) -> tuple[list[list[float | None]], list[list[str]]]:
        shares: list[list[float | None]] = []
        texts: list[list[str]] = []
        for actual in indices:
            counts = [
                matrix.counts.get((actual, predicted), 0) if (actual == predicted) == right else 0
                for predicted in indices
            ]
            total = totals.get(actual) or 1
            shares.append([round(count / total, 6) if count else None for count in counts])
            texts.append([f"{count:.12g}" if count else "" for count in counts])
        return shares, texts

    data = []
    for right, colour in ((True, "--validation"), (False, "--bad")):
        shares, texts = grid(right)
        data.append(
            {
                "type": "heatmap",
                "z": shares,
                "text": texts,
                # Numbers that overlap would tell less than shades; the table has them all.
                "texttemplate": "%{text}" if len(indices) <= 25 else "",
                "hovertemplate": "%{customdata}<extra></extra>",
                "customdata": [
                    [
                        f"{text or 0} of {totals.get(actual, 0):.12g} {plain(name)} "
                        f"taken for {plain(other)}"
                        for text, other in zip(row, names, strict=True)
                    ]
                    for actual, name, row in zip(indices, names, texts, strict=True)
                ],
                "zmin": 0,
                "zmax": 1,
                # A class that loses one example in fifty must not look as white as one without.
                "colorscale": [
                    [0, "--card", colour, 0.18],
                    [0.1, "--card", colour, 0.45],
                    [0.5, "--card", colour, 0.85],
                    [1, "--card", colour, 1],
                ],
                "showscale": False,
                "xgap": 1.5,
                "ygap": 1.5,
                "hoverongaps": False,
            }
        )
    side = max(300, 30 * len(indices)) if len(indices) <= 25 else 20 * len(indices)
    layout = {
        "height": side + 130,
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "xaxis": {
            **AXIS,
            **_ticks(names),
            "title": {"text": "taken for", "standoff": 16},
            "showgrid": False,
            "automargin": True,
            "constrain": "domain",
        },
        "yaxis": {
            **AXIS,
            **_ticks(names, down=True),
            "title": {"text": "actual class", "standoff": 16},
            "showgrid": False,
            "automargin": True,
        },
    }
    # The page scrolls the plot sideways where there is no room for cells of this many pixels.
    widths = {"least": 130 + 20 * len(indices), "most": 170 + 56 * len(indices)}
    return {"data": data, "layout": layout, **widths}


def counts(classes: Mapping[str, Mapping[str, int]]) -> Figure | None:
    """Examples by class, the splits stacked; None for too many classes to tell apart.

    Args:
        classes: Number of examples by split and class.
    """
    names = list(dict.fromkeys(name for found in classes.values() for name in found))
    if not 0 < len(names) <= CLASSES_SHOWN:
        return None
    colours = ["--validation", "--batch", "--rate", "--noise"]
    data = [
        {
            "type": "bar",
            "name": plain(split),
            "x": list(range(len(names))),
            "y": [found.get(name, 0) for name in names],
            "text": [plain(name) for name in names],
            "textposition": "none",
            "hovertemplate": "%{text}: %{y}<extra>%{fullData.name}</extra>",
            "marker": {"color": colours[position % len(colours)]},
        }
        for position, (split, found) in enumerate(classes.items())
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.25,
        "height": 300,
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "xaxis": {**AXIS, **_ticks(names), "automargin": True, "showgrid": False},
        "yaxis": {**AXIS, "title": {"text": "examples"}, "automargin": True},
    }
    key = [
        Key(split, colours[position % len(colours)], "box")
        for position, split in enumerate(classes)
    ]
    return {"data": data, "layout": layout, "key": key, "most": 200 + 100 * len(names)}


AXIS: Figure = {"gridcolor": "--grid", "linecolor": "--grid", "zeroline": False}


def plain(text: str) -> str:
    """Text as Plotly shows it literally, which otherwise takes `<b>` for markup."""
    return html.escape(text, quote=False)


def _short(text: str) -> str:
    return text if len(text) <= _NAME_SHOWN else text[: _NAME_SHOWN - 1] + "…"


def _ticks(names: Sequence[str], *, down: bool = False) -> Figure:
    """Names as ticks: on an axis of names Plotly would merge equal ones and count numbers."""
    longest = max(len(_short(name)) for name in names)
    ends = [-0.5, len(names) - 0.5]
    slanted = -90 if len(names) > 25 else -45
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [plain(_short(name)) for name in names],
        "tickangle": 0 if down or longest * len(names) <= 45 else slanted,
        "range": ends[::-1] if down else ends,
        "ticks": "",
        # Plotly would measure every name to see whether it leaves the plot; margins see to that.
        "ticklabeloverflow": "allow",
    }


def finite(value: float | None) -> float | None:
    """The value, or None where there is none to draw."""
    return value if value is not None and math.isfinite(value) else None


def stack(titles: Sequence[str], heights: Sequence[float]) -> Figure:
    """Panes above each other, the first at the top, over one x axis."""
    unit = (1 - _GAP * (len(heights) - 1)) / sum(heights)
    layout: Figure = {
        "margin": {"l": 10, "r": 16, "t": 30, "b": 46},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "xaxis": {
            **AXIS,
            "title": {"text": ""},
            "anchor": f"y{len(heights)}",
            "showspikes": True,
            "spikemode": "across",
            "spikethickness": 1,
            "spikedash": "dot",
            "spikecolor": "--muted",
        },
        "shapes": [],
        "annotations": [],
    }
    top = 1.0
    for pane, (title, height) in enumerate(zip(titles, heights, strict=True)):
        bottom = max(top - unit * height, 0.0)
        layout["yaxis" + _number(pane)] = {
            **AXIS,
            "domain": [bottom, top],
            "title": {"text": plain(title)},
            "automargin": True,
            "nticks": 6 if height > 1 else 4,
        }
        top = bottom - _GAP
    return {"data": [], "layout": layout, "index": [], "marks": []}


def _number(pane: int) -> str:
    return "" if pane == 0 else str(pane + 1)


def _after(records: Sequence[EpochRecord]) -> list[int]:
    return list(range(1, len(records) + 1))


def _add(
    figure: Figure,
    pane: int,
    index: list[int],
    values: Iterable[float | None],
    name: str,
    line: Figure,
) -> None:
    few = len(index) <= 60
    figure["data"].append(
        {
            "type": "scatter",
            "mode": "lines+markers" if few else "lines",
            "name": plain(name),
            "y": [finite(value) for value in values],
            "yaxis": "y" + _number(pane),
            "line": line,
            "marker": {"size": 5, "color": line["color"]},
            "hovertemplate": f"{plain(name)} %{{y:.5~g}}<extra></extra>",
        }
    )
    figure["index"].append(index)


def add_steps(
    figure: Figure,
    pane: int,
    values: Sequence[float],
    name: str,
    colour: str,
) -> None:
    """A value that holds from the end of one epoch to the end of the next."""
    figure["data"].append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "y": [finite(value) for value in (*values[:1], *values)],
            "yaxis": "y" + _number(pane),
            "line": {"color": colour, "width": 2.5, "shape": "vh"},
            "hovertemplate": f"{name} %{{y:.5~g}}<extra></extra>",
        }
    )
    figure["index"].append(list(range(len(values) + 1)))


def log_if_wide(
    figure: Figure,
    pane: int,
    values: Iterable[float | None],
    *,
    ratio: float = _LOG_RATIO,
) -> None:
    """Make an axis logarithmic where its values differ by a large factor and none is zero."""
    known = [value for value in map(finite, values) if value is not None]
    axis = figure["layout"]["yaxis" + _number(pane)]
    if known and min(known) > 0 and max(known) > ratio * min(known):
        ticks = _log_ticks(min(known), max(known))
        axis |= {"type": "log", "tickmode": "array", "tickvals": ticks}
    elif known and min(known) == max(known):
        # Of a constant Plotly would show a range around it, as if it had been measured.
        axis |= {"tickmode": "array", "tickvals": [known[0]]}


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten for a narrow range, only the powers for a wide one."""
    digits = (1, 2, 5) if high < 200 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{digit}e{power}") for power in powers for digit in digits]


def _mark_best(
    figure: Figure, history: History, quantities: list[tuple[str, str | None, str | None]]
) -> None:
    best = history.best
    for pane, names in enumerate(quantities):
        if best is None or history.monitor not in names[1:]:
            continue
        figure["data"].append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "best",
                "y": [finite(best.metrics.get(history.monitor))],
                "yaxis": "y" + _number(pane),
                "marker": {
                    "symbol": "star",
                    "size": 15,
                    "color": "--best",
                    "line": {"width": 1, "color": "--card"},
                },
                "hovertemplate": "best so far, and exported<extra></extra>",
            }
        )
        figure["index"].append([list(history.epochs).index(best) + 1])


def _mark_decisions(figure: Figure, history: History) -> None:
    """A numbered line through all panes for each decision."""
    position = {id(record): place for place, record in enumerate(history.epochs, 1)}
    for number, record in enumerate(history.decisions, 1):
        colour = "--bad" if record.action in ("stop", "rollback") else "--decision"
        figure["layout"]["shapes"].append(
            {
                "type": "line",
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "x0": 0,
                "x1": 0,
                "opacity": 0.75,
                "line": {"color": colour, "width": 1.25, "dash": "dot"},
            }
        )
        figure["layout"]["annotations"].append(
            {
                "text": f"<b>{number}</b>",
                "hovertext": plain(record.reason),
                "x": 0,
                "yref": "paper",
                "y": 1,
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 11, "color": "--card"},
                "bgcolor": colour,
                "borderpad": 3,
            }
        )
        figure["marks"].append(position[id(record)])
