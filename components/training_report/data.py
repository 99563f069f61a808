"""How many examples there are, of which class, and what they should look like."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.io import feature_name


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
            indices; empty where the statistics do not tell.
        why_no_classes: Why they do not tell; empty where they do.
        features: What the schema asks of the data.
    """

    examples: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    why_no_classes: str
    features: tuple[Feature, ...]


def summarise(
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    schema: schema_pb2.Schema,
    label: str,
    classes: Sequence[str],
) -> DataSummary:
    """Put statistics and schema in plain values.

    Args:
        statistics: StatisticsGen's findings by split.
        schema: The schema of the data.
        label: Name of the label feature.
        classes: Class names in the order of the label indices.
    """
    examples = {
        split: sum(dataset.num_examples for dataset in datasets.datasets)
        for split, datasets in statistics.items()
    }
    counts = {split: _label_counts(datasets, label) for split, datasets in statistics.items()}
    why = next((found for found in counts.values() if isinstance(found, str)), "")
    known = {} if why else {s: found for s, found in counts.items() if isinstance(found, Counter)}
    if known and not why:
        names = list(dict.fromkeys([*classes, *sorted(set().union(*known.values()))]))
        known = {s: Counter({name: found[name] for name in names}) for s, found in known.items()}
    return DataSummary(
        examples, known, why, tuple(_feature(feature, schema) for feature in schema.feature)
    )


def _label_counts(
    datasets: statistics_pb2.DatasetFeatureStatisticsList, label: str
) -> "Counter[str] | str":
    """Examples by class, or why they are not known."""
    counts: Counter[str] = Counter()
    for dataset in datasets.datasets:
        for feature in dataset.features:
            if feature_name(feature) != label:
                continue
            if not feature.HasField("string_stats"):
                return (
                    f"the label feature {label!r} is a number, of which the statistics keep ranges"
                )
            buckets = feature.string_stats.rank_histogram.buckets
            if feature.string_stats.unique > len(buckets):
                return (
                    f"the statistics keep only the {len(buckets):,} most frequent of "
                    f"{feature.string_stats.unique:,} values of {label!r}"
                )
            counts.update({bucket.label: round(bucket.sample_count) for bucket in buckets})
    return counts or f"the statistics have no feature {label!r}"


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
