"""Predictions of a whole split, held against its labels."""

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.servable import request
from components.servable.measurement import Predictions

CLASS, CLASSES = "class", "classes"
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
    """

    signature: str
    prediction_key: str
    label_key: str
    preprocessing: Sequence[str]
    binary: bool | None = None
    threshold: float = 0.5
    from_logits: bool = False


class UnknownError(ValueError):
    """What is needed for the comparison isn't there."""


def predict(
    signatures: Mapping[str, Any],
    on_examples: Set[str],
    batches: Any,
    evaluation: Evaluation,
    label: str,
    tie: float,
) -> Predictions:
    """Predict all examples and count what is right.

    Args:
        signatures: The model's, as far as they could be tried.
        on_examples: Those of them that take serialized examples.
        batches: tf.data.Dataset of serialized examples, [N] each.
        evaluation: How the Evaluator asked.
        label: Raw feature that names the class.
        tie: Difference of the two best scores up to which rounding decides, relative where they
            exceed 1.
    """
    sums: dict[str, float] = {"count": 0, "right": 0, "named": 0, "loss": 0.0, "ties": 0}
    by_name = True
    try:
        _check(on_examples, evaluation)
        for examples in batches:
            answer = _ask(signatures[evaluation.signature], examples)
            scores = _scores(answer, evaluation)
            labels = _labels(signatures, examples, evaluation, answer)
            # A single score above the threshold says the second of two classes.
            single = scores.shape[1] == 1
            pair = np.insert(scores, 0, evaluation.threshold, axis=1) if single else scores
            if not 0 <= labels.min() <= labels.max() < pair.shape[1]:
                raise UnknownError(
                    f"labels are columns {labels.min()} to {labels.max()}, "
                    f"and there are {pair.shape[1]} columns"
                )
            two_best = np.sort(pair, axis=1)[:, -2:]
            close = tie * np.maximum(np.abs(two_best[:, 1]), 1.0)
            sums["count"] += len(labels)
            sums["right"] += int((pair.argmax(axis=1) == labels).sum())
            sums["loss"] += _loss(scores, labels, evaluation.from_logits)
            sums["ties"] += int((two_best[:, 1] - two_best[:, 0] <= close).sum())
            named = _right_by_name(examples, answer, label) if by_name else None
            by_name = named is not None
            sums["named"] += named or 0
    except UnknownError as unknown:
        return Predictions(0, error=str(unknown))
    count = int(sums["count"])
    return Predictions(
        examples=count,
        accuracy=sums["right"] / count,
        accuracy_by_name=sums["named"] / count if by_name else None,
        crossentropy=None if math.isnan(sums["loss"]) else sums["loss"] / count,
        near_ties=int(sums["ties"]),
    )


def _check(on_examples: Set[str], evaluation: Evaluation) -> None:
    for name in (evaluation.signature, *evaluation.preprocessing):
        if name not in on_examples:
            raise UnknownError(f"the evaluation used {name}, which was not tried on examples")


def _ask(function: Any, examples: tf.Tensor) -> dict[str, npt.NDArray[Any]]:
    (name,) = function.structured_input_signature[1]
    return {key: value.numpy() for key, value in function(**{name: examples}).items()}


def _scores(
    answer: Mapping[str, npt.NDArray[Any]], evaluation: Evaluation
) -> npt.NDArray[np.float64]:
    """What the model says of each class, or of the second of two, [N, C]."""
    key = evaluation.prediction_key
    if not key and len(answer) == 1:
        (key,) = answer
    if key not in answer:
        raise UnknownError(f"the evaluated prediction {key or '(unnamed)'} is no output")
    found = answer[key]
    if not np.issubdtype(found.dtype, np.floating) or found.ndim not in (1, 2):
        raise UnknownError(f"{key} holds no scores of classes")
    found = found.reshape(len(found), -1).astype(np.float64)
    if evaluation.binary is not None and evaluation.binary != (found.shape[1] == 1):
        raise UnknownError(f"{key} has {found.shape[1]} columns, which the metric takes otherwise")
    return found


def _loss(
    scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], from_logits: bool
) -> float:
    """The sum of the cross-entropies; NaN where the scores are no probabilities."""
    if scores.shape[1] == 1:
        first = np.zeros_like(scores) if from_logits else 1 - scores
        scores = np.concatenate([first, scores], axis=1)
    if from_logits:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    elif scores.min() < 0 or not np.allclose(scores.sum(axis=1), 1, atol=1e-2):
        return math.nan
    chosen = scores[np.arange(len(labels)), labels].clip(_EPSILON, 1 - _EPSILON)
    return float(-np.log(chosen).sum())


def _labels(
    signatures: Mapping[str, Any],
    examples: tf.Tensor,
    evaluation: Evaluation,
    answer: Mapping[str, npt.NDArray[Any]],
) -> npt.NDArray[np.int64]:
    """The label's column, [N]."""
    key = evaluation.label_key
    for name in evaluation.preprocessing:
        if key in signatures[name].structured_outputs:
            values = list(_ask(signatures[name], examples)[key].reshape(-1))
            break
    else:
        values = _raw(examples, key)
    if len(values) != len(examples):
        raise UnknownError(f"the label {key} is not one value an example")
    if isinstance(values[0], bytes):
        if CLASSES not in answer:
            raise UnknownError(f"the label {key} is a name, and no output {CLASSES} lists names")
        column = {name: i for i, name in enumerate(answer[CLASSES][0])}
        values = [column.get(value, -1) for value in values]
    if any(value != int(value) for value in values):
        raise UnknownError(f"the label {key} is no index of a class")
    return np.array(values, np.int64)


def _right_by_name(
    examples: tf.Tensor, answer: Mapping[str, npt.NDArray[Any]], label: str
) -> int | None:
    """How many examples are given their label's name; None where there are no names."""
    named = answer.get(CLASS, np.zeros(0)).reshape(-1)
    labels = _raw(examples, label)
    if (
        len(labels) != len(examples)
        or not isinstance(labels[0], bytes)
        or len(named) != len(labels)
    ):
        return None
    return sum(bool(a == b) for a, b in zip(named, labels, strict=True))


def _raw(examples: tf.Tensor, feature: str) -> list[Any]:
    """The values of a raw feature, one after the other."""
    rows = [request.parse(serialized).values for serialized in examples.numpy()]
    return [value for row in rows for value in row.get(feature, ())]
