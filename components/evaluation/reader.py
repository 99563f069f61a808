"""Reader of TFMA's metrics, thresholds and validation results."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import (
    config_pb2,
    metrics_for_slice_pb2,
    validation_result_pb2,
)
from tensorflow_model_analysis.slicer import slicer_lib
from tensorflow_model_analysis.writers import eval_config_writer

import schemas
from components.evaluation import interval, plot_reader
from components.evaluation.interval import Interval
from components.evaluation.results import (
    ABOVE_MAJORITY,
    ACCURACY,
    EXAMPLE_COUNT,
    MAE,
    OF_TWO,
    OVERALL,
    R2,
    SHARED_ACCURACY,
    SHARED_EXAMPLES,
    WITHOUT_EXAMPLES,
    Evaluation,
    SliceMetrics,
    class_name,
)
from components.gate import Check
from trainer_module.util.checks import UserError

_ONLY_FOR_GATES = (ABOVE_MAJORITY, WITHOUT_EXAMPLES, SHARED_EXAMPLES)
_ENDS = ("low", "high")
_SLICES_NAMED = 3

_Metrics = Iterable[metrics_for_slice_pb2.MetricsForSlice]
_Key = tuple[tuple[str, Any], ...]


def read(folder: str, classes: Sequence[str], rounding: float) -> Evaluation:
    """Reads what an Evaluator wrote; see `results.read`."""
    config, *_ = eval_config_writer.load_eval_run(folder)
    metrics = list(tfma.load_metrics(folder)) if config is not None else []
    if not metrics:
        raise UserError(
            "an evaluation must hold the Evaluator's metrics and eval_config.json",
            folder,
            "Run the Evaluator again.",
        )
    validation = tfma.load_validation_result(folder)
    plots = list(tfma.load_plots(folder))
    return summarise(config, metrics, validation, plots, classes, rounding)


def overall(metrics: _Metrics, model: str) -> SliceMetrics | None:
    """Returns the metrics of one model over all examples; None where there are none.

    Args:
        metrics: One proto a slice.
        model: The model's name in the EvalConfig.
    """
    everything = _slices(metrics, set(), (), model).get(())
    return None if everything is None else everything.metrics(model)


def summarise(
    config: config_pb2.EvalConfig,
    metrics: _Metrics,
    validation: validation_result_pb2.ValidationResult,
    plots: Sequence[metrics_for_slice_pb2.PlotsForSlice],
    classes: Sequence[str] = (),
    rounding: float = 0.0,
) -> Evaluation:
    """Returns the Evaluator's protos as plain values.

    Args:
        config: The EvalConfig that was followed.
        metrics: One proto a slice.
        validation: Failures of the thresholds.
        plots: One proto a slice.
        classes: Class names in the order of the label indices.
        rounding: By how much each bound was made looser to allow for rounding.

    Raises:
        UserError: There are no metrics over all examples.
    """
    candidate = min({spec.name for spec in config.model_specs if not spec.is_baseline} or {""})
    baseline = next((spec.name for spec in config.model_specs if spec.is_baseline), None)
    labels = {spec.label_key for spec in config.model_specs} | {schemas.LABEL}
    slices = _slices(metrics, labels, classes, candidate)
    if () not in slices:
        raise UserError(
            "the EvalConfig must evaluate all examples",
            "slices only",
            "Add an empty SlicingSpec to its slicing_specs.",
        )
    everything = slices[()]
    values = everything.metrics(candidate)
    assert values is not None, "the overall slice always holds the trained model"
    thresholds = list(_thresholds(config, baseline))
    named = {metric for each in slices.values() if each.is_class for metric in each.of(candidate)}
    ranked_by, higher = _ranking(thresholds, values, named)

    def rank(item: tuple[str, SliceMetrics]) -> tuple[float, str]:
        value = item[1].values.get(ranked_by, math.nan)
        order = value if higher else -value
        return (-math.inf if math.isnan(order) else order, item[0])

    def of(model: str, is_class: bool) -> list[tuple[str, SliceMetrics]]:
        chosen = [s for key, s in slices.items() if key and s.is_class == is_class]
        return [(s.name, m) for s in chosen if (m := s.metrics(model)) is not None]

    by_class = tuple(sorted(of(candidate, is_class=True), key=rank))
    order = {name: position for position, (name, _) in enumerate(by_class)}
    unseen = tuple(name for name in classes if name not in order) if by_class else ()
    failures = _failures(validation)
    gates = [
        gate
        for each in sorted(slices.values(), key=lambda s: (s.key != (), order.get(s.name, -1)))
        for threshold in thresholds
        if threshold.applies_to(each.key)
        for gate in _gates(each, threshold, failures, candidate, baseline or "", rounding)
    ]
    return Evaluation(
        candidate=values,
        baseline=None if baseline is None else everything.metrics(baseline),
        classes=by_class,
        gates=(*gates, *_gates_of_unseen(unseen, thresholds, labels, rounding)),
        problems=tuple(_problems(validation, slices)),
        baseline_classes={} if baseline is None else dict(of(baseline, is_class=True)),
        slices=tuple(of(candidate, is_class=False)),
        matrix=plot_reader.matrix(plots, classes, candidate),
        calibration=plot_reader.calibration(plots, classes, candidate),
        ranked_by=ranked_by,
        higher_is_better=higher,
        unseen=unseen,
    )


@dataclass
class _Slice:
    """All values of one slice: by metric of each model, and differences between the two."""

    name: str
    key: _Key
    is_class: bool
    models: dict[str, dict[str, float]] = field(default_factory=dict)
    changes: dict[str, float] = field(default_factory=dict)

    def of(self, model: str) -> Mapping[str, float]:
        return self.models.get(model, {})

    def metrics(self, model: str) -> SliceMetrics | None:
        if model not in self.models:
            return None
        values = dict(self.models[model])
        examples = values.pop(EXAMPLE_COUNT, None)
        if not values.get(SHARED_EXAMPLES):
            values.pop(SHARED_ACCURACY, None)
        for name in _ONLY_FOR_GATES:
            values.pop(name, None)
        intervals = {}
        for name in (R2, MAE):
            if ends := _ends(values, name):
                intervals[name] = ends
            for end in _ENDS:
                values.pop(f"{name}_{end}", None)
        first = {name: values.pop(name) for name in (R2, MAE) if name in values}
        return SliceMetrics(
            None if examples is None else round(examples), {**first, **values}, intervals
        )


def _ends(values: Mapping[str, float], metric: str) -> Interval | None:
    """Returns the interval that `components.evaluation.errors` measured; None if it did not."""
    low, high = (values.get(f"{metric}_{end}") for end in _ENDS)
    return None if low is None or high is None else (low, high)


def _slices(
    metrics: _Metrics, labels: set[str], classes: Sequence[str], candidate: str
) -> dict[_Key, _Slice]:
    slices: dict[_Key, _Slice] = {}
    for proto in metrics:
        if proto.HasField("cross_slice_key"):
            continue
        key = slicer_lib.deserialize_slice_key(proto.slice_key)
        each = slices.setdefault(key, _Slice(*_slice_name(key, labels, classes)))
        for item in proto.metric_keys_and_values:
            value = _number(item.value)
            if value is None:
                continue
            # Within one class, what compares two of them means nothing.
            if each.is_class and item.key.HasField("sub_key"):
                continue
            metric = _metric_name(item.key)
            if item.key.is_diff:
                each.changes[metric] = value
            else:
                each.models.setdefault(item.key.model_name or candidate, {})[metric] = value
    return slices


def _slice_name(key: _Key, labels: set[str], classes: Sequence[str]) -> tuple[str, _Key, bool]:
    """Returns the name of a slice, its key, and whether it is a class."""
    if not key:
        return OVERALL, key, False
    pairs = [(c, v.decode(errors="replace") if isinstance(v, bytes) else v) for c, v in key]
    if len(pairs) == 1 and pairs[0][0] in labels:
        value = pairs[0][1]
        return class_name(value if isinstance(value, str) else int(value), classes), key, True
    return ", ".join(f"{column} = {value}" for column, value in pairs), key, False


def _metric_name(key: Any) -> str:
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


class _Bound(NamedTuple):
    value: float
    at_most: bool
    is_relative: bool = False


@dataclass(frozen=True)
class _Threshold:
    """A threshold of the EvalConfig, on all slices where `spec` is None."""

    metric: str
    is_change: bool
    spec: Any
    proto: Any

    def applies_to(self, key: _Key) -> bool:
        if self.spec is None:
            return True
        return bool(slicer_lib.SingleSliceSpec(spec=self.spec).is_slice_applicable(key))

    def bounds(self) -> list[_Bound]:
        if self.is_change:
            at_most = self.proto.direction == config_pb2.MetricDirection.LOWER_IS_BETTER
            kinds = {"absolute": (at_most, False), "relative": (at_most, True)}
        else:
            kinds = {"lower_bound": (False, False), "upper_bound": (True, False)}
        return [
            _Bound(getattr(self.proto, name).value, *kind)
            for name, kind in kinds.items()
            if self.proto.HasField(name)
        ]


def _thresholds(config: config_pb2.EvalConfig, baseline: str | None) -> Iterator[_Threshold]:
    by_key = tfma.metrics.metric_thresholds_from_metrics_specs(
        config.metrics_specs, eval_config=config
    )
    for key, thresholds in by_key.items():
        if baseline is not None and key.model_name == baseline:
            continue
        for spec, proto in thresholds:
            if not isinstance(spec, config_pb2.CrossSlicingSpec):
                yield _Threshold(_metric_name(key.to_proto()), bool(key.is_diff), spec, proto)


def _ranking(
    thresholds: Sequence[_Threshold], values: SliceMetrics, by_class: Set[str]
) -> tuple[str, bool]:
    """Returns the metric that ranks classes, and whether more of it is better."""
    for threshold in thresholds:
        if by_class and threshold.metric not in by_class:
            continue
        if threshold.metric in values.values and not threshold.is_change and threshold.bounds():
            return threshold.metric, not threshold.bounds()[0].at_most
    accuracies = [name for name in values.values if "accuracy" in name]
    return next(iter(accuracies or values.values), ACCURACY), True


_Failure = tuple[_Key, str, bool, bytes]


def _failures(validation: Any) -> set[_Failure]:
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
    each: _Slice,
    threshold: _Threshold,
    failures: set[_Failure],
    candidate: str,
    baseline: str,
    rounding: float,
) -> Iterator[Check]:
    """Yields the gates of a threshold on a slice."""
    metric = threshold.metric
    values = each.changes if threshold.is_change else each.models.get(candidate, {})
    # Classes without examples have gates of their own.
    if metric not in values or metric == WITHOUT_EXAMPLES:
        return
    where = f"class {each.name}" if each.is_class else each.name
    failure = (each.key, metric, threshold.is_change, threshold.proto.SerializeToString())
    bounds = threshold.bounds()
    for bound in bounds:
        value, rule = values[metric], f"{metric}, {where}"
        if threshold.is_change:
            rule = f"{metric} - baseline's" + f", {where}" * (each.key != ())
        if bound.is_relative:
            before = each.models.get(baseline, {}).get(metric, 0.0)
            value = value / before if before else math.nan
            rule = rule.replace(" - baseline's", ", change as a share of the baseline's")
        meets = value <= bound.value if bound.at_most else value >= bound.value
        check = Check(
            rule,
            value,
            _tightened(bound, rounding),
            # Of two bounds in one threshold, a failure may be of either.
            passed=failure not in failures or (len(bounds) > 1 and meets),
            at_most=bound.at_most,
            metric=metric,
            subject=each.name if each.is_class else None,
            is_change=threshold.is_change,
        )
        if metric == ABOVE_MAJORITY:
            yield _above_majority(check, each.models[candidate])
        elif metric == f"{R2}_low":
            note = "The mean of the labels as constant answer has an R2 of 0."
            rule = "lower end of the 95 % interval of r2"
            yield dataclasses.replace(check, rule=rule, note=note)
        elif bound.is_relative:
            yield check
        else:
            yield _with_interval(
                check, each.models.get(candidate, {}), each.models.get(baseline, {})
            )


def _tightened(bound: _Bound, rounding: float) -> float:
    """Returns a bound before it was made looser."""
    return round(bound.value + (-rounding if bound.at_most else rounding), 12)


def _above_majority(check: Check, values: Mapping[str, float]) -> Check:
    """Returns the gate on a difference as one on the interval's lower end, for people."""
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
    check: Check, values: Mapping[str, float], baseline: Mapping[str, float]
) -> Check:
    """Returns the gate on a metric, or on its change, with the 95 % interval of the value."""
    if check.metric not in (ACCURACY, SHARED_ACCURACY):
        is_known = not check.is_change and check.metric in (R2, MAE)
        ends = _ends(values, check.metric) if is_known else None
        return dataclasses.replace(check, interval=ends)
    shared = check.metric == SHARED_ACCURACY
    examples = round(values.get(SHARED_EXAMPLES if shared else EXAMPLE_COUNT, 0.0))
    if not examples:
        note = "No test example is of a class that both models know, so nothing was compared."
        return dataclasses.replace(check, note=note) if shared else check
    ends = interval.wilson(values[check.metric], examples)
    if check.is_change:
        ends = interval.difference(values[check.metric], baseline[check.metric], examples)
    return dataclasses.replace(check, interval=ends)


