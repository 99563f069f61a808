"""The report as one self-contained HTML page.  Pure: values in, text out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from components.evaluation.interval import Interval
from components.evaluation.results import ACCURACY, EXAMPLE_COUNT, Evaluation
from components.gate import Check
from components.training_report import figures
from components.training_report.data import DataSummary
from components.training_report.mistakes import Mistakes
from components.training_report.serving import Serving
from schemas.columns import Input
from trainer_module.history import EpochRecord, History
from trainer_module.schedule.strategy import ACTIONS
from trainer_module.util.text import visible

FILE_NAME = "report.html"

_FOLDER = Path(__file__).parent
_WORST = 15
_CONFUSIONS = 15
_GATES = 10
_PROBLEMS = 20
_DISTANCES = 20
_UNKNOWN = "n/a"
_BELOW_VERDICT = '<dl class="tiles">'


@dataclass(frozen=True)
class Report:
    """All that the page tells.

    Attributes:
        title: Heading.
        written: When, with its time zone.
        history: The training run; None where it has no record.
        evaluation: What the Evaluator found.
        blessed: Whether the model passed every gate; None where it was not judged.
        servable: Whether the model was seen to serve; None where that was not tried.
        data: The data.
        split: Split that was evaluated.
        mistakes: The mistakes the model is surest of, or why they are not known.
        anomalies: What the data has against its schema, or None where it was not checked.
        drift: How far the data has moved, the largest distance first; None where it is not known.
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
    mistakes: Mistakes | str
    anomalies: Sequence[str] | None = None
    drift: Sequence[Check] | None = None
    serving: Serving | None = None
    columns: Mapping[str, Input] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""


def render(report: Report) -> str:
    """The page: HTML that needs nothing but itself.

    Every text from outside is escaped; class and file names may be as hostile as they like.
    """
    evaluation = report.evaluation
    matrix = evaluation.matrix
    indices: tuple[int, ...] = ()
    plots: dict[str, figures.Figure | None] = {
        "by-class": figures.by_class(evaluation),
        "counts": figures.counts(report.data.classes),
    }
    history = _history(report)
    if history.epochs:
        plots["training"] = figures.training(history)
        plots["noise"] = figures.noise(history)
    if matrix is not None:
        indices = matrix.most_confused(figures.CLASSES_SHOWN)
        plots["confusion"] = figures.confusion(matrix, indices)
    drawn = {name: {"key": (), **plot} for name, plot in plots.items() if plot is not None}
    return template().render(
        r=report,
        history=history,
        evaluation=evaluation,
        verdict=_verdict(report),
        tiles=_tiles(report),
        pairs=figures.pairs(history),
        actions=ACTIONS,
        gates=_Gates.of(evaluation.gates),
        metric_names=list(evaluation.candidate.values),
        worst=evaluation.classes[:_WORST],
        changes=_changes(evaluation),
        matrix=matrix,
        matrix_indices=indices,
        matrix_totals=matrix.totals() if matrix else {},
        confusions=matrix.confusions()[:_CONFUSIONS] if matrix else (),
        failed_checks=_failed_checks(report),
        distances=_Distances.of(report.drift or ()),
        class_counts=_class_counts(report.data),
        count_summary=_count_summary(report.data),
        config=flatten(history.config),
        problems=evaluation.problems[:_PROBLEMS],
        more_problems=max(len(evaluation.problems) - _PROBLEMS, 0),
        plots=drawn,
        page_data=script_json({"axes": figures.axes(history), "plots": drawn}),
        css=Markup(asset("report.css")),
        script=Markup(asset("report.js")),
        plotly=Markup(plotly_js()),
    )


def with_note(text: str, note: str) -> str:
    """Returns a page that tells, below the verdict, what happened to its model later.

    Args:
        text: The page.
        note: What happened; it is escaped.
    """
    line = Markup('<p class="warning">{}</p>\n').format(note)
    return text.replace(_BELOW_VERDICT, f"{line}{_BELOW_VERDICT}", 1)


@dataclass(frozen=True)
class _Verdict:
    kind: str
    headline: str
    text: str


