"""Summary of statistics and schema: examples by split and class, and the features."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.statistics import feature_name


@dataclass(frozen=True)
class Feature:
    """A feature as the schema describes it.

    Attributes:
        name: Name.
        kind: BYTES, INT or FLOAT.
        required: Whether every example must have it.
        domain: The values it may take, in words; empty where any will do.
    """

    name: str
    kind: str
    required: bool
    domain: str


@dataclass(frozen=True)
class DataSummary:
    """The data of a run.

    Attributes:
        examples: Number of examples by split.
        classes: Number of examples by split and class, the classes in the order of the label
            indices; empty where the statistics do not have them.
        why_no_classes: Why they do not; empty where they do.
        features: The features of the schema.
    """

    examples: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    why_no_classes: str
    features: tuple[Feature, ...]


class _UnknownError(ValueError):
    """The statistics do not have the examples of each class."""


def summarise(
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    schema: schema_pb2.Schema,
    label: str,
    classes: Sequence[str],
) -> DataSummary:
    """Returns statistics and schema as plain values.

    Args:
        statistics: Statistics by split.
        schema: The schema of the data.
        label: Name of the label feature.
        classes: Class names in the order of the label indices.
    """
    examples = {
        split: sum(dataset.num_examples for dataset in datasets.datasets)
        for split, datasets in statistics.items()
    }
    why, by_split = "", {}
    try:
        counts = {split: _label_counts(datasets, label) for split, datasets in statistics.items()}
        names = list(dict.fromkeys([*classes, *sorted(set().union(*counts.values()))]))
        by_split = {split: {name: each[name] for name in names} for split, each in counts.items()}
    except _UnknownError as unknown:
        why = str(unknown)
    return DataSummary(
        examples, by_split, why, tuple(_feature(feature, schema) for feature in schema.feature)
    )


def _label_counts(
    datasets: statistics_pb2.DatasetFeatureStatisticsList, label: str
) -> Counter[str]:
    """Returns the number of examples by class."""
    counts: Counter[str] = Counter()
    for dataset in datasets.datasets:
        for feature in dataset.features:
            if feature_name(feature) != label:
                continue
            if not feature.HasField("string_stats"):
                raise _UnknownError(
                    f"the label feature {label!r} is a number, of which the statistics keep ranges"
                )
            buckets = feature.string_stats.rank_histogram.buckets
            if feature.string_stats.unique > len(buckets):
                raise _UnknownError(
                    f"the statistics keep only the {len(buckets):,} most frequent of "
                    f"{feature.string_stats.unique:,} values of {label!r}"
                )
            counts.update({bucket.label: round(bucket.sample_count) for bucket in buckets})
    if not counts:
        raise _UnknownError(f"the statistics have no feature {label!r}")
    return counts


def _feature(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> Feature:
    shared = {domain.name: domain.value for domain in schema.string_domain}
    values = list(feature.string_domain.value) or list(shared.get(feature.domain, []))
    domain = f"{len(values):,} values" if values else ""
    for numbers in (feature.int_domain, feature.float_domain):
        low, high = numbers.HasField("min"), numbers.HasField("max")
        if low and high:
            domain = f"{numbers.min:g} to {numbers.max:g}"
        elif low or high:
            domain = f"at least {numbers.min:g}" if low else f"at most {numbers.max:g}"
    return Feature(
        feature.name,
        schema_pb2.FeatureType.Name(feature.type),
        feature.presence.min_fraction >= 1,
        domain,
    )
