"""TFMA metrics of a regression: R2 and the 95 % intervals of R2 and of the mean absolute error.

R2, the coefficient of determination, is 1 - (sum of squared errors) / (sum of squares of labels
around their mean): the share of the labels' variance that the model explains. It is 0 for the mean
of the labels as constant answer.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from tensorflow_model_analysis.metrics import metric_types, metric_util
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation import interval
from components.evaluation.results import MAE, R2

GROUPS = 128
"""Groups of examples that the jackknife leaves out in turn."""

_SUMS = 5
"""Examples, sum of labels, of their squares, of absolute and of squared errors."""


class RegressionMetric(metric_types.Metric):  # type: ignore[misc]
    """One of r2, r2_low, r2_high, mae_low and mae_high, as its name says."""

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
            keys=[sums], preprocessors=None, combiner=_Sums(sums, eval_config, model_name)
        ),
        metric_types.DerivedMetricComputation(keys=[key], result=result),
    ]


def values(sums: npt.NDArray[np.float64]) -> dict[str, float]:
    """Returns R2 and the ends of the intervals by name.

    The intervals are those of the jackknife over groups (Efron & Tibshirani 1993, ch. 11).

    Args:
        sums: Sums over each group of examples, [groups, 5].
    """
    sums = sums[sums[:, 0] > 0]
    total = sums.sum(axis=0)
    whole = _r2_and_mae(total[None, :])[0]
    without = _r2_and_mae(total - sums)
    low, high = interval.jackknife(whole, without)
    return {
        R2: float(whole[0]),
        **{
            f"{name}_{end}": float(ends[place])
            for place, name in enumerate((R2, MAE))
            for end, ends in (("low", low), ("high", high))
        },
    }


def _r2_and_mae(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns R2 and mean absolute error of each row of sums, [N, 5] -> [N, 2]."""
    count, labels, squares, absolute, squared = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = squares - labels**2 / count
        # Labels that are all equal leave nothing to explain.
        r2 = np.where(spread > 0, 1 - squared / spread, -np.inf)
        return np.stack([r2, absolute / count], axis=1)


class _Sums(beam.CombineFn):  # type: ignore[misc]
    """Sums over groups of examples, by a hash of label and prediction: [GROUPS, 5]."""

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
        return np.zeros((GROUPS, _SUMS))

    def add_input(
        self, sums: npt.NDArray[np.float64], element: metric_types.StandardMetricInputs
    ) -> npt.NDArray[np.float64]:
        for label, prediction, _ in metric_util.to_label_prediction_example_weight(
            element, eval_config=self._eval_config, model_name=self._model
        ):
            y, error = float(label.item()), float(prediction.item()) - float(label.item())
            digest = hashlib.blake2b(np.array([y, error]).tobytes(), digest_size=2).digest()
            group = int.from_bytes(digest, "big") % GROUPS
            sums[group] += 1, y, y * y, abs(error), error * error
        return sums

    def merge_accumulators(
        self, accumulators: Iterable[npt.NDArray[np.float64]]
    ) -> npt.NDArray[np.float64]:
        merged: npt.NDArray[np.float64] = np.sum(list(accumulators), axis=0)
        return merged

    def extract_output(self, sums: npt.NDArray[np.float64]) -> dict[Any, Any]:
        return {self._key: sums}
