"""What the Evaluator found, in plain values."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import schemas
from components import gate
from components.evaluation import interval
from components.evaluation.interval import Interval
from components.gate import Check

if TYPE_CHECKING:
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.proto import config_pb2

OVERALL = "all examples"
ACCURACY, CROSSENTROPY = "accuracy", "crossentropy"
EXAMPLE_COUNT = "example_count"

# Of `components.evaluation.metrics`.
ABOVE_MAJORITY = "accuracy_above_majority"
WITHOUT_EXAMPLES = "classes_without_examples"
SHARED_ACCURACY = "accuracy_shared_classes"
SHARED_EXAMPLES = "examples_shared_classes"

_FOR_GATES = (ABOVE_MAJORITY, WITHOUT_EXAMPLES, SHARED_EXAMPLES)
"""Metrics that only a gate has a use for."""

_PREDICTED_NOTHING = -1
_SLICES_NAMED = 3


@dataclass(frozen=True)
class SliceMetrics:
    """How one model does on one slice of the evaluated split.

    Attributes:
        examples: Number of examples; None where the evaluation did not count them.
        values: Value of each metric, by its name in the EvalConfig.
    """

    examples: int | None
    values: Mapping[str, float]

    def __getitem__(self, metric: str) -> float:
        return self.values[metric]

    @property
    def interval(self) -> Interval | None:
        """95 % confidence interval of the accuracy; None where it or the examples are unknown."""
        accuracy = self.values.get(ACCURACY, math.nan)
        if not self.examples or not 0 <= accuracy <= 1:
            return None
        return interval.wilson(accuracy, self.examples)


@dataclass(frozen=True)
class ConfusionMatrix:
    """Which class was taken for which, the most probable one being the answer.

    Attributes:
        classes: Class names in the order of the label indices; empty where they are not known.
        counts: Examples by (index of the actual class, index of the predicted one), without
            zeros. An index outside the classes stands for a label that is none of them.
    """

    classes: tuple[str, ...]
    counts: Mapping[tuple[int, int], float]

    @property
    def indices(self) -> tuple[int, ...]:
        """Every class's index, and those outside the classes that occur, in order."""
        seen = {index for pair in self.counts for index in pair}
        return tuple(sorted(seen | set(range(len(self.classes)))))

    def name(self, index: int) -> str:
        """The class of an index."""
        if index == _PREDICTED_NOTHING:
            return "(none)"
        return class_name(index, self.classes)

    def totals(self) -> dict[int, float]:
        """Number of examples of each class, by its index."""
        totals = dict.fromkeys(self.indices, 0.0)
        for (actual, _), count in self.counts.items():
            totals[actual] += count
        return totals

    def confusions(self) -> tuple[tuple[int, int, float], ...]:
        """(actual, predicted, examples) of each mistake, the most frequent first."""
        wrong = [(a, p, n) for (a, p), n in self.counts.items() if a != p]
        return tuple(sorted(wrong, key=lambda item: (-item[2], item[0], item[1])))

    def most_confused(self, limit: int) -> tuple[int, ...]:
        """Indices of the classes of the most frequent mistakes, in the order of the classes.

        Where there are not mistakes enough, the first of the other classes join them.
        """
        pairs = (
            index for actual, predicted, _ in self.confusions() for index in (actual, predicted)
        )
        ranked = dict.fromkeys((*pairs, *self.indices))
        return tuple(sorted(list(ranked)[:limit]))


@dataclass(frozen=True)
class Evaluation:
    """What the Evaluator found.

    Attributes:
        candidate: The trained model over all examples.
        baseline: The last blessed model on the same examples; None where there was none.
        classes: The trained model in each class, the worst first.
        gates: Every bound, overall ones first.
        problems: What failed the model beyond the gates, such as a metric that is missing.
        baseline_classes: The baseline in each class, by class.
        slices: The trained model in every other slice, by its name, such as "hour = 8".
        matrix: Confusion matrix of the trained model; None where it was not asked for.
        ranked_by: Metric that says which class is worst.
        higher_is_better: Whether more of that metric is better.
        unseen: Classes of which no example was evaluated.
    """

    candidate: SliceMetrics
    baseline: SliceMetrics | None
    classes: tuple[tuple[str, SliceMetrics], ...]
    gates: tuple[Check, ...]
    problems: tuple[str, ...] = ()
    baseline_classes: Mapping[str, SliceMetrics] = field(default_factory=dict)
    slices: tuple[tuple[str, SliceMetrics], ...] = ()
    matrix: ConfusionMatrix | None = None
    ranked_by: str = "accuracy"
    higher_is_better: bool = True
    unseen: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """Accuracy that a uniformly random answer has in each class; NaN without two classes."""
        classes = len(self.classes) + len(self.unseen)
        return 1 / classes if classes > 1 else math.nan

    @property
    def at_chance(self) -> tuple[tuple[str, SliceMetrics], ...]:
        """The classes in which the trained model is at or below chance."""
        return tuple(
            (name, metrics)
            for name, metrics in self.classes
            if metrics.values.get(ACCURACY, math.inf) <= self.chance
        )

    @property
    def failed(self) -> tuple[Check, ...]:
        """The gates that were not passed."""
        return gate.failed(self.gates)


