"""TFMA metrics of a classifier that its gates need and TFMA does not have, or not as fast.

An EvalConfig names them by class and module, so that any Evaluator computes them. TFMA has Keras's
accuracy and cross-entropy, which AutoGraph converts anew in each run: two fifths of the Evaluator's
time on a small test split. Keras's cross-entropy fails where a label is no class, too.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from tensorflow_model_analysis.metrics import (
    metric_types,
    metric_util,
    multi_class_confusion_matrix_metrics,
)
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation import interval
from components.evaluation.results import (
    ABOVE_MAJORITY,
    ACCURACY,
    CROSSENTROPY,
    SHARED_ACCURACY,
    SHARED_EXAMPLES,
    WITHOUT_EXAMPLES,
)


def config(metric: type[metric_types.Metric], **parameters: Any) -> config_pb2.MetricConfig:
    """Returns the entry of one of these metrics in an EvalConfig, without its thresholds.

    Args:
        metric: The class.
        parameters: Arguments of its constructor.
    """
    return config_pb2.MetricConfig(
        class_name=metric.__name__, module=metric.__module__, config=json.dumps(parameters)
    )


class Accuracy(metric_types.Metric):  # type: ignore[misc]
    """Share of the examples of the class that the model finds most probable.

    A label that the model does not know, whose index is -1, counts as wrong.
    """

    def __init__(self, name: str = ACCURACY) -> None:
        """Constructs the metric."""
        super().__init__(metric_util.merge_per_key_computations(_accuracy), name=name)


class AccuracyAboveMajority(metric_types.Metric):  # type: ignore[misc]
    """Lower end of the accuracy's 95 % Wilson interval, minus the share of the largest class.

    Above 0, the model is better than the constant answer that is most often right, and not by
    chance.
    """

    def __init__(self, name: str = ABOVE_MAJORITY) -> None:
        """Constructs the metric."""
        super().__init__(metric_util.merge_per_key_computations(_above_majority), name=name)


class ClassesWithoutExamples(metric_types.Metric):  # type: ignore[misc]
    """Number of classes of which there is no example, which a slice by class cannot tell."""

    def __init__(self, classes: int, name: str = WITHOUT_EXAMPLES) -> None:
        """Constructs the metric.

        Args:
            classes: Number of classes.
            name: Name of the metric.
        """
        super().__init__(
            metric_util.merge_per_key_computations(_without_examples), classes=classes, name=name
        )


class SharedAccuracy(metric_types.Metric):  # type: ignore[misc]
    """Accuracy on the examples whose class every evaluated model knows.

    A model that does not know a class gives its label no index, -1. A second value, the number of
    such examples, is called `examples_shared_classes`. Without any, the accuracy is 0.
    """

    def __init__(self, name: str = SHARED_ACCURACY) -> None:
        """Constructs the metric."""
        super().__init__(metric_util.merge_per_key_computations(_shared_accuracy), name=name)


class Crossentropy(metric_types.Metric):  # type: ignore[misc]
    """Mean cross-entropy, in nats, of the examples whose class the model knows.

    Without such examples it is 0.
    """

    def __init__(self, name: str = CROSSENTROPY) -> None:
        """Constructs the metric."""
        super().__init__(metric_util.merge_per_key_computations(_crossentropy), name=name)


for _metric in (
    Accuracy,
    AccuracyAboveMajority,
    ClassesWithoutExamples,
    SharedAccuracy,
    Crossentropy,
):
    metric_types.register_metric(_metric)


# TFMA looks at the names of the parameters below, and passes those that are there.
def _accuracy(
    name: str, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    return _of_matrix(_share_of_right, name, eval_config, model_name)


def _above_majority(
    name: str, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    def value(counts: Counter[tuple[int, int]]) -> float:
        examples = sum(counts.values())
        low, _ = interval.wilson(_share_of_right(counts), round(examples))
        return low - max(_by_class(counts).values()) / examples

    return _of_matrix(value, name, eval_config, model_name)


def _without_examples(
    classes: int, name: str, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    def value(counts: Counter[tuple[int, int]]) -> float:
        by_class = _by_class(counts)
        return float(sum(by_class[index] == 0 for index in range(classes)))

    return _of_matrix(value, name, eval_config, model_name)


def _shared_accuracy(
    name: str, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    return [_mean(_right_if_shared, (name, SHARED_EXAMPLES), eval_config, model_name)]


def _crossentropy(
    name: str, eval_config: config_pb2.EvalConfig | None = None, model_name: str = ""
) -> metric_types.MetricComputations:
    return [_mean(_loss_if_known, (name,), eval_config, model_name)]


def _share_of_right(counts: Counter[tuple[int, int]]) -> float:
    right = sum(n for (actual, predicted), n in counts.items() if actual == predicted)
    return right / sum(counts.values())


def _by_class(counts: Counter[tuple[int, int]]) -> Counter[int]:
    """Counts the examples of each class, by its index."""
    by_class: Counter[int] = Counter()
    for (actual, _), number in counts.items():
        by_class[actual] += number
    return by_class


def _of_matrix(
    value: Callable[[Counter[tuple[int, int]]], float],
    name: str,
    eval_config: config_pb2.EvalConfig | None,
    model_name: str,
) -> metric_types.MetricComputations:
    """Derives a metric from the confusion matrix, which the report's plot computes too."""
    matrix = multi_class_confusion_matrix_metrics.multi_class_confusion_matrices(
        thresholds=[0.0], eval_config=eval_config, model_name=model_name
    )
    key = metric_types.MetricKey(name, model_name=model_name)
    source = matrix[-1].keys[-1]

    def result(metrics: dict[Any, Any]) -> dict[Any, float]:
        [entries] = metrics[source].values()
        return {key: value(Counter({tuple(pair): number for pair, number in entries.items()}))}

    return [*matrix, metric_types.DerivedMetricComputation(keys=[key], result=result)]


