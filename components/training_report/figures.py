"""Plots of the training report.  Pure: values in, Plotly figures out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from components.evaluation.results import Calibration, ConfusionMatrix, Evaluation
from components.page import plots
from components.page.plots import Key, Plot, plain
from components.training_report.residuals import Residuals
from trainer_module.history import History

CLASSES_SHOWN = 40
"""Classes in a plot, at most: more cannot be told apart on a screen."""
WORST_SHOWN = 20
"""Classes in the plot of the worst ones."""

_NUMBERED = 25
"""Classes of a confusion matrix with numbers in its cells, at most: more would overlap."""
_SPLIT_COLOURS = ("--validation", "--batch", "--rate", "--noise")


def axes(history: History) -> dict[str, list[float]]:
    """Returns the values of the x axis by unit: at the start and after each epoch."""
    records = history.epochs
    return {
        "epochs": [0, *(record.epoch for record in records)],
        "updates": [0, *(record.updates for record in records)],
        "seconds": [0, *(round(record.seconds, 3) for record in records)],
    }


def pairs(history: History) -> list[tuple[str, str | None, str | None]]:
    """Returns (quantity, training metric, validation metric), the monitored quantity first.

    `val_accuracy` belongs with `accuracy`.
    """
    names = list(dict.fromkeys(name for record in history.epochs for name in record.metrics))
    by_quantity: dict[str, tuple[str | None, str | None]] = {}
    for name in names:
        quantity = name.removeprefix("val_")
        training, validation = by_quantity.get(quantity, (None, None))
        by_quantity[quantity] = (training, name) if name.startswith("val_") else (name, validation)
    monitored = history.monitor.removeprefix("val_")
    order = sorted(by_quantity, key=lambda quantity: (quantity != monitored, quantity != "loss"))
    return [(quantity, *by_quantity[quantity]) for quantity in order]


def training(history: History) -> Plot:
    """Draws the method: the monitored metric, and learning rate and batch size below it."""
    (quantity, *names), *_ = pairs(history) or [(history.monitor, None, None)]
    made = plots.panes([quantity, "learning rate", "batch size (examples)"], [2.4, 1, 1], 520)
    key = _add_metric(made, 0, history, quantity, names)
    for pane, values, name, colour in (
        (1, [record.learning_rate for record in history.epochs], "learning rate", "--rate"),
        (2, [float(record.batch_size) for record in history.epochs], "batch size", "--batch"),
    ):
        plots.add(made, pane, plots.steps(values, name, colour))
        plots.log_if_wide(made, pane, values)
    best = history.best
    if best is not None:
        star = go.Scatter(
            mode="markers",
            name="best",
            x=[list(history.epochs).index(best) + 1],
            y=[plots.finite(best.metrics.get(history.monitor))],
            marker={
                "symbol": "star",
                "size": 15,
                "color": "var(--best)",
                "line": {"width": 1, "color": "var(--card)"},
            },
            hovertemplate="best epoch<extra></extra>",
        )
        plots.add(made, 0, star)
        key.append(Key("best epoch", "--best", "star"))
    _mark_decisions(made, history)
    key += [
        Key("learning rate", "--rate", "line"),
        Key("batch size", "--batch", "line"),
        Key("action at a plateau, numbered as below", "--decision", "line dotted"),
        Key("stop or rollback", "--bad", "line dotted"),
    ]
    return Plot(made, key, axes(history))


def other_metrics(history: History) -> Plot | None:
    """Draws the metrics that are not monitored; None where there are none."""
    others = pairs(history)[1:]
    if not others:
        return None
    made = plots.panes([quantity for quantity, *_ in others], [1] * len(others), 180 * len(others))
    for pane, (quantity, *names) in enumerate(others):
        key = _add_metric(made, pane, history, quantity, names)
    return Plot(made, key, axes(history))


def _add_metric(
    made: go.Figure, pane: int, history: History, quantity: str, names: Sequence[str | None]
) -> list[Key]:
    key: list[Key] = []
    drawn: list[float | None] = []
    for name, split, dash in zip(names, ("training", "validation"), ("dot", "solid"), strict=True):
        if name is None:
            continue
        colour = "--train" if split == "training" else "--validation"
        values = [record.metrics.get(name) for record in history.epochs]
        plots.add(made, pane, plots.line(values, f"{split} {quantity}", colour, dash=dash))
        key.append(Key(split, colour, "line dotted" if dash == "dot" else "line"))
        drawn += values
    # Losses fall by powers of ten; an accuracy is read in points.
    if quantity == "loss":
        plots.log_if_wide(made, pane, drawn)
    return key


def noise(history: History) -> Plot:
    """Draws the batch size beside B_simple, and the update noise."""
    records = history.epochs
    made = plots.panes(["examples", "update noise g"], [1.4, 1.0], 400)
    measured = [record.simple_noise_scale for record in records]
    batches = [float(record.batch_size) for record in records]
    key = [Key("batch size", "--batch", "line")]
    plots.add(made, 0, plots.steps(batches, "batch size", "--batch"))
    if any(value is not None for value in measured):
        plots.add(made, 0, plots.line(measured, "B_simple", "--noise"))
        key.append(Key("simple noise scale B_simple", "--noise", "line"))
    plots.log_if_wide(made, 0, [*measured, *batches], ratio=4)
    scales = [record.update_noise for record in records]
    plots.add(made, 1, plots.steps(scales, "update noise", "--rate"))
    key.append(Key("update noise", "--rate", "line"))
    plots.log_if_wide(made, 1, scales, ratio=4)
    _mark_decisions(made, history)
    return Plot(made, key, axes(history))


def range_test(test: Mapping[str, Any]) -> Plot:
    """Draws the loss of a learning rate range test, and the rate that was chosen.

    Args:
        test: Fields of `trainer_module.training.range_test.RangeTest`.
    """
    rates, losses = test["rates"], test["losses"]
    ticks = plots.log_ticks(min(rates), max(rates))
    made = plots.figure(
        260,
        xaxis={
            "type": "log",
            "tickmode": "array",
            "tickvals": ticks,
            "exponentformat": "power",
            "title": {"text": "learning rate"},
        },
        yaxis={"title": {"text": "smoothed loss"}},
    )
    made.add_scatter(
        mode="lines",
        name="loss",
        x=rates,
        y=[plots.finite(loss) for loss in losses],
        line={"color": "var(--train)", "width": 2},
        hovertemplate="learning rate %{x:.3g}: loss %{y:.4g}<extra></extra>",
    )
    made.add_vline(test["learning_rate"], line={"color": "var(--rate)", "dash": "dot", "width": 2})
    key = [Key("training loss", "--train", "line"), Key("chosen", "--rate", "line dotted")]
    return Plot(made, key)


def _mark_decisions(made: go.Figure, history: History) -> None:
    position = {id(record): place for place, record in enumerate(history.epochs, 1)}
    for number, record in enumerate(history.decisions, 1):
        colour = "--bad" if record.action in ("stop", "rollback") else "--decision"
        plots.mark(made, position[id(record)], number, colour, record.reason)


def by_class(evaluation: Evaluation) -> Plot | None:
    """Draws the metric that ranks the classes in each of the worst ones, and its thresholds."""
    metric = evaluation.ranked_by
    worst = [
        (name, metrics.values[metric])
        for name, metrics in evaluation.classes
        if math.isfinite(metrics.values.get(metric, math.nan))
    ][:WORST_SHOWN]
    if not worst:
        return None
    names = [name for name, _ in worst]
    old = [evaluation.baseline_classes.get(name) for name in names]
    thresholds = {
        gate.subject: gate.threshold
        for gate in evaluation.gates
        if gate.subject in names and gate.metric == metric and not gate.is_change
    }
    rows = (
        (
            "baseline",
            [None if each is None else plots.finite(each.values.get(metric)) for each in old],
            {"symbol": "circle-open", "size": 11, "line": {"width": 2}},
            Key("baseline", "--muted", "ring"),
        ),
        (
            "candidate",
            [value for _, value in worst],
            {"size": 9},
            Key("candidate", "--validation", "dot"),
        ),
        (
            "threshold",
            [thresholds.get(name) for name in names],
            {"symbol": "line-ns", "size": 13, "line": {"width": 2, "color": "var(--bad)"}},
            Key("threshold", "--bad", "bar"),
        ),
    )
    made = plots.figure(
        80 + 24 * len(names),
        xaxis={"title": {"text": plain(metric)}},
        yaxis=plots.names_axis(names, vertical=True),
    )
    key = []
    for name, values, marker, entry in rows:
        if any(value is not None for value in values):
            made.add_scatter(
                mode="markers",
                name=name,
                x=values,
                y=list(range(len(names))),
                marker={"color": f"var({entry.colour})", **marker},
                text=[plain(each) for each in names],
                hovertemplate=f"%{{text}}: %{{x:.4f}}<extra>{name}</extra>",
            )
            key.append(entry)
    return Plot(made, key)


def confusion(matrix: ConfusionMatrix, indices: Sequence[int]) -> Plot:
    """Draws a confusion matrix shaded by the share of the row, right and wrong answers apart.

    Args:
        matrix: All of it.
        indices: Classes to show.
    """
    names = [matrix.name(index) for index in indices]
    totals = matrix.totals()
    is_numbered = len(indices) <= _NUMBERED
    made = plots.figure(
        130 + (max(300, 30 * len(indices)) if is_numbered else 20 * len(indices)),
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={
            **plots.names_axis(names),
            "title": {"text": "predicted as", "standoff": 16},
            "constrain": "domain",
        },
        yaxis={
            **plots.names_axis(names, vertical=True),
            "title": {"text": "actual class", "standoff": 16},
            "showgrid": False,
        },
    )
    for right, colour in ((True, "--validation"), (False, "--bad")):
        shares: list[list[float | None]] = []
        texts: list[list[str]] = []
        hovers: list[list[str]] = []
        for actual in indices:
            counts = [
                matrix.counts.get((actual, predicted), 0) if (actual == predicted) == right else 0
                for predicted in indices
            ]
            total = totals.get(actual) or 1
            shares.append([round(count / total, 6) if count else None for count in counts])
            texts.append([f"{count:.12g}" if count else "" for count in counts])
            hovers.append(
                [
                    f"{count:.12g} of {totals.get(actual, 0):.12g} {plain(matrix.name(actual))} "
                    f"predicted as {plain(other)}"
                    for count, other in zip(counts, names, strict=True)
                ]
            )
        made.add_heatmap(
            z=shares,
            text=texts,
            texttemplate="%{text}" if is_numbered else "",
            customdata=hovers,
            hovertemplate="%{customdata}<extra></extra>",
            # A class that loses one example in fifty must not look as white as one without.
            zmin=-0.2,
            zmax=1,
            colorscale=[[0, "var(--card)"], [1, f"var({colour})"]],
            showscale=False,
            xgap=1.5,
            ygap=1.5,
            hoverongaps=False,
        )
    return Plot(made, least=130 + 20 * len(indices), most=170 + 56 * len(indices))


def residuals(asked: Residuals) -> Plot:
    """Draws predictions over labels beside the line of perfect ones, and the errors' histogram."""
    labels, predictions = zip(*asked.points, strict=True)
    made = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.6, 0.4],
        horizontal_spacing=0.14,
    )
    made.update_layout(template=plots.TEMPLATE, height=360)
    low, high = min(*labels, *predictions), max(*labels, *predictions)
    made.add_scatter(
        mode="markers",
        x=labels,
        y=predictions,
        marker={"size": 6, "color": "var(--validation)", "opacity": 0.55},
        hovertemplate="label %{x:.5~g}, predicted %{y:.5~g}<extra></extra>",
        row=1,
        col=1,
    )
    made.add_scatter(
        mode="lines",
        x=[low, high],
        y=[low, high],
        line={"color": "var(--muted)", "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
        row=1,
        col=1,
    )
    made.add_histogram(
        x=[predicted - label for label, predicted in asked.points],
        nbinsx=40,
        marker_color="var(--validation)",
        hovertemplate="error %{x}: %{y} examples<extra></extra>",
        row=1,
        col=2,
    )
    made.update_xaxes(title_text="label", row=1, col=1)
    made.update_yaxes(title_text="prediction", row=1, col=1)
    made.update_xaxes(title_text="prediction - label", row=1, col=2)
    made.update_yaxes(title_text="examples", row=1, col=2)
    key = [Key("example", "--validation", "dot"), Key("perfect", "--muted", "line dotted")]
    return Plot(made, key, least=560)


def calibration(measured: Calibration) -> Plot:
    """Draws the share of examples of a class over the probability that the model gives it."""
    probabilities, shares, numbers = zip(*measured.points, strict=True)
    made = plots.figure(
        320,
        xaxis={"title": {"text": f"probability of {plain(measured.name)}"}, "range": [0, 1]},
        yaxis={"title": {"text": "share of the examples"}, "range": [-0.02, 1.02]},
    )
    made.add_scatter(
        mode="lines",
        x=[0, 1],
        y=[0, 1],
        line={"color": "var(--muted)", "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    made.add_scatter(
        mode="lines+markers",
        x=probabilities,
        y=shares,
        text=[f"{number:,.12g} examples" for number in numbers],
        line={"color": "var(--validation)", "width": 2.5},
        marker={"size": 8},
        hovertemplate="probability %{x:.3f}: %{y:.3f} of %{text}<extra></extra>",
    )
    key = [Key("model", "--validation", "line"), Key("perfect", "--muted", "line dotted")]
    return Plot(made, key, most=640)


def thresholds(measured: Calibration) -> Plot:
    """Draws precision, recall and F1 over the threshold from which a class is predicted."""
    made = plots.figure(
        320,
        xaxis={
            "title": {"text": f"threshold on the probability of {plain(measured.name)}"},
            "range": [0, 1],
        },
        yaxis={"range": [-0.02, 1.02]},
    )
    lines = {"precision": "--validation", "recall": "--batch", "f1": "--noise"}
    for name, colour in lines.items():
        made.add_scatter(
            mode="lines+markers",
            x=[at.threshold for at in measured.thresholds],
            y=[getattr(at, name) for at in measured.thresholds],
            line={"color": f"var({colour})", "width": 2.5},
            hovertemplate=f"from %{{x:.2f}}: {name} %{{y:.3f}}<extra></extra>",
        )
    key = [Key(name, colour, "line") for name, colour in lines.items()]
    return Plot(made, key, most=640)


def counts(classes: Mapping[str, Mapping[str, int]]) -> Plot | None:
    """Draws examples by class, the splits stacked; None for too many classes to tell apart.

    Args:
        classes: Number of examples by split and class.
    """
    names = list(dict.fromkeys(name for by_class in classes.values() for name in by_class))
    if not 0 < len(names) <= CLASSES_SHOWN:
        return None
    made = plots.figure(
        300,
        barmode="stack",
        bargap=0.25,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis=plots.names_axis(names),
        yaxis={"title": {"text": "examples"}},
    )
    key = []
    for place, (split, by_class) in enumerate(classes.items()):
        colour = _SPLIT_COLOURS[place % len(_SPLIT_COLOURS)]
        made.add_bar(
            name=plain(split),
            x=list(range(len(names))),
            y=[by_class.get(name, 0) for name in names],
            text=[plain(name) for name in names],
            textposition="none",
            hovertemplate="%{text}: %{y}<extra>%{fullData.name}</extra>",
            marker_color=f"var({colour})",
        )
        key.append(Key(split, colour, "box"))
    return Plot(made, key, most=200 + 100 * len(names))