def _gates_of_unseen(
    unseen: Sequence[str], thresholds: Sequence[_Threshold], labels: set[str], rounding: float
) -> Iterator[Check]:
    """Yields the gates on classes without examples, of which TFMA has no slice."""
    if not any(threshold.metric == WITHOUT_EXAMPLES for threshold in thresholds):
        return
    for threshold in thresholds:
        by_class = threshold.spec is not None and set(threshold.spec.feature_keys) & labels
        if threshold.is_change or not by_class:
            continue
        for name in unseen:
            for bound in threshold.bounds():
                yield Check(
                    f"{threshold.metric}, class {name}",
                    0.0 if threshold.metric == EXAMPLE_COUNT else "no example",
                    _tightened(bound, rounding),
                    passed=False,
                    at_most=bound.at_most,
                    metric=threshold.metric,
                    subject=name,
                )


def _problems(validation: Any, slices: Mapping[_Key, _Slice]) -> Iterator[str]:
    """Yields what failed the model beyond the gates, such as a metric that is missing."""
    where: dict[tuple[str, str], list[str]] = defaultdict(list)
    for per_slice in validation.metric_validations_per_slice:
        crosses = per_slice.HasField("cross_slice_key")
        if crosses:
            name = "a comparison of slices"
        else:
            key = slicer_lib.deserialize_slice_key(per_slice.slice_key)
            name = slices[key].name if key in slices else str(key)
        for failure in per_slice.failures:
            message = " ".join(failure.message.split())
            if crosses:
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
