"""Schema anomalies as readable errors."""

from collections.abc import Iterator, Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.gate import Check, GateError
from components.statistics import by_name
from trainer_module.util.text import listed

_Info = anomalies_pb2.AnomalyInfo

_REMEDIES: Mapping[int, str] = {
    _Info.ENUM_TYPE_UNEXPECTED_STRING_VALUES: (
        "Correct the values, or add them to the feature's domain in the schema."
    ),
    _Info.ENUM_TYPE_INVALID_UTF8: "Save the data as UTF-8.",
    _Info.FEATURE_TYPE_LOW_FRACTION_PRESENT: "Fill in the missing values, or drop their examples.",
    _Info.FEATURE_TYPE_LOW_NUMBER_PRESENT: "Fill in the missing values.",
    _Info.FEATURE_TYPE_NOT_PRESENT: "Add the feature to the data.",
    _Info.SCHEMA_MISSING_COLUMN: (
        "Add the feature to the data, or remove it from the schema if nothing needs it."
    ),
    _Info.UNEXPECTED_DATA_TYPE: "Correct the values that made the feature another type.",
    _Info.INVALID_FEATURE_SHAPE: "Give each example as many values as the schema's shape has.",
}
_REMEDY = "Correct the data, or change the schema if it asks for something else than you do."


def check(
    anomalies: Mapping[str, anomalies_pb2.Anomalies],
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    schema: schema_pb2.Schema,
    label: str,
) -> None:
    """Raises GateError with the problems that `find_problems` returns, if there are any."""
    problems = find_problems(anomalies, statistics, schema, label)
    if problems:
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise GateError(f"the data must follow its schema, got {count}", problems)


def find_problems(
    anomalies: Mapping[str, anomalies_pb2.Anomalies],
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    schema: schema_pb2.Schema,
    label: str,
) -> list[Check]:
    """Returns all problems: an empty split, no label or a constant one, and each anomaly.

    Args:
        anomalies: ExampleValidator's findings by split.
        statistics: StatisticsGen's findings by split.
        schema: The schema by which the anomalies were found.
        label: Name of the label feature.
    """
    problems: list[Check] = []
    if not statistics:
        rule = "there must be data"
        problems.append(_problem("(none)", "", "there are no splits", rule, "Check the data."))
    for split, datasets in statistics.items():
        if not any(dataset.num_examples for dataset in datasets.datasets):
            # An empty split breaks every other rule too; one line says it.
            remedy = "Add data, or split it in another way."
            rule = "no split may be empty"
            problems.append(_problem(split, "", "it has no examples", rule, remedy))
            continue
        of_split = list(_anomaly_problems(split, anomalies.get(split), schema))
        if not any(problem.subject == label for problem in of_split):
            of_split += _label_problems(split, by_name(datasets), label)
        problems += of_split
    return problems


def _problem(split: str, feature: str, value: str, rule: str, remedy: str) -> Check:
    where = f"split {split}" + (f", feature {feature}" if feature else "")
    return Check(where, value, rule, False, remedy, subject=feature or None)


def _anomaly_problems(
    split: str, anomalies: anomalies_pb2.Anomalies | None, schema: schema_pb2.Schema
) -> Iterator[Check]:
    if anomalies is None:
        remedy = "Take it out of ExampleValidator's exclude_splits."
        yield _problem(split, "", "it was not validated", "each split must be validated", remedy)
        return
    if anomalies.HasField("dataset_anomaly_info"):
        info = anomalies.dataset_anomaly_info
        yield _problem(split, "", _words(info), "the data set's constraints in the schema", _REMEDY)
    for key in sorted(anomalies.anomaly_info):
        info = anomalies.anomaly_info[key]
        name = ".".join(info.path.step) or key
        types = [reason.type for reason in info.reason]
        # What the schema does not describe reaches neither Transform nor the model.
        if types == [_Info.SCHEMA_NEW_COLUMN]:
            continue
        remedy = next((_REMEDIES[t] for t in types if t in _REMEDIES), _REMEDY)
        yield _problem(split, name, _words(info), _rule(name, schema), remedy)


def _label_problems(
    split: str, features: Mapping[str, statistics_pb2.FeatureNameStatistics], label: str
) -> Iterator[Check]:
    if label not in features:
        rule = "the label must be a feature of the data"
        remedy = f"Set `label` to one of {listed(sorted(features))}."
        yield _problem(split, label, "there is no such feature", rule, remedy)
    elif not _varies(features[label]):
        value, rule = "every example has the same label", "there must be at least two label values"
        remedy = "Add examples of the other classes to this split."
        yield _problem(split, label, value, rule, remedy)


def _varies(feature: statistics_pb2.FeatureNameStatistics) -> bool:
    if feature.HasField("num_stats"):
        return bool(feature.num_stats.min != feature.num_stats.max)
    return bool(feature.string_stats.unique >= 2)


def _words(info: Any) -> str:
    """Returns TFDV's description of an anomaly on one line, without the full stop."""
    reasons = [f"{r.short_description}: {r.description}" for r in info.reason]
    text = " ".join(reasons or [f"{info.short_description}: {info.description}"])
    return " ".join(text.split()).rstrip(".")


def _rule(name: str, schema: schema_pb2.Schema) -> str:
    """Returns what the schema asks of a feature, in words."""
    feature = next((f for f in schema.feature if f.name == name), None)
    if feature is None:
        return "each feature must be in the schema"
    parts = [schema_pb2.FeatureType.Name(feature.type)]
    if feature.presence.min_fraction >= 1:
        parts.append("in every example")
    elif feature.presence.min_fraction > 0:
        parts.append(f"in at least {feature.presence.min_fraction:.0%} of examples")
    elif feature.presence.min_count > 0:
        count = feature.presence.min_count
        parts.append(f"in at least {count} example{'s' * (count > 1)}")
    if feature.HasField("shape") or feature.value_count.max == 1:
        optional = not feature.HasField("shape") and not feature.value_count.min
        parts.append("at most one value each" if optional else "one value each")
    for domain in (feature.int_domain, feature.float_domain):
        low, high = domain.HasField("min"), domain.HasField("max")
        if low and high:
            parts.append(f"{domain.min} to {domain.max}")
        elif low or high:
            parts.append(f"at least {domain.min}" if low else f"at most {domain.max}")
    values = list(feature.string_domain.value) or [
        value
        for domain in schema.string_domain
        if domain.name == feature.domain
        for value in domain.value
    ]
    if values:
        parts.append(f"one of {listed(values)}")
    return ", ".join(parts)