def class_name(value: str | int, classes: Sequence[str]) -> str:
    """The class that a slice's value or a label index stands for.

    Args:
        value: A class name, or the index of a label.
        classes: Class names in the order of the label indices; empty where they are not known.
    """
    if isinstance(value, str):
        return value
    if not classes:
        return str(value)
    return classes[value] if 0 <= value < len(classes) else f"unknown ({value})"


def read(folder: str, classes: Sequence[str] = (), *, rounding: float = 0.0) -> Evaluation:
    """Read what an Evaluator wrote.

    Args:
        folder: Folder or URI of a ModelEvaluation.
        classes: Class names in the order of the label indices.
        rounding: By how much each bound was made looser to allow for rounding; it is taken back.

    Raises:
        ValueError: The folder holds no evaluation.
    """
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.writers import eval_config_writer

    config, *_ = eval_config_writer.load_eval_run(folder)
    metrics = list(tfma.load_metrics(folder)) if config is not None else []
    if not metrics:
        raise ValueError(
            f"an evaluation must hold the Evaluator's metrics and eval_config.json, got {folder}. "
            "Run the Evaluator again."
        )
    return summarise(
        config,
        metrics,
        tfma.load_validation_result(folder),
        tfma.load_plots(folder),
        classes,
        rounding=rounding,
    )


def overall(
    metrics: "Iterable[tfma.proto.metrics_for_slice_pb2.MetricsForSlice]", model: str
) -> SliceMetrics | None:
    """How one model does on all examples.

    Args:
        metrics: One proto a slice.
        model: The model's name in the EvalConfig.

    Returns:
        Its metrics; None where there are none over all examples.
    """
    found = _slices(metrics, set(), (), model).get(())
    return None if found is None else found.metrics(model)


@dataclass
class _Slice:
    """All values of one slice: by metric of each model, and differences between the two."""

    name: str
    key: tuple[Any, ...]
    is_class: bool
    models: dict[str, dict[str, float]]
    changes: dict[str, float]

    def metrics(self, model: str) -> SliceMetrics | None:
        if model not in self.models:
            return None
        values = dict(self.models[model])
        examples = values.pop(EXAMPLE_COUNT, None)
        if not values.get(SHARED_EXAMPLES):
            values.pop(SHARED_ACCURACY, None)
        for name in _FOR_GATES:
            values.pop(name, None)
        return SliceMetrics(None if examples is None else round(examples), values)


