"""TFMA metrics of a regression: R2 and the 95 % intervals of R2 and of the mean absolute error."""

import hashlib
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation import interval
from components.evaluation.regression import Sums
from components.evaluation.results import ENDS, MAE, R2

GROUPS = 128
"""Groups of examples that the jackknife leaves out in turn."""


class RegressionMetric(metric_types.Metric):  # type: ignore[misc]
    """R2 or an end of an interval, as its name says."""

    def __init__(self, name: str) -> None:
        """Constructs the metric."""
        super().__init__(metric_util.merge_per_key_computations(_computations), name=name)


metric_types.register_metric(RegressionMetric)


# TFMA looks at the names of the parameters, and passes those that are there.
def _computations(
    name: str, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    sums = metric_types.MetricKey("_regression_sums", model_name=model_name)
    key = metric_types.MetricKey(name, model_name=model_name)

    def result(metrics: dict[Any, Any]) -> dict[Any, float]:
        return {key: values(metrics[sums])[name]}

    return [
        metric_types.MetricComputation(
            keys=[sums], preprocessors=None, combiner=_GroupSums(sums, eval_config, model_name)
        ),
        metric_types.DerivedMetricComputation(keys=[key], result=result),
    ]


def values(sums: npt.NDArray[np.float64]) -> dict[str, float]:
    """Returns R2 and the ends of the intervals by name.

    The intervals are those of the jackknife over groups (Efron & Tibshirani 1993, ch. 11).

    Args:
        sums: `Sums` over each group of examples, [groups, 5].
    """
    sums = sums[sums[:, 0] > 0]
    total = sums.sum(axis=0, keepdims=True)
    [whole] = _r2_and_mae(total)
    low, high = interval.jackknife(whole, _r2_and_mae(total - sums))
    ends = np.stack([low, high], axis=1).ravel().tolist()
    return {R2: float(whole[0]), **dict(zip(ENDS[R2] + ENDS[MAE], ends, strict=True))}


def _r2_and_mae(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns R2 and mean absolute error of each row of sums, [N, 5] -> [N, 2]."""
    rows = [(row.r2(), row.mae()) for row in map(Sums._make, sums.tolist())]
    return np.array(rows).reshape(-1, 2)


class _GroupSums(beam.CombineFn):  # type: ignore[misc]
    """`Sums` over groups of examples, by a hash of label and prediction: [GROUPS, 5]."""

    def __init__(
        self,
        key: metric_types.MetricKey,
        eval_config: config_pb2.EvalConfig | None,
        model: str,
    ) -> None:
        self._key = key
        self._eval_config = eval_config
        self._model = model

    def create_accumulator(self) -> npt.NDArray[np.float64]:
        return np.zeros((GROUPS, len(Sums._fields)))

    def add_input(
        self, sums: npt.NDArray[np.float64], element: metric_types.StandardMetricInputs
    ) -> npt.NDArray[np.float64]:
        for label, prediction, _ in metric_util.to_label_prediction_example_weight(
            element, eval_config=self._eval_config, model_name=self._model
        ):
            y, predicted = float(label.item()), float(prediction.item())
            digest = hashlib.blake2b(np.array([y, predicted - y]).tobytes(), digest_size=2).digest()
            sums[int.from_bytes(digest, "big") % GROUPS] += Sums().add(y, predicted)
        return sums

    def merge_accumulators(
        self, accumulators: Iterable[npt.NDArray[np.float64]]
    ) -> npt.NDArray[np.float64]:
        merged: npt.NDArray[np.float64] = np.sum(list(accumulators), axis=0)
        return merged

    def extract_output(self, sums: npt.NDArray[np.float64]) -> dict[Any, Any]:
        return {self._key: sums}