def _verdict(report: Report) -> _Verdict:
    failed = report.evaluation.failed
    if report.blessed is None:
        return _Verdict("unknown", "Not judged", "The Evaluator had no thresholds to judge by.")
    if not report.blessed:
        number = len(failed)
        text = f"{_count(number, 'gate')} failed." if number else "The evaluation has problems."
        if report.servable is False:
            text += f" It is not servable either: {_serving_failed(report)}."
        return _Verdict("bad", "Not blessed", text)
    if report.servable is False:
        text = f"Every gate passed; {_serving_failed(report)}."
        return _Verdict("bad", "Blessed, but not servable", text)
    # A margin of examples cannot be compared with one of a metric.
    margins = [
        (gate.margin, gate.rule)
        for gate in report.evaluation.gates
        if gate.margin is not None and math.isfinite(gate.margin) and gate.metric != EXAMPLE_COUNT
    ]
    text = f"{_count(len(report.evaluation.gates), 'gate')} passed."
    if margins:
        margin, rule = min(margins)
        text += f" The narrowest is {rule}, by {margin:.4f}."
    if report.evaluation.baseline is None:
        text += " There is no earlier blessed model to compare with yet."
    return _Verdict("good", "Blessed", text)


def _failed_checks(report: Report) -> tuple[Check, ...]:
    return report.serving.failed if report.serving is not None else ()


def _serving_failed(report: Report) -> str:
    number = len(_failed_checks(report))
    return f"{_count(number, 'check')} of serving failed" if number else "the serving test failed"


def _history(report: Report) -> History:
    """The training run; one without epochs where it has no record."""
    return report.history or History({}, "", "min")


@dataclass(frozen=True)
class _Tile:
    name: str
    value: str
    note: str = ""


def _tiles(report: Report) -> list[_Tile]:
    evaluation, history = report.evaluation, _history(report)
    tiles = []
    for name, value in list(evaluation.candidate.values.items())[:2]:
        baseline = evaluation.baseline
        note = f"on {_examples(evaluation.candidate.examples)} of {report.split}"
        if name == ACCURACY and evaluation.candidate.interval:
            note = f"95 % interval {_interval(evaluation.candidate.interval)}"
        if baseline is not None and name in baseline.values:
            note += f", baseline {_metric(baseline[name])}"
        tiles.append(_Tile(f"{report.split} {name}", _metric(value), note))
    best = history.best
    if best is not None:
        value = best.metrics.get(history.monitor, math.nan)
        tiles.append(_Tile(f"best {history.monitor}", _metric(value), f"epoch {best.epoch}"))
    if history.epochs:
        last = history.epochs[-1]
        tiles.append(
            _Tile(
                "epochs",
                f"{len(history.epochs):,}",
                f"{last.updates:,} updates, {last.examples:,} examples",
            )
        )
        tiles.append(
            _Tile(
                "time of training",
                _duration(last.seconds),
                f"{last.examples / last.seconds:,.0f} examples/s" if last.seconds > 0 else "",
            )
        )
        first = history.epochs[0]
        tiles.append(
            _Tile(
                "decisions",
                str(len(history.decisions)),
                f"batch {first.batch_size:,} → {last.batch_size:,}, "
                f"rate {first.learning_rate:.3g} → {last.learning_rate:.3g}",
            )
        )
    return tiles


@dataclass(frozen=True)
class _Gates:
    """Gates in two parts: the ones to look at, and those that may be folded away."""

    shown: tuple[Check, ...]
    folded: tuple[Check, ...]

    @classmethod
    def of(cls, gates: Sequence[Check]) -> "_Gates":
        first = [gate for gate in gates if gate.subject is None or not gate.passed]
        rest = [gate for gate in gates if gate.subject is not None and gate.passed]
        rest.sort(key=lambda gate: math.inf if gate.margin is None else gate.margin)
        room = max(_GATES - len(first), 3)
        return cls((*first, *rest[:room]), tuple(rest[room:]))


