"""Metrics of the Evaluator, and how to measure them again."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.utils.keras_lib import tf_keras
from tensorflow_model_analysis.writers import eval_config_writer

from components.evaluation import reader
from components.servable import prediction
from components.servable.prediction import Evaluation
from components.servable.verdict import Evaluated

ACCURACY, CROSSENTROPY = "accuracy", "crossentropy"
_CANDIDATES = ("", "candidate")
_CLASS = re.compile("(SparseCategorical|Categorical|Binary)(Accuracy|Crossentropy)")
_ERRORS = {
    "MeanAbsoluteError": prediction.MEAN_ABSOLUTE_ERROR,
    "MeanSquaredError": prediction.MEAN_SQUARED_ERROR,
    "RootMeanSquaredError": prediction.ROOT_MEAN_SQUARED_ERROR,
}


class _Metric(NamedTuple):
    """A metric of Keras: its name in the evaluation, and its configuration with defaults."""

    name: str
    config: Mapping[str, Any]
    is_binary: bool
    """Whether it takes one prediction an example, not one for each class."""


def _metrics(config: config_pb2.EvalConfig) -> dict[str, _Metric]:
    """Returns Keras's first accuracy, first cross-entropy, and errors of a regression."""
    metrics: dict[str, _Metric] = {}
    for spec in config.metrics_specs:
        # What is computed from predictions that were taken apart or put together is another value.
        if spec.HasField("binarize") or spec.HasField("aggregate") or spec.query_key:
            continue
        for metric in spec.metrics:
            kind = _CLASS.fullmatch(metric.class_name)
            if kind or metric.class_name in _ERRORS:
                text = metric.config.strip() or "{}"
                parameters = json.loads(text if text.startswith("{") else f"{{{text}}}")
                measured = tf_keras.metrics.deserialize(
                    {"class_name": metric.class_name, "config": parameters}
                )
                is_binary = bool(kind and kind[1] == "Binary")
                one = _Metric(measured.name, measured.get_config(), is_binary)
                name = kind[2].lower() if kind else _ERRORS[metric.class_name]
                metrics.setdefault(name, one)
    return metrics


def read(folder: str) -> tuple[Evaluated, Evaluation | None]:
    """Returns the candidate's metrics over all examples, and how the model was asked.

    Args:
        folder: Folder of a ModelEvaluation.

    Returns:
        The metrics, or why there are none to compare with; and how to ask the model again, None
        where that is not possible.
    """
    config = eval_config_writer.load_eval_run(folder)[0]
    specs = [s for s in config.model_specs if s.name in _CANDIDATES and not s.is_baseline]
    if len(specs) != 1 or not specs[0].label_key:
        return Evaluated(why_not="the evaluation names no single label of one model"), None
    (spec,) = specs
    if spec.example_weight_key or spec.example_weight_keys:
        return Evaluated(why_not="the evaluation gives its examples weights"), None
    metrics = reader.overall(tfma.load_metrics(folder), spec.name)
    values = metrics.values if metrics else {}
    known = _metrics(config)
    accuracy, crossentropy = known.get(ACCURACY), known.get(CROSSENTROPY)
    evaluated = Evaluated(
        accuracy=values.get(accuracy.name if accuracy else ACCURACY),
        crossentropy=values.get(crossentropy.name if crossentropy else CROSSENTROPY),
        examples=metrics.examples if metrics else None,
    )
    if evaluated.accuracy is evaluated.crossentropy is None:
        errors = {name: values.get(known[name].name) for name in _ERRORS.values() if name in known}
        evaluated = evaluated._replace(
            errors={name: value for name, value in errors.items() if value is not None}
        )
    if evaluated.accuracy is evaluated.crossentropy is None and not evaluated.errors:
        why = (
            "the evaluation has no accuracy, cross-entropy or error of Keras's, such as "
            "SparseCategoricalAccuracy, BinaryAccuracy or MeanAbsoluteError, and no metric of such "
            "a name"
        )
        return Evaluated(why_not=why), None
    return evaluated, Evaluation(
        spec.signature_name or "serving_default",
        spec.prediction_key,
        spec.label_key,
        tuple(spec.preprocessing_function_names),
        binary=next((known[m].is_binary for m in (ACCURACY, CROSSENTROPY) if m in known), None),
        threshold=accuracy.config.get("threshold", 0.5) if accuracy else 0.5,
        from_logits=bool(crossentropy and crossentropy.config.get("from_logits")),
        regression=bool(evaluated.errors),
    )
