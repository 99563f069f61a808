"""Residuals of a regression, which is asked about a sample of the split again."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from components.group import groups
from components.training_report import mistakes
from components.training_report.mistakes import SavedModel, UnfitModelError

SHOWN = 24


@dataclass(frozen=True)
class Residual:
    """Example with its label and its prediction, in the label's unit."""

    label: float
    prediction: float
    name: str
    """Number of the row."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Features of the row, as text."""

    @property
    def error(self) -> float:
        """Prediction minus label."""
        return self.prediction - self.label


@dataclass(frozen=True)
class Residuals:
    """Residuals of the examples looked at."""

    points: tuple[tuple[float, float], ...]
    """(label, prediction) of each example."""
    shown: tuple[Residual, ...]
    """The largest ones, the largest first."""
    every: int = 1
    """1 where the model was asked about each example in turn, 2 for every second one, ..."""


def find(
    records: Iterable[bytes],
    model: SavedModel,
    *,
    label: str,
    total: int = 0,
    shown: int = SHOWN,
    look_at: int = mistakes.LOOKED_AT,
) -> Residuals:
    """Asks a model about examples and keeps its residuals.

    Args:
        records: Serialized tf.Examples.
        model: The model.
        label: Name of the label feature, for a model without the signature `transform_labels`.
        total: Number of records, so that the ones looked at are spread over all of them.
        shown: Largest residuals kept, at most.
        look_at: Examples looked at, at most.

    Raises:
        UnfitModelError: The model or the labels do not fit.
    """
    every = max(-(-total // look_at), 1)
    chosen = islice(enumerate(records), 0, every * look_at, every)
    points: list[tuple[float, float]] = []
    # (size, -position) orders them, and ties go to the first example.
    largest: list[tuple[float, int, float, float, bytes]] = []
    for batch in groups(chosen, lambda entry: len(entry[1]), 32, 32 * 2**20):
        contents = [record for _, record in batch]
        known = model.labels(contents)
        labels = [_number(record, label) for record in contents] if known is None else known
        pairs = zip(batch, labels, model.numbers(contents), strict=True)
        for (position, record), actual, predicted in pairs:
            points.append((float(actual), float(predicted)))
            item = (abs(predicted - actual), -position, *points[-1], record)
            (heapq.heappush if len(largest) < shown else heapq.heappushpop)(largest, item)
    worst = sorted(largest, key=lambda each: each[:2], reverse=True)
    return Residuals(
        tuple(points),
        tuple(
            Residual(actual, predicted, f"example {1 - minus:,}", mistakes.columns(record))
            for _, minus, actual, predicted, record in worst
        ),
        every,
    )


def _number(record: bytes, label: str) -> float:
    feature = mistakes.features(record).get(label)
    values = [] if feature is None else [*feature.float_list.value, *feature.int64_list.value]
    if len(values) != 1:
        raise UnfitModelError(f"the feature {label!r} is not one number in each example")
    return float(values[0])
