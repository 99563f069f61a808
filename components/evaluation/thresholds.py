"""Thresholds of an EvalConfig, and the gates that they are."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2
from tensorflow_model_analysis.slicer import slicer_lib

from components.evaluation import interval
from components.evaluation.results import (
    ABOVE_MAJORITY,
    ACCURACY,
    ENDS,
    EXAMPLE_COUNT,
    R2,
    SHARED_ACCURACY,
    SHARED_EXAMPLES,
    WITHOUT_EXAMPLES,
    SliceMetrics,
)
from components.evaluation.slices import Key, Slice, measured_interval, metric_name
from components.gate import Check

Failure = tuple[Key, str, bool, bytes]
"""Slice, metric, whether its change is bounded, and the serialised threshold."""


class Bound(NamedTuple):
    """A bound of a metric, or of its change from the baseline."""

    value: float
    at_most: bool
    is_relative: bool = False


@dataclass(frozen=True)
class Threshold:
    """A threshold of the EvalConfig, on all slices where `spec` is None."""

    metric: str
    is_change: bool
    spec: Any
    proto: Any

    def applies_to(self, key: Key) -> bool:
        """Returns whether the threshold is on a slice."""
        if self.spec is None:
            return True
        return bool(slicer_lib.SingleSliceSpec(spec=self.spec).is_slice_applicable(key))

    def bounds(self) -> list[Bound]:
        """Returns the bounds, of which a threshold may have two."""
        if self.is_change:
            at_most = self.proto.direction == config_pb2.MetricDirection.LOWER_IS_BETTER
            kinds = {"absolute": (at_most, False), "relative": (at_most, True)}
        else:
            kinds = {"lower_bound": (False, False), "upper_bound": (True, False)}
        return [
            Bound(getattr(self.proto, name).value, *kind)
            for name, kind in kinds.items()
            if self.proto.HasField(name)
        ]


def read(config: config_pb2.EvalConfig, baseline: str | None) -> Iterator[Threshold]:
    """Yields the thresholds on the trained model, but for those that compare slices."""
    by_key = tfma.metrics.metric_thresholds_from_metrics_specs(
        config.metrics_specs, eval_config=config
    )
    for key, thresholds in by_key.items():
        if baseline is not None and key.model_name == baseline:
            continue
        for spec, proto in thresholds:
            if not isinstance(spec, config_pb2.CrossSlicingSpec):
                yield Threshold(metric_name(key.to_proto()), bool(key.is_diff), spec, proto)


def ranking(
    thresholds: Sequence[Threshold], values: SliceMetrics, by_class: Set[str]
) -> tuple[str, bool]:
    """Returns the metric that ranks classes, and whether more of it is better."""
    for threshold in thresholds:
        if by_class and threshold.metric not in by_class:
            continue
        if threshold.metric in values.values and not threshold.is_change and threshold.bounds():
            return threshold.metric, not threshold.bounds()[0].at_most
    accuracies = [name for name in values.values if "accuracy" in name]
    return next(iter(accuracies or values.values), ACCURACY), True


def failures(validation: validation_result_pb2.ValidationResult) -> set[Failure]:
    """Returns the thresholds that a slice failed."""
    failures: set[Failure] = set()
    for per_slice in validation.metric_validations_per_slice:
        if per_slice.HasField("cross_slice_key"):
            continue
        key = slicer_lib.deserialize_slice_key(per_slice.slice_key)
        for failure in per_slice.failures:
            threshold = failure.metric_threshold
            is_diff = bool(failure.metric_key.is_diff)
            proto = threshold.change_threshold if is_diff else threshold.value_threshold
            name = metric_name(failure.metric_key)
            failures.add((key, name, is_diff, proto.SerializeToString()))
    return failures


def gates(
    each: Slice,
    threshold: Threshold,
    failures: set[Failure],
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
        elif metric == ENDS[R2][0]:
            note = "The mean of the labels as constant answer has an R2 of 0."
            rule = "lower end of the 95 % interval of r2"
            yield dataclasses.replace(check, rule=rule, note=note)
        elif bound.is_relative:
            yield check
        else:
            yield _with_interval(
                check, each.models.get(candidate, {}), each.models.get(baseline, {})
            )


def _tightened(bound: Bound, rounding: float) -> float:
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
        is_known = not check.is_change and check.metric in ENDS
        ends = measured_interval(values, check.metric) if is_known else None
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


def gates_of_unseen(
    unseen: Sequence[str], thresholds: Sequence[Threshold], labels: set[str], rounding: float
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
