"""Features of statistics by name.  Needs no TFX."""

from tensorflow_metadata.proto.v0 import statistics_pb2


def feature_name(feature: statistics_pb2.FeatureNameStatistics) -> str:
    """Returns a feature's name, which newer statistics have as a path."""
    return feature.name or ".".join(feature.path.step)


def by_name(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    """Returns all features of the datasets in the statistics."""
    return {feature_name(feature): feature for d in statistics.datasets for feature in d.features}
