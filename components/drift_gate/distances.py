"""Distances of two sets of statistics, feature by feature.

Of categorical features it is the L-infinity distance, the largest difference of a value's share, by
TensorFlow Data Validation. Of numeric features it is the Kolmogorov-Smirnov distance, the largest
difference of the distribution functions, by the quantiles in the statistics. TFDV's Jensen-Shannon
divergence of its equal-width bins finds two halves of one column with a heavy tail far apart.

Both lie between 0, alike, and 1, nothing in common. From both the sampling error is taken off.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components import gate
from components.drift_gate import quantiles
from components.drift_gate.drift import Kind, distance, largest_first
from components.gate import Check, GateError
from components.statistics import by_name

_LEVEL = 0.05
"""Share of pairs of samples of one distribution that lie further apart than by chance."""

_UNBOUNDED = 1.0
"""No distance is larger."""

# Values that hardly repeat (names, images) are no distribution that could drift.
_DISTINCT = 0.5

_List: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
_Features: TypeAlias = Mapping[str, statistics_pb2.FeatureNameStatistics]


def distances(
    schema: schema_pb2.Schema,
    present: _List,
    *,
    baseline: _List | None,
    other_split: _List | None,
    max_drift: float | None = None,
    max_skew: float | None = None,
) -> tuple[Check, ...]:
    """Returns the distances of all features that have a distribution, the largest first.

    Args:
        schema: Schema of the data; features it does not know are left out.
        present: Statistics of the training split.
        baseline: Statistics of the same split when the last blessed model was trained.
        other_split: Statistics of the split that the model is judged by.
        max_drift: Largest distance from `baseline` that passes.
        max_skew: Largest distance between the splits that passes.

    Raises:
        ValueError: The statistics hold no quantiles.
    """
    result: list[Check] = []
    if baseline is not None:
        result += _distances("drift", schema, present, baseline, max_drift)
    if other_split is not None:
        result += _distances("skew", schema, present, other_split, max_skew)
    return largest_first(result)


def _distances(
    kind: Kind, schema: schema_pb2.Schema, present: _List, other: _List, bound: float | None
) -> Iterator[Check]:
    known = {feature.name for feature in schema.feature}
    ours, theirs = by_name(present), by_name(other)
    categorical = _l_infinity(schema, ours, present, other)
    for name in known & ours.keys() & theirs.keys():
        counts = _count(ours[name]), _count(theirs[name])
        if min(counts) <= 0:
            continue
        if ours[name].WhichOneof("stats") != theirs[name].WhichOneof("stats"):
            value, measure = 1.0, "values of another type, a distance of"
        elif name in categorical:
            value, measure = categorical[name], "L-infinity distance"
        elif ours[name].HasField("num_stats"):
            both = quantiles.read(ours[name]), quantiles.read(theirs[name])
            value, measure = quantiles.kolmogorov_smirnov(*both), "Kolmogorov-Smirnov distance"
        else:
            continue
        error = sampling_error(*counts)
        note = f"{measure} {value:.4f} less the sampling error {error:.4f}"
        yield distance(kind, name, max(value - error, 0.0), bound, note)


def _l_infinity(
    schema: schema_pb2.Schema, features: _Features, present: _List, other: _List
) -> dict[str, float]:
    """Returns the L-infinity distance of each categorical feature whose values repeat."""
    compared = schema_pb2.Schema()
    compared.CopyFrom(schema)
    for feature in compared.feature:
        feature.ClearField("drift_comparator")
        feature.ClearField("skew_comparator")
        if feature.name in features and _repeats(features[feature.name]):
            feature.drift_comparator.infinity_norm.threshold = _UNBOUNDED
    anomalies = tfdv.validate_statistics(present, compared, previous_statistics=other)
    return {
        ".".join(info.path.step): measurement.value
        for info in anomalies.drift_skew_info
        for measurement in info.drift_measurements
    }


def sampling_error(one: int, other: int) -> float:
    """Returns the distance that 95 of 100 pairs of samples of one distribution stay below.

    It is the asymptotic bound of Smirnov's two-sample test, for any distribution. The L-infinity
    distance of shares stays below it as well.

    Args:
        one: Examples of the first sample, at least 1.
        other: Examples of the second sample, at least 1.
    """
    return math.sqrt(math.log(2 / _LEVEL) / 2 * (1 / one + 1 / other))


def check(measured: Sequence[Check]) -> None:
    """Raises GateError, with every distance beyond its threshold, if there is one."""
    failed = gate.failed(measured)
    if failed:
        raise GateError(
            "the data must be as near as `max_drift` and `max_skew` say",
            failed,
            "Find out why; if the new data is right, raise the threshold for this run.",
        )


def _count(feature: statistics_pb2.FeatureNameStatistics) -> int:
    """Returns the number of examples that have a value other than NaN."""
    stats = getattr(feature, feature.WhichOneof("stats")).common_stats
    nan = max((h.num_nan for h in feature.num_stats.histograms), default=0)
    # A feature may exist without values, as CsvExampleGen writes an empty cell.
    return int(min(stats.num_non_missing, stats.tot_num_values - nan))


def _repeats(feature: statistics_pb2.FeatureNameStatistics) -> bool:
    stats = feature.string_stats
    return bool(0 < stats.unique <= _DISTINCT * stats.common_stats.num_non_missing)