def summarise(
    config: "config_pb2.EvalConfig",
    metrics: "Iterable[tfma.proto.metrics_for_slice_pb2.MetricsForSlice]",
    validation: "tfma.proto.validation_result_pb2.ValidationResult",
    plots: "Iterable[tfma.proto.metrics_for_slice_pb2.PlotsForSlice]",
    classes: Sequence[str] = (),
    *,
    rounding: float = 0.0,
) -> Evaluation:
    """Put the Evaluator's protos in plain values.

    Args:
        config: The EvalConfig that was followed.
        metrics: One proto a slice.
        validation: What the thresholds decided.
        plots: One proto a slice.
        classes: Class names in the order of the label indices.
        rounding: By how much each bound was made looser to allow for rounding.

    Raises:
        ValueError: There are no metrics over all examples.
    """
    names = {spec.name for spec in config.model_specs if not spec.is_baseline} or {""}
    candidate = min(names)
    baseline = next((spec.name for spec in config.model_specs if spec.is_baseline), None)
    labels = {spec.label_key for spec in config.model_specs} | {schemas.LABEL}
    slices = _slices(metrics, labels, classes, candidate)
    if () not in slices:
        raise ValueError(
            "the EvalConfig must evaluate all examples, got slices only. "
            "Add an empty SlicingSpec to its slicing_specs."
        )
    overall = slices[()]
    values = overall.metrics(candidate)
    assert values is not None, "the overall slice always holds the trained model"
    thresholds = list(_thresholds(config, baseline))
    ranked_by, higher = _ranking(thresholds, values)

    def rank(item: tuple[str, SliceMetrics]) -> tuple[float, str]:
        value = item[1].values.get(ranked_by, math.nan)
        order = value if higher else -value
        return (-math.inf if math.isnan(order) else order, item[0])

    def of(model: str, is_class: bool) -> list[tuple[str, SliceMetrics]]:
        chosen = [s for key, s in slices.items() if key and s.is_class == is_class]
        found = [(s.name, s.metrics(model)) for s in chosen]
        return [(name, metrics) for name, metrics in found if metrics is not None]

    by_class = tuple(sorted(of(candidate, is_class=True), key=rank))
    order = {name: position for position, (name, _) in enumerate(by_class)}
    ordered = sorted(slices.values(), key=lambda s: (s.key != (), order.get(s.name, -1)))
    failures = _failures(validation)
    seen = {name for name, _ in by_class}
    unseen = tuple(name for name in classes if name not in seen) if by_class else ()
    gates = [
        *_gates(ordered, thresholds, failures, candidate, baseline, rounding),
        *_gates_of_unseen(unseen, thresholds, labels, rounding),
    ]
    return Evaluation(
        candidate=values,
        baseline=None if baseline is None else overall.metrics(baseline),
        classes=by_class,
        gates=tuple(gates),
        problems=tuple(_problems(validation, slices)),
        baseline_classes={} if baseline is None else dict(of(baseline, is_class=True)),
        slices=tuple(of(candidate, is_class=False)),
        matrix=_matrix(plots, classes, candidate),
        ranked_by=ranked_by,
        higher_is_better=higher,
        unseen=unseen,
    )


def _slices(
    metrics: "Iterable[tfma.proto.metrics_for_slice_pb2.MetricsForSlice]",
    labels: set[str],
    classes: Sequence[str],
    candidate: str,
) -> dict[tuple[Any, ...], _Slice]:
    from tensorflow_model_analysis.slicer import slicer_lib

    slices: dict[tuple[Any, ...], _Slice] = {}
    for proto in metrics:
        if proto.HasField("cross_slice_key"):
            continue
        key = slicer_lib.deserialize_slice_key(proto.slice_key)
        name, is_class = _slice_name(key, labels, classes)
        found = slices.setdefault(key, _Slice(name, key, is_class, {}, {}))
        for item in proto.metric_keys_and_values:
            value = _number(item.value)
            if value is None:
                continue
            metric = _metric_name(item.key)
            if item.key.is_diff:
                found.changes[metric] = value
            else:
                found.models.setdefault(item.key.model_name or candidate, {})[metric] = value
    return slices


def _slice_name(
    key: Sequence[tuple[str, Any]], labels: set[str], classes: Sequence[str]
) -> tuple[str, bool]:
    """Name of a slice, and whether it is a class."""
    if not key:
        return OVERALL, False
    pairs = [(c, v.decode(errors="replace") if isinstance(v, bytes) else v) for c, v in key]
    if len(pairs) == 1 and pairs[0][0] in labels:
        value = pairs[0][1]
        return class_name(value if isinstance(value, str) else int(value), classes), True
    return ", ".join(f"{column} = {value}" for column, value in pairs), False


def _metric_name(key: Any) -> str:
    name = f"{key.output_name}/{key.name}" if key.output_name else str(key.name)
    if not key.HasField("sub_key"):
        return name
    parts = [f"{part.name} {value.value}" for part, value in key.sub_key.ListFields()]
    return f"{name} ({', '.join(parts)})"


def _number(value: Any) -> float | None:
    kind = value.WhichOneof("type")
    if kind == "double_value":
        return float(value.double_value.value)
    if kind == "bounded_value":
        return float(value.bounded_value.value.value)
    return None