_Answers = dict[str, tuple[int, npt.NDArray[Any]]]
"""Label and probabilities of one example, by model."""

_SMALLEST = 1e-7
"""To which Keras raises a probability before it takes the logarithm."""


def _right_if_shared(answers: _Answers, model: str) -> float | None:
    if not all(0 <= label < scores.size for label, scores in answers.values()):
        return None
    label, scores = answers[model]
    return float(np.argmax(scores) == label)


def _loss_if_known(answers: _Answers, model: str) -> float | None:
    label, scores = answers[model]
    if not 0 <= label < scores.size:
        return None
    return -math.log(min(max(float(scores[label]), _SMALLEST), 1 - _SMALLEST))


def _mean(
    term: Callable[[_Answers, str], float | None],
    names: tuple[str, ...],
    eval_config: config_pb2.EvalConfig | None,
    model_name: str,
) -> metric_types.MetricComputation:
    keys = [metric_types.MetricKey(name, model_name=model_name) for name in names]
    specs = eval_config.model_specs if eval_config else ()
    # A single model's name is empty, whatever the config calls it.
    models = [spec.name for spec in specs] if len(specs) > 1 else [model_name]
    return metric_types.MetricComputation(
        keys=keys, preprocessors=None, combiner=_Mean(keys, term, eval_config, model_name, models)
    )


class _Mean(beam.CombineFn):  # type: ignore[misc]
    """The mean of the terms that are not None under the first key, their number under a second."""

    def __init__(
        self,
        keys: list[metric_types.MetricKey],
        term: Callable[[_Answers, str], float | None],
        eval_config: config_pb2.EvalConfig | None,
        model: str,
        models: Iterable[str],
    ) -> None:
        self._keys = keys
        self._term = term
        self._eval_config = eval_config
        self._model = model
        self._models = tuple(models)

    def create_accumulator(self) -> tuple[float, int]:
        return 0.0, 0

    def add_input(
        self, accumulator: tuple[float, int], element: metric_types.StandardMetricInputs
    ) -> tuple[float, int]:
        value = self._term(dict(self._answers(element)), self._model)
        return accumulator if value is None else (accumulator[0] + value, accumulator[1] + 1)

    def _answers(
        self, element: metric_types.StandardMetricInputs
    ) -> Iterator[tuple[str, tuple[int, npt.NDArray[Any]]]]:
        for model in self._models:
            label, scores, _ = next(
                metric_util.to_label_prediction_example_weight(
                    element, eval_config=self._eval_config, model_name=model, flatten=False
                )
            )
            yield model, (int(label.item()), scores)

    def merge_accumulators(self, accumulators: Iterable[tuple[float, int]]) -> tuple[float, int]:
        totals, numbers = zip(*accumulators, strict=True)
        return sum(totals), sum(numbers)

    def extract_output(self, accumulator: tuple[float, int]) -> dict[Any, float]:
        total, number = accumulator
        values = (total / number if number else 0.0, float(number))
        return dict(zip(self._keys, values, strict=False))