@dataclass(frozen=True)
class _Distances:
    """Distances in two parts: the ones to look at, and those that may be folded away."""

    shown: tuple[Check, ...]
    folded: tuple[Check, ...]

    @classmethod
    def of(cls, distances: Sequence[Check]) -> "_Distances":
        return cls(tuple(distances[:_DISTANCES]), tuple(distances[_DISTANCES:]))


@dataclass(frozen=True)
class _Change:
    name: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        return self.after - self.before


def _changes(evaluation: Evaluation) -> list[_Change]:
    """How the metric that ranks classes changed from the baseline's, the worst change first."""
    metric = evaluation.ranked_by
    found = [
        _Change(name, evaluation.baseline_classes[name][metric], metrics[metric])
        for name, metrics in evaluation.classes
        if name in evaluation.baseline_classes
        and metric in metrics.values
        and metric in evaluation.baseline_classes[name].values
    ]
    sign = 1 if evaluation.higher_is_better else -1
    return sorted(found, key=lambda change: (sign * change.difference, change.name))


def _class_counts(data: DataSummary) -> list[tuple[str, list[int]]]:
    names = list(dict.fromkeys(name for found in data.classes.values() for name in found))
    return [(name, [found.get(name, 0) for found in data.classes.values()]) for name in names]


def _count_summary(data: DataSummary) -> dict[str, tuple[int, int, int]]:
    """Smallest, median and largest class of each split."""
    found = {}
    for split, by_class in data.classes.items():
        ordered = sorted(by_class.values())
        if ordered:
            found[split] = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    return found


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested config as rows of dotted name and JSON value."""
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{path}.")
        else:
            rows.append((path, json.dumps(value, ensure_ascii=False)))
    return rows


def script_json(value: Any) -> Markup:
    """JSON that is safe inside a script element, where `</script>` would end it."""
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return visible(value, keep="\n\t")
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


@lru_cache
def template() -> jinja2.Template:
    """The page's template, with filters for numbers; escapes whatever is put in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": _metric,
        "of_gate": _of_gate,
        "margin": _margin,
        "interval": _interval,
        "signed": _signed,
        "number": lambda value: _UNKNOWN if value is None else f"{value:,}",
        "weighted": lambda value: f"{value:,.12g}",
        "decimal": _decimal,
        "general": _general,
        "percent": lambda value: _UNKNOWN if value is None else f"{value:.1%}",
        "duration": _duration,
    }
    environment.tests["decision"] = _is_decision
    return environment.get_template("template.html")


def _shown(value: Any) -> Any:
    """What is put into the page, but for markup of our own."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, keep="\n\t")
    return value


def _is_decision(record: EpochRecord) -> bool:
    return record.action != "none"


@lru_cache
def asset(name: str) -> str:
    """The text of a file beside this one: report.css or report.js."""
    return (_FOLDER / name).read_text(encoding="utf-8")


@lru_cache
def plotly_js() -> str:
    """Plotly's JavaScript, whole."""
    # Plotly ships no types.
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    text: str = get_plotlyjs()
    return text


def _metric(value: float | None) -> str:
    return _UNKNOWN if value is None or math.isnan(value) else f"{value:.4f}"


def _of_gate(value: float | str, gate: Check) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.12g}" if gate.metric == EXAMPLE_COUNT else _metric(value)


def _margin(margin: float | None, gate: Check) -> str:
    if margin is None:
        return _UNKNOWN
    return ("+" if margin > 0 else "") + _of_gate(margin, gate)


def _interval(ends: Interval | None) -> str:
    return _UNKNOWN if ends is None else f"[{ends[0]:.4f}, {ends[1]:.4f}]"


def _general(value: float | None) -> str:
    return _UNKNOWN if value is None or math.isnan(value) else f"{value:,.4g}"


def _signed(value: float) -> str:
    if math.isnan(value):
        return _UNKNOWN
    return f"{value:+.4f}" if value else "0.0000"


def _decimal(value: float) -> str:
    """Six digits without an exponent, so that rates compare at a glance."""
    return f"{Decimal(f'{value:.6g}'):f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _examples(number: int | None) -> str:
    return "the examples" if number is None else _count(number, "example")
