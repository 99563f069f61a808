"""Predictions of a whole split, compared with its labels."""

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.evaluation import scores
from components.servable import signature
from components.servable.measurement import Predictions
from components.servable.signature import Answer

CLASS, CLASSES = "class", "classes"
MEAN_ABSOLUTE_ERROR = "mean absolute error"
MEAN_SQUARED_ERROR = "mean squared error"
ROOT_MEAN_SQUARED_ERROR = "root mean squared error"
# Keras keeps probabilities this far from 0 and 1 before it takes the logarithm.
_EPSILON = 1e-7


class Evaluation(NamedTuple):
    """How the Evaluator asked the model, in TFMA's terms.

    Attributes:
        signature: Signature that predicts.
        prediction_key: Its output with a score for each class; empty for its only one.
        label_key: Feature, or output of a preprocessing signature, with the label.
        preprocessing: Signatures that compute further features from examples.
        binary: Whether the metrics take one score an example, not one for each class; None if
            that is not known.
        threshold: Score above which a single one says the second of two classes.
        from_logits: Whether the cross-entropy takes the scores as logits.
        regression: Whether the prediction is a number, and so is the label.
    """

    signature: str
    prediction_key: str
    label_key: str
    preprocessing: Sequence[str]
    binary: bool | None = None
    threshold: float = 0.5
    from_logits: bool = False
    regression: bool = False


class UnknownError(ValueError):
    """Model or examples lack what the comparison needs."""


def predict(
    signatures: Mapping[str, Any],
    on_examples: Set[str],
    batches: Any,
    evaluation: Evaluation,
    label: str,
    tie: float,
) -> Predictions:
    """Predicts all examples and returns the metrics that the Evaluator measured.

    Args:
        signatures: The model's, as far as they could be tried.
        on_examples: Those of them that take serialized examples.
        batches: tf.data.Dataset of serialized examples, [N] each.
        evaluation: How the Evaluator asked.
        label: Raw feature that names the class.
        tie: Difference of the two best scores up to which rounding decides, relative where they
            exceed 1.
    """
    count = right = ties = 0
    named: int | None = 0
    loss = absolute = squared = 0.0
    try:
        for name in (evaluation.signature, *evaluation.preprocessing):
            if name not in on_examples:
                raise UnknownError(f"the evaluation used {name}, which was not tried on examples")
        for examples in batches:
            answer = _ask(signatures[evaluation.signature], examples)
            columns = _scores(answer, evaluation)
            values = _label_values(signatures, examples, evaluation)
            if evaluation.regression:
                errors = _errors(columns, values)
                count += len(errors)
                absolute += float(np.abs(errors).sum())
                squared += float((errors**2).sum())
                continue
            labels = _indices(values, evaluation, answer)
            # A single score above the threshold says the second of two classes.
            single = columns.shape[1] == 1
            pair = np.insert(columns, 0, evaluation.threshold, axis=1) if single else columns
            if not 0 <= labels.min() <= labels.max() < pair.shape[1]:
                raise UnknownError(
                    f"labels are columns {labels.min()} to {labels.max()}, "
                    f"and there are {pair.shape[1]} columns"
                )
            two_best = np.sort(pair, axis=1)[:, -2:]
            close = tie * np.maximum(np.abs(two_best[:, 1]), 1.0)
            count += len(labels)
            right += int((pair.argmax(axis=1) == labels).sum())
            ties += int((two_best[:, 1] - two_best[:, 0] <= close).sum())
            loss += _loss(columns, labels, evaluation.from_logits)
            of_batch = _right_by_name(examples, answer, label)
            named = None if named is None or of_batch is None else named + of_batch
    except UnknownError as unknown:
        return Predictions(0, error=str(unknown))
    if evaluation.regression:
        return Predictions(
            examples=count,
            errors={
                MEAN_ABSOLUTE_ERROR: absolute / count,
                MEAN_SQUARED_ERROR: squared / count,
                ROOT_MEAN_SQUARED_ERROR: math.sqrt(squared / count),
            },
        )
    return Predictions(
        examples=count,
        accuracy=right / count,
        accuracy_by_name=None if named is None else named / count,
        crossentropy=None if math.isnan(loss) else loss / count,
        near_ties=ties,
    )


