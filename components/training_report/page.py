"""Training report as one self-contained HTML page.  Pure: values in, text out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from markupsafe import Markup

from components.evaluation.results import EXAMPLE_COUNT, Evaluation
from components.gate import Check
from components.page import render
from components.page.plots import Plot
from components.page.render import count, duration, interval, metric
from components.servable.verdict import Result
from components.training_report import figures
from components.training_report.data import DataSummary
from components.training_report.mistakes import Mistakes
from components.training_report.residuals import Residuals
from schemas.columns import Input
from trainer_module.history import RANGE_TEST, History
from trainer_module.schedule.strategy import ACTIONS

_TEMPLATE = Path(__file__).parent / "report.html"
_WORST = 15
_CONFUSIONS = 15
_GATES = 10
_PROBLEMS = 20
_DISTANCES = 20
_BELOW_VERDICT = '<dl class="tiles">'
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Report:
    """Content of the page.

    Attributes:
        title: Heading.
        written: When, with its time zone.
        history: The training run; None where it has no record.
        evaluation: Result of the Evaluator.
        blessed: Whether the model passed every gate; None where it was not judged.
        servable: Whether the model can be served; None where that was not tried.
        data: The data.
        split: Split that was evaluated.
        mistakes: The most confident mistakes, or the residuals of a regression, or why they are not
            known.
        run: Id of the pipeline run; empty where it is not known.
        source: Where the data came from; empty where it is not known.
        model: Name of the model; empty where it is not known.
        anomalies: Violations of the schema; None where the data was not checked.
        drift: Distances of the data, the largest first; None where they are not known.
        serving: How the model served; None where that was not tried, or only the verdict is known.
        columns: Columns of a table by the input that takes them; empty where there are none.
        command: Command that repeats the run; empty where it is not known.
        versions: Version of each library, by its name.
        fingerprint: Fingerprint of the training code; empty where it is not known.
    """

    title: str
    written: datetime
    history: History | None
    evaluation: Evaluation
    blessed: bool | None
    servable: bool | None
    data: DataSummary
    split: str
    mistakes: Mistakes | Residuals | str
    run: str = ""
    source: str = ""
    model: str = ""
    anomalies: Sequence[str] | None = None
    drift: Sequence[Check] | None = None
    serving: Result | None = None
    columns: Mapping[str, Input] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""


def page(report: Report) -> str:
    """Returns the page: HTML that loads nothing.

    Every text from outside is escaped; class and file names may be as hostile as they like.
    """
    evaluation = report.evaluation
    matrix = evaluation.matrix
    history = report.history or History({}, "", "min")
    plots: dict[str, Plot | None] = {
        "by-class": figures.by_class(evaluation),
        "counts": figures.counts(report.data.classes),
    }
    if history.epochs:
        plots["training"] = figures.training(history)
        plots["metrics"] = figures.other_metrics(history)
        plots["noise"] = figures.noise(history)
        if test := history.config.get(RANGE_TEST):
            plots["range-test"] = figures.range_test(test)
    if isinstance(report.mistakes, Residuals):
        plots["residuals"] = figures.residuals(report.mistakes)
    if evaluation.calibration:
        plots["calibration"] = figures.calibration(evaluation.calibration)
        if evaluation.calibration.thresholds:
            plots["thresholds"] = figures.thresholds(evaluation.calibration)
    indices = matrix.most_confused(figures.CLASSES_SHOWN) if matrix else ()
    if matrix:
        plots["confusion"] = figures.confusion(matrix, indices)
    # Gates on the whole, and those that failed, are never folded away.
    first = [gate for gate in evaluation.gates if gate.subject is None or not gate.passed]
    rest = [gate for gate in evaluation.gates if gate.subject is not None and gate.passed]
    rest.sort(key=lambda gate: math.inf if gate.margin is None else gate.margin)
    return render.page(
        _TEMPLATE,
        {name: plot for name, plot in plots.items() if plot is not None},
        r=report,
        history=history,
        evaluation=evaluation,
        about=_about(report, history),
        verdict=_verdict(report),
        tiles=_tiles(report, history),
        pairs=figures.pairs(history),
        actions=ACTIONS,
        gates=_fold([*first, *rest], len(first) + max(_GATES - len(first), 3)),
        of_gate=_of_gate,
        metric_names=list(evaluation.candidate.values),
        class_metrics=[
            name
            for name in evaluation.candidate.values
            if any(name in metrics.values for _, metrics in evaluation.classes)
        ],
        worst=evaluation.classes[:_WORST],
        changes=_changes(evaluation),
        matrix=matrix,
        matrix_indices=indices,
        matrix_totals=matrix.totals() if matrix else {},
        confusions=matrix.confusions()[:_CONFUSIONS] if matrix else (),
        failed_checks=_failed_checks(report),
        # Failed checks first, and those that were not judged last.
        checks=sorted(
            report.serving.checks if report.serving else (),
            key=lambda check: (False, True, None).index(check.passed),
        ),
        distances=_fold(report.drift or (), _DISTANCES),
        class_counts=_class_counts(report.data),
        count_summary=_count_summary(report.data),
        config=render.flatten({k: v for k, v in history.config.items() if k != RANGE_TEST}),
        problems=evaluation.problems[:_PROBLEMS],
        more_problems=max(len(evaluation.problems) - _PROBLEMS, 0),
    )


def with_note(text: str, note: str) -> str:
    """Returns a page that says, below the verdict, what happened to its model later.

    Args:
        text: The page.
        note: What happened; it is escaped.
    """
    line = Markup('<p class="warning">{}</p>\n').format(note)
    return text.replace(_BELOW_VERDICT, f"{line}{_BELOW_VERDICT}", 1)


def _about(report: Report, history: History) -> list[str]:
    """Returns what run and model the page is about."""
    weights = history.config.get("model")
    parts = [
        f"run {report.run}" if report.run else "",
        f"data {report.source}" if report.source else "",
        f"model {report.model}" if report.model else "",
    ]
    if isinstance(weights, list) and weights:
        parts.append(f"{sum(math.prod(shape) for shape in weights):,} parameters")
    return [part for part in parts if part]


class _Verdict(NamedTuple):
    kind: str
    headline: str
    text: str


def _verdict(report: Report) -> _Verdict:
    evaluation = report.evaluation
    failed = len(_failed_checks(report))
    serving = f"{count(failed, 'check')} of serving failed" if failed else "the serving test failed"
    if report.blessed is None:
        return _Verdict("unknown", "Not judged", "The Evaluator had no thresholds to judge by.")
    if not report.blessed:
        number = len(evaluation.failed)
        text = f"{count(number, 'gate')} failed." if number else "The evaluation has problems."
        if report.servable is False:
            text += f" It is not servable either: {serving}."
        return _Verdict("bad", "Not blessed", text)
    if report.servable is False:
        text = f"Every gate passed; {serving}."
        return _Verdict("bad", "Blessed, but not servable", text)
    # A margin of examples cannot be compared with one of a metric.
    margins = [
        (gate.margin, gate.rule)
        for gate in evaluation.gates
        if gate.margin is not None and math.isfinite(gate.margin) and gate.metric != EXAMPLE_COUNT
    ]
    text = f"{count(len(evaluation.gates), 'gate')} passed."
    if margins:
        margin, rule = min(margins)
        text += f" The narrowest is {rule}, by {margin:.4f}."
    if evaluation.baseline is None:
        text += " There is no earlier blessed model to compare with yet."
    return _Verdict("good", "Blessed", text)


def _failed_checks(report: Report) -> tuple[Check, ...]:
    return report.serving.failed if report.serving is not None else ()


class _Tile(NamedTuple):
    name: str
    value: str
    note: str = ""


def _tiles(report: Report, history: History) -> list[_Tile]:
    evaluation = report.evaluation
    candidate, baseline = evaluation.candidate, evaluation.baseline
    tiles = []
    for name, value in list(candidate.values.items())[:2]:
        known = candidate.examples
        examples = "the examples" if known is None else count(known, "example")
        note = f"on {examples} of {report.split}"
        if ends := candidate.interval(name):
            note = f"95 % interval {interval(ends)}"
        if baseline is not None and name in baseline.values:
            note += f", baseline {metric(baseline[name])}"
        tiles.append(_Tile(f"{report.split} {name}", metric(value), note))
    best = history.best
    if best is not None:
        monitored = best.metrics.get(history.monitor)
        tiles.append(_Tile(f"best {history.monitor}", metric(monitored), f"epoch {best.epoch}"))
    if history.epochs:
        first, last = history.epochs[0], history.epochs[-1]
        speed = f"{last.examples / last.seconds:,.0f} examples/s" if last.seconds > 0 else ""
        tiles += [
            _Tile(
                "epochs",
                f"{len(history.epochs):,}",
                f"{last.updates:,} updates, {last.examples:,} examples",
            ),
            _Tile("time of training", duration(last.seconds), speed),
            _Tile(
                "decisions",
                str(len(history.decisions)),
                f"batch {first.batch_size:,} → {last.batch_size:,}, "
                f"rate {first.learning_rate:.3g} → {last.learning_rate:.3g}",
            ),
        ]
    return tiles


def _fold(items: Sequence[_Item], shown: int) -> tuple[Sequence[_Item], Sequence[_Item]]:
    """Returns the items to show, and those that may be folded away."""
    return items[:shown], items[shown:]


class _Change(NamedTuple):
    name: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        return self.after - self.before


def _changes(evaluation: Evaluation) -> list[_Change]:
    """Returns how the metric that ranks classes changed from the baseline's, the worst first."""
    ranked_by = evaluation.ranked_by
    changes = [
        _Change(name, evaluation.baseline_classes[name][ranked_by], metrics[ranked_by])
        for name, metrics in evaluation.classes
        if name in evaluation.baseline_classes
        and ranked_by in metrics.values
        and ranked_by in evaluation.baseline_classes[name].values
    ]
    sign = 1 if evaluation.higher_is_better else -1
    return sorted(changes, key=lambda change: (sign * change.difference, change.name))


def _class_counts(data: DataSummary) -> list[tuple[str, list[int]]]:
    names = list(dict.fromkeys(name for by_class in data.classes.values() for name in by_class))
    return [(name, [each.get(name, 0) for each in data.classes.values()]) for name in names]


def _count_summary(data: DataSummary) -> dict[str, tuple[int, int, int]]:
    """Returns smallest, median and largest class of each split."""
    ordered = {split: sorted(by_class.values()) for split, by_class in data.classes.items()}
    return {split: (n[0], n[len(n) // 2], n[-1]) for split, n in ordered.items() if n}


def _of_gate(value: float | str | None, gate: Check, sign: str = "") -> str:
    """Returns a value, a threshold or a margin of a gate in words."""
    if value is None or isinstance(value, str):
        return render.NOT_AVAILABLE if value is None else value
    words = f"{value:,.12g}" if gate.metric == EXAMPLE_COUNT else metric(value)
    return f"{sign if value > 0 else ''}{words}"