@dataclass(frozen=True)
class _Threshold:
    """A threshold of the EvalConfig, on all slices where `spec` is None."""

    metric: str
    is_change: bool
    spec: Any
    proto: Any

    def applies_to(self, key: tuple[Any, ...]) -> bool:
        from tensorflow_model_analysis.slicer import slicer_lib

        if self.spec is None:
            return True
        return bool(slicer_lib.SingleSliceSpec(spec=self.spec).is_slice_applicable(key))

    def bounds(self) -> Iterator[tuple[float, bool, bool]]:
        """(bound, whether it is an upper one, whether it is relative) of each bound."""
        from tensorflow_model_analysis.proto import config_pb2

        if self.is_change:
            at_most = self.proto.direction == config_pb2.MetricDirection.LOWER_IS_BETTER
            for name in ("absolute", "relative"):
                if self.proto.HasField(name):
                    yield getattr(self.proto, name).value, at_most, name == "relative"
            return
        for name in ("lower_bound", "upper_bound"):
            if self.proto.HasField(name):
                yield getattr(self.proto, name).value, name == "upper_bound", False


def _thresholds(config: "config_pb2.EvalConfig", baseline: str | None) -> Iterator[_Threshold]:
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.proto import config_pb2

    found = tfma.metrics.metric_thresholds_from_metrics_specs(
        config.metrics_specs, eval_config=config
    )
    for key, thresholds in found.items():
        if baseline is not None and key.model_name == baseline:
            continue
        for spec, proto in thresholds:
            if not isinstance(spec, config_pb2.CrossSlicingSpec):
                yield _Threshold(_metric_name(key.to_proto()), bool(key.is_diff), spec, proto)


def _ranking(thresholds: Sequence[_Threshold], values: SliceMetrics) -> tuple[str, bool]:
    """The metric that ranks classes, and whether more of it is better."""
    for threshold in thresholds:
        if threshold.metric in values.values and not threshold.is_change:
            for _, at_most, _ in threshold.bounds():
                return threshold.metric, not at_most
    accuracies = [name for name in values.values if "accuracy" in name]
    return next(iter(accuracies or values.values), "accuracy"), True


_Failure = tuple[tuple[Any, ...], str, bool, bytes]


def _failures(validation: Any) -> set[_Failure]:
    from tensorflow_model_analysis.slicer import slicer_lib

    failures: set[_Failure] = set()
    for per_slice in validation.metric_validations_per_slice:
        if per_slice.HasField("cross_slice_key"):
            continue
        key = slicer_lib.deserialize_slice_key(per_slice.slice_key)
        for failure in per_slice.failures:
            threshold = failure.metric_threshold
            is_diff = bool(failure.metric_key.is_diff)
            proto = threshold.change_threshold if is_diff else threshold.value_threshold
            name = _metric_name(failure.metric_key)
            failures.add((key, name, is_diff, proto.SerializeToString()))
    return failures


def _gates(
    slices: Sequence[_Slice],
    thresholds: Sequence[_Threshold],
    failures: set[_Failure],
    candidate: str,
    baseline: str | None,
    rounding: float,
) -> Iterator[Check]:
    for each in slices:
        where = f"class {each.name}" if each.is_class else each.name
        for threshold in thresholds:
            metric = threshold.metric
            if not threshold.applies_to(each.key):
                continue
            values = each.changes if threshold.is_change else each.models.get(candidate, {})
            # Classes without examples have gates of their own.
            if metric not in values or metric == WITHOUT_EXAMPLES:
                continue
            bounds = list(threshold.bounds())
            name = (each.key, metric, threshold.is_change, threshold.proto.SerializeToString())
            for bound, at_most, relative in bounds:
                value, rule = values[metric], f"{metric}, {where}"
                if threshold.is_change:
                    rule = f"{metric} - baseline's" + f", {where}" * (each.key != ())
                if relative:
                    before = each.models.get(baseline or "", {}).get(metric, 0.0)
                    value = value / before if before else math.nan
                    rule = rule.replace(" - baseline's", ", change as a share of the baseline's")
                meets = value <= bound if at_most else value >= bound
                loose = -rounding if at_most else rounding
                check = Check(
                    rule,
                    value,
                    round(bound + loose, 12),
                    # Of two bounds in one threshold, a failure may be of either.
                    passed=name not in failures or (len(bounds) > 1 and meets),
                    at_most=at_most,
                    metric=metric,
                    subject=each.name if each.is_class else None,
                    is_change=threshold.is_change,
                )
                if metric == ABOVE_MAJORITY:
                    yield _above_majority(check, each.models[candidate])
                elif relative:
                    yield check
                else:
                    yield _with_interval(check, each.models, candidate, baseline)