def _ask(function: Any, examples: tf.Tensor) -> dict[str, npt.NDArray[Any]]:
    (name,) = function.structured_input_signature[1]
    return {key: value.numpy() for key, value in function(**{name: examples}).items()}


def _scores(answer: Answer, evaluation: Evaluation) -> npt.NDArray[np.float64]:
    """Returns the score of each class, or of the second of two, [N, C]."""
    key = evaluation.prediction_key
    if not key and len(answer) == 1:
        (key,) = answer
    if key not in answer:
        raise UnknownError(f"the evaluated prediction {key or '(unnamed)'} is no output")
    values = answer[key]
    if not np.issubdtype(values.dtype, np.floating) or values.ndim not in (1, 2):
        raise UnknownError(f"{key} holds no scores of classes")
    values = values.reshape(len(values), -1).astype(np.float64)
    if evaluation.binary is not None and evaluation.binary != (values.shape[1] == 1):
        raise UnknownError(f"{key} has {values.shape[1]} columns, which the metric takes otherwise")
    return values


def _loss(
    columns: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], from_logits: bool
) -> float:
    """Returns the sum of the cross-entropies; NaN where the scores are no probabilities."""
    if not from_logits and not scores.are_probabilities(columns):
        return math.nan
    probabilities = scores.probabilities(columns, from_logits)
    chosen = probabilities[np.arange(len(labels)), labels].clip(_EPSILON, 1 - _EPSILON)
    return float(-np.log(chosen).sum())


def _errors(columns: npt.NDArray[np.float64], labels: list[Any]) -> npt.NDArray[np.float64]:
    """Returns prediction minus label, [N]."""
    if columns.shape[1] != 1 or not all(isinstance(label, float | int) for label in labels):
        raise UnknownError("predictions and labels are not one number an example")
    return columns[:, 0] - np.array(labels, np.float64)


def _label_values(
    signatures: Mapping[str, Any], examples: tf.Tensor, evaluation: Evaluation
) -> list[Any]:
    """Returns the label of each example: an index, a name or a number."""
    key = evaluation.label_key
    for name in evaluation.preprocessing:
        if key in signatures[name].structured_outputs:
            values: list[Any] = _ask(signatures[name], examples)[key].reshape(-1).tolist()
            break
    else:
        values = _raw(examples, key)
    if len(values) != len(examples):
        raise UnknownError(f"the label {key} is not one value an example")
    return values


def _indices(values: list[Any], evaluation: Evaluation, answer: Answer) -> npt.NDArray[np.int64]:
    """Returns the label's column, [N]."""
    key = evaluation.label_key
    if isinstance(values[0], bytes):
        if CLASSES not in answer:
            raise UnknownError(f"the label {key} is a name, and no output {CLASSES} lists names")
        column = {name: i for i, name in enumerate(answer[CLASSES][0])}
        values = [column.get(value, -1) for value in values]
    if any(value != int(value) for value in values):
        raise UnknownError(f"the label {key} is no index of a class")
    return np.array(values, np.int64)


def _right_by_name(examples: tf.Tensor, answer: Answer, label: str) -> int | None:
    """Returns how many examples are given their label's name; None where there are no names."""
    named = answer.get(CLASS, np.zeros(0)).reshape(-1)
    labels = _raw(examples, label)
    are_names = len(labels) == len(examples) == len(named) and isinstance(labels[0], bytes)
    return int(sum(a == b for a, b in zip(named, labels, strict=True))) if are_names else None


def _raw(examples: tf.Tensor, feature: str) -> list[Any]:
    """Returns the values of a raw feature, one after the other."""
    rows = [signature.parse(serialized).values for serialized in examples.numpy()]
    return [value for row in rows for value in row.get(feature, ())]
