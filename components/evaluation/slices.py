"""Metrics of TFMA by slice."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorflow_model_analysis.proto import metrics_for_slice_pb2
from tensorflow_model_analysis.slicer import slicer_lib

from components.evaluation.interval import Interval
from components.evaluation.results import (
    ABOVE_MAJORITY,
    ACCURACY,
    CROSSENTROPY,
    ENDS,
    EXAMPLE_COUNT,
    OF_TWO,
    OVERALL,
    SHARED_ACCURACY,
    SHARED_EXAMPLES,
    WITHOUT_EXAMPLES,
    SliceMetrics,
    class_name,
)

Metrics = Iterable[metrics_for_slice_pb2.MetricsForSlice]
Key = tuple[tuple[str, Any], ...]


@dataclass
class Slice:
    """All values of one slice: by metric of each model, and differences between the two."""

    name: str
    key: Key
    is_class: bool
    models: dict[str, dict[str, float]] = field(default_factory=dict)
    changes: dict[str, float] = field(default_factory=dict)

    def of(self, model: str) -> Mapping[str, float]:
        """Returns all values of a model; none if it was not evaluated."""
        return self.models.get(model, {})

    def metrics(self, model: str) -> SliceMetrics | None:
        """Returns the metrics of a model for people; None if it was not evaluated."""
        if model not in self.models:
            return None
        values = self.models[model]
        examples = values.get(EXAMPLE_COUNT)
        hidden = {EXAMPLE_COUNT, ABOVE_MAJORITY, WITHOUT_EXAMPLES, SHARED_EXAMPLES}
        hidden.update(*ENDS.values())
        if not values.get(SHARED_EXAMPLES):
            hidden.add(SHARED_ACCURACY)
        # The head of a report shows the first two.
        order = (ACCURACY, CROSSENTROPY, *ENDS)
        first = {metric: values[metric] for metric in order if metric in values}
        return SliceMetrics(
            None if examples is None else round(examples),
            {name: value for name, value in {**first, **values}.items() if name not in hidden},
            {metric: ends for metric in ENDS if (ends := measured_interval(values, metric))},
        )


def measured_interval(values: Mapping[str, float], metric: str) -> Interval | None:
    """Returns the interval that `components.evaluation.errors` measured; None if it did not."""
    low, high = (values.get(end) for end in ENDS[metric])
    return None if low is None or high is None else (low, high)


def by_key(
    metrics: Metrics, labels: set[str], classes: Sequence[str], candidate: str
) -> dict[Key, Slice]:
    """Returns the slices by their keys.

    Args:
        metrics: One proto a slice.
        labels: Features that are labels: a slice by one of them is a class.
        classes: Class names in the order of the label indices.
        candidate: Name of the trained model, which TFMA leaves out if it is the only one.
    """
    slices: dict[Key, Slice] = {}
    for proto in metrics:
        if proto.HasField("cross_slice_key"):
            continue
        key = slicer_lib.deserialize_slice_key(proto.slice_key)
        each = slices.setdefault(key, Slice(*_slice_name(key, labels, classes)))
        for item in proto.metric_keys_and_values:
            value = _number(item.value)
            if value is None:
                continue
            # Within one class, what compares two of them means nothing.
            if each.is_class and item.key.HasField("sub_key"):
                continue
            metric = metric_name(item.key)
            if item.key.is_diff:
                each.changes[metric] = value
            else:
                each.models.setdefault(item.key.model_name or candidate, {})[metric] = value
    return slices


def _slice_name(key: Key, labels: set[str], classes: Sequence[str]) -> tuple[str, Key, bool]:
    """Returns the name of a slice, its key, and whether it is a class."""
    if not key:
        return OVERALL, key, False
    pairs = [(c, v.decode(errors="replace") if isinstance(v, bytes) else v) for c, v in key]
    if len(pairs) == 1 and pairs[0][0] in labels:
        value = pairs[0][1]
        return class_name(value if isinstance(value, str) else int(value), classes), key, True
    return ", ".join(f"{column} = {value}" for column, value in pairs), key, False


def metric_name(key: Any) -> str:
    """Returns a metric's name with its output and sub key, if it has them."""
    name = f"{key.output_name}/{key.name}" if key.output_name else str(key.name)
    if not key.HasField("sub_key"):
        return name
    parts = [f"{part.name} {value.value}" for part, value in key.sub_key.ListFields()]
    # Of two classes it is always the second one.
    if parts == ["class_id 1"] and name in OF_TWO:
        return name
    return f"{name} ({', '.join(parts)})"


def _number(value: Any) -> float | None:
    kind = value.WhichOneof("type")
    if kind == "double_value":
        return float(value.double_value.value)
    return float(value.bounded_value.value.value) if kind == "bounded_value" else None
