"""How far two sets of statistics lie apart, feature by feature.  Pure: protos in, distances out.

The distances are TensorFlow Data Validation's: of two distributions over words, the largest
difference of a share (L-infinity norm); over numbers, the Jensen-Shannon divergence to base 2.
Both lie between 0, alike, and 1, nothing in common.
"""

from collections.abc import Iterable, Sequence

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components import gate
from components.drift import distance, largest_first
from components.gate import Check, GateError

_UNBOUNDED = 1.0
"""No distance is larger."""

# Values that hardly repeat (names, pictures) are no distribution that could drift.
_DISTINCT = 0.5


def distances(
    schema: schema_pb2.Schema,
    present: statistics_pb2.DatasetFeatureStatisticsList,
    *,
    baseline: statistics_pb2.DatasetFeatureStatisticsList | None,
    other_split: statistics_pb2.DatasetFeatureStatisticsList | None,
    max_drift: float | None = None,
    max_skew: float | None = None,
) -> tuple[Check, ...]:
    """Distances of all features that have a distribution, the largest first.

    Args:
        schema: Schema of the data; features it does not know are left out.
        present: Statistics of the training split.
        baseline: Statistics of the same split when the last blessed model was trained.
        other_split: Statistics of the split that the model is judged by.
        max_drift: Largest distance from `baseline` that passes.
        max_skew: Largest distance between the splits that passes.
    """
    compared = schema_pb2.Schema()
    compared.CopyFrom(schema)
    distributed = set(_distributed(present))
    for feature in compared.feature:
        if feature.name not in distributed:
            continue
        for comparator in (feature.drift_comparator, feature.skew_comparator):
            if feature.type == schema_pb2.BYTES:
                comparator.infinity_norm.threshold = _UNBOUNDED
            else:
                comparator.jensen_shannon_divergence.threshold = _UNBOUNDED
    found = tfdv.validate_statistics(
        present, compared, previous_statistics=baseline, serving_statistics=other_split
    )
    result: list[Check] = []
    for info in found.drift_skew_info:
        name = ".".join(info.path.step)
        result += [distance("drift", name, m.value, max_drift) for m in info.drift_measurements]
        result += [distance("skew", name, m.value, max_skew) for m in info.skew_measurements]
    return largest_first(result)


def check(found: Sequence[Check]) -> None:
    """Let data pass, or not.

    Raises:
        GateError: Listing every distance beyond its threshold.
    """
    failed = gate.failed(found)
    if failed:
        raise GateError(
            "the data has moved further than --max-drift and --max-skew allow",
            failed,
            "Find out why; if the new data is right, raise the threshold for this run.",
        )


def _distributed(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> Iterable[str]:
    """Features of numbers, and those of words that repeat."""
    for dataset in statistics.datasets:
        for feature in dataset.features:
            name = feature.name or ".".join(feature.path.step)
            if feature.HasField("num_stats"):
                yield name
            elif feature.HasField("string_stats"):
                count = feature.string_stats.common_stats.num_non_missing
                if 0 < feature.string_stats.unique <= _DISTINCT * count:
                    yield name