def _above_majority(check: Check, values: Mapping[str, float]) -> Check:
    """The gate on a difference as one on the interval's lower end, for people."""
    if not values.get(EXAMPLE_COUNT) or ACCURACY not in values:
        return check
    low, _ = interval.wilson(values[ACCURACY], round(values[EXAMPLE_COUNT]))
    assert not isinstance(check.value, str)
    return dataclasses.replace(
        check,
        rule="lower end of the 95 % interval of the accuracy",
        value=low,
        threshold=low - check.value,
        note="The threshold is the share of the largest class, which a constant answer reaches.",
    )


def _with_interval(
    check: Check, models: Mapping[str, Mapping[str, float]], candidate: str, baseline: str | None
) -> Check:
    """The gate on an accuracy, or on its change, with the 95 % interval of the value."""
    values, before = models.get(candidate, {}), models.get(baseline or "", {})
    shared = check.metric == SHARED_ACCURACY
    examples = round(values.get(SHARED_EXAMPLES if shared else EXAMPLE_COUNT, 0.0))
    if check.metric not in (ACCURACY, SHARED_ACCURACY):
        return check
    if not examples:
        note = "No test example is of a class that both models know, so nothing was compared."
        return dataclasses.replace(check, note=note) if shared else check
    found = interval.wilson(values[check.metric], examples)
    if check.is_change:
        found = interval.difference(values[check.metric], before[check.metric], examples)
    return dataclasses.replace(check, interval=found)


def _gates_of_unseen(
    unseen: Sequence[str], thresholds: Sequence[_Threshold], labels: set[str], rounding: float
) -> Iterator[Check]:
    """The gates on classes without examples, of which TFMA has no slice and says nothing."""
    if not any(threshold.metric == WITHOUT_EXAMPLES for threshold in thresholds):
        return
    for threshold in thresholds:
        spec = threshold.spec
        by_class = spec is not None and set(spec.feature_keys) & labels
        if threshold.is_change or not by_class:
            continue
        for name in unseen:
            for bound, at_most, _ in threshold.bounds():
                yield Check(
                    f"{threshold.metric}, class {name}",
                    0.0 if threshold.metric == EXAMPLE_COUNT else "no example",
                    round(bound + (-rounding if at_most else rounding), 12),
                    passed=False,
                    at_most=at_most,
                    metric=threshold.metric,
                    subject=name,
                )


def _problems(validation: Any, slices: Mapping[tuple[Any, ...], _Slice]) -> Iterator[str]:
    from tensorflow_model_analysis.slicer import slicer_lib

    where: dict[tuple[str, str], list[str]] = defaultdict(list)
    for per_slice in validation.metric_validations_per_slice:
        if per_slice.HasField("cross_slice_key"):
            name = "a comparison of slices"
        else:
            key = slicer_lib.deserialize_slice_key(per_slice.slice_key)
            name = slices[key].name if key in slices else str(key)
        for failure in per_slice.failures:
            message = " ".join(failure.message.split())
            if per_slice.HasField("cross_slice_key"):
                message = message or "its threshold was not met"
            if message:
                where[_metric_name(failure.metric_key), message].append(name)
    for (metric, message), names in where.items():
        more = f" and {len(names) - _SLICES_NAMED} more" if len(names) > _SLICES_NAMED else ""
        yield f"{metric} on {', '.join(names[:_SLICES_NAMED])}{more}: {message}"
    for spec in validation.missing_slices:
        parts = [*spec.feature_keys, *(f"{k} = {v}" for k, v in spec.feature_values.items())]
        if parts:
            yield f"no example in any slice by {', '.join(parts)}"
        else:
            yield f"nothing was checked over {OVERALL}"


def _matrix(
    plots: "Iterable[tfma.proto.metrics_for_slice_pb2.PlotsForSlice]",
    classes: Sequence[str],
    candidate: str,
) -> ConfusionMatrix | None:
    for proto in plots:
        if proto.HasField("cross_slice_key") or proto.slice_key.single_slice_keys:
            continue
        for item in proto.plot_keys_and_values:
            matrices = item.value.multi_class_confusion_matrix_at_thresholds.matrices
            if matrices and (item.key.model_name or candidate) == candidate:
                # At the lowest threshold, 0 unless told otherwise, the most probable class counts.
                lowest = min(matrices, key=lambda matrix: float(matrix.threshold))
                counts = {
                    (entry.actual_class_id, entry.predicted_class_id): entry.num_weighted_examples
                    for entry in lowest.entries
                    if entry.num_weighted_examples
                }
                return ConfusionMatrix(tuple(classes), counts)
    return None
