"""Reader of TFMA's plots: the confusion matrix and the calibration over all examples."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tensorflow_model_analysis.proto import metrics_for_slice_pb2

from components.evaluation.results import AtThreshold, Calibration, ConfusionMatrix, class_name

# TFMA's bins are too fine to hold more than a few examples each.
_BINS = 10
# At the edges of TFMA's bins, so that no bin is on both sides of one.
_THRESHOLDS = tuple(step / 20 for step in range(1, 20))
# Of an edge as floating-point number.
_EDGE = 1e-9

_Plots = Iterable[metrics_for_slice_pb2.PlotsForSlice]


def calibration(plots: _Plots, classes: Sequence[str], candidate: str) -> Calibration | None:
    """Returns the calibration of a model; None where there is no CalibrationPlot."""
    for item in _overall(plots, candidate):
        sums = np.zeros((_BINS, 3))
        buckets = item.value.calibration_histogram_buckets.buckets
        for bucket in buckets:
            if count := bucket.num_weighted_examples.value:
                predicted = bucket.total_weighted_refined_prediction.value
                place = min(int(predicted / count * _BINS), _BINS - 1)
                sums[place] += predicted, bucket.total_weighted_label.value, count
        if sums.any():
            index = item.key.sub_key.class_id.value if item.key.HasField("sub_key") else 1
            points = tuple((p / n, labels / n, n) for p, labels, n in sums.tolist() if n)
            # Of more than two classes the most probable one is predicted.
            thresholds = tuple(_thresholds(buckets)) if len(classes) <= 2 else ()
            return Calibration(class_name(index, classes), points, thresholds)
    return None


def _thresholds(buckets: Iterable[Any]) -> Iterator[AtThreshold]:
    rows = np.array(
        [
            (
                b.lower_threshold_inclusive,
                b.total_weighted_label.value,
                b.num_weighted_examples.value,
            )
            for b in buckets
        ]
    )
    positive = float(rows[:, 1].sum())
    for threshold in _THRESHOLDS:
        right, predicted = rows[rows[:, 0] >= threshold - _EDGE, 1:].sum(axis=0).tolist()
        if predicted and positive:
            f1 = 2 * right / (predicted + positive)
            yield AtThreshold(threshold, right / predicted, right / positive, f1)


def matrix(plots: _Plots, classes: Sequence[str], candidate: str) -> ConfusionMatrix | None:
    """Returns the confusion matrix of a model; None where there is none."""
    for item in _overall(plots, candidate):
        matrices = item.value.multi_class_confusion_matrix_at_thresholds.matrices
        if matrices:
            # At the lowest threshold, 0 unless told otherwise, the most probable class counts.
            lowest = min(matrices, key=lambda matrix: float(matrix.threshold))
            counts = {
                (entry.actual_class_id, entry.predicted_class_id): entry.num_weighted_examples
                for entry in lowest.entries
                if entry.num_weighted_examples
            }
            return ConfusionMatrix(tuple(classes), counts)
    return None


def _overall(plots: _Plots, candidate: str) -> Iterator[Any]:
    """Yields the plots of a model over all examples."""
    for proto in plots:
        if not proto.HasField("cross_slice_key") and not proto.slice_key.single_slice_keys:
            for item in proto.plot_keys_and_values:
                if (item.key.model_name or candidate) == candidate:
                    yield item
