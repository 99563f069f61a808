"""Kolmogorov-Smirnov distance of two numeric features by their quantiles."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.statistics import feature_name
from trainer_module.util.checks import require

_Values = npt.NDArray[np.float64]


class Quantiles(NamedTuple):
    """Bounds of a distribution function F, as a QUANTILES histogram of TFDV gives them.

    Each upper end of a bucket is a value of the feature, and the buckets up to it hold exactly the
    values up to it. Between the ends F is only bounded.

    Attributes:
        low: Smallest value.
        ends: Upper ends of the buckets, [K], ascending; a frequent value comes repeatedly.
        shares: F at each end, [K].
    """

    low: float
    ends: _Values
    shares: _Values

    def bounds(self, values: _Values, known: _Values) -> tuple[_Values, _Values]:
        """Returns the smallest and the largest F that the histogram allows at each value.

        Args:
            values: Where to look, [N].
            known: Values that many examples have. F jumps there, so it is only interpolated
                between two ends that are none of them, and never in the tails.
        """
        ends = self.ends
        below = np.searchsorted(ends, values, side="right")
        smallest = np.concatenate([[0.0], self.shares])[below]
        # The end after `below` buckets is the quantile of its number, so F is less before it.
        largest = np.maximum((below + 1) / len(ends), smallest)
        largest = np.where(np.isin(values, ends), smallest, np.minimum(largest, 1.0))
        largest = np.where(values < self.low, 0.0, largest)
        before, after = ends[below - 1], ends[np.minimum(below, len(ends) - 1)]
        smooth = (below > 0) & (below < len(ends) - 1) & np.isfinite(before) & np.isfinite(after)
        smooth &= ~np.isin(before, known) & ~np.isin(after, known)
        place = np.divide(values - before, after - before, out=np.zeros_like(values), where=smooth)
        between = smallest + place * (largest - smallest)
        return np.where(smooth, between, smallest), np.where(smooth, between, largest)


def read(feature: statistics_pb2.FeatureNameStatistics) -> Quantiles:
    """Returns the quantiles of a numeric feature that has values.

    Raises:
        UserError: The statistics hold no quantiles.
    """
    kind = statistics_pb2.Histogram.QUANTILES
    histograms = [h for h in feature.num_stats.histograms if h.type == kind and not h.name]
    require(
        bool(histograms),
        "statistics of a numeric feature must hold a QUANTILES histogram",
        f"none for {feature_name(feature)}",
        "Compute them with StatisticsGen.",
    )
    buckets = histograms[0].buckets
    counts = np.array([bucket.sample_count for bucket in buckets])
    ends = np.array([bucket.high_value for bucket in buckets])
    return Quantiles(buckets[0].low_value, ends, counts.cumsum() / counts.sum())


def kolmogorov_smirnov(one: Quantiles, other: Quantiles) -> float:
    """Returns the Kolmogorov-Smirnov distance of two features: the largest difference of F.

    F is looked at where an end of either histogram lies. Where both only bound it, the smallest
    difference within the bounds counts, so that neither a heavy tail nor a value that many
    examples have looks like a difference.
    """
    values, counts = np.unique(np.concatenate([one.ends, other.ends]), return_counts=True)
    known = values[counts > 1]
    low, high = one.bounds(values, known)
    other_low, other_high = other.bounds(values, known)
    return float(max(0.0, (low - other_high).max(), (other_low - high).max()))
