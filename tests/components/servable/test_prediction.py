import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.servable.measurement import Predictions
from components.servable.prediction import Evaluation, predict

ROWS = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]
INDICES = [0, 2, 2, 1]
NAMES = [b"a", b"b", b"c"]
LOSS = -(math.log(0.7) + math.log(0.1) + math.log(0.5) + math.log(0.4)) / 4
ASKED = Evaluation("serve", "probabilities", "label_xf", ["labels"])


class Signature(NamedTuple):
    """A signature as a loaded SavedModel has them, on one input."""

    answer: Callable[[Any], dict[str, Any]]

    @property
    def structured_input_signature(self) -> Any:
        return (), {"examples": tf.TensorSpec([None], tf.string)}

    @property
    def structured_outputs(self) -> dict[str, Any]:
        return dict.fromkeys(self.answer(tf.constant([], tf.string)))

    def __call__(self, examples: Any) -> dict[str, Any]:
        return self.answer(examples)


def looked_up(column: list[Any]) -> Callable[[Any], Any]:
    """The values of the rows whose number the examples hold."""

    def values(examples: Any) -> Any:
        numbers = tf.io.parse_example(examples, {"i": tf.io.FixedLenFeature([], tf.int64)})["i"]
        return tf.gather(tf.constant(column), numbers)

    return values


def serve(**outputs: list[Any]) -> Signature:
    return Signature(lambda examples: {k: looked_up(v)(examples) for k, v in outputs.items()})


@pytest.fixture
def batches(example: Callable[..., bytes]) -> list[Any]:
    rows = [
        example({"i": [i], "label": [NAMES[index]], "index": [index], "ratio": [0.5]})
        for i, index in enumerate(INDICES)
    ]
    return [tf.constant(rows[:3]), tf.constant(rows[3:])]


@pytest.fixture
def run(batches: list[Any]) -> Callable[..., Predictions]:
    def go(signatures: dict[str, Any], asked: Evaluation = ASKED, **given: Any) -> Predictions:
        options = {"label": "label", "tie": 1e-4, **given}
        return predict(signatures, set(signatures), batches, asked, **options)

    return go


LABELS = serve(label_xf=[[index] for index in INDICES])
CLASS = [[b"a"], [b"b"], [b"c"], [b"a"]]


def test_labels_from_a_signature(run: Any) -> None:
    found = run({"serve": serve(**{"probabilities": ROWS, "class": CLASS}), "labels": LABELS})
    assert found == Predictions(4, 0.5, 0.5, pytest.approx(LOSS), near_ties=1)


def test_names_in_another_order_than_the_columns(run: Any) -> None:
    wrong = [[b"b"], [b"a"], [b"c"], [b"b"]]
    found = run({"serve": serve(**{"probabilities": ROWS, "class": wrong}), "labels": LABELS})
    assert (found.accuracy, found.accuracy_by_name) == (0.5, 0.5)
    wrong = [[b"b"], [b"a"], [b"a"], [b"a"]]
    found = run({"serve": serve(**{"probabilities": ROWS, "class": wrong}), "labels": LABELS})
    assert (found.accuracy, found.accuracy_by_name) == (0.5, 0.0)


def test_raw_labels(run: Any) -> None:
    raw = Evaluation("serve", "", "index", [])
    found = run({"serve": serve(probabilities=ROWS)}, raw, label="index")
    assert found == Predictions(4, 0.5, None, pytest.approx(LOSS), near_ties=1)
    raw = Evaluation("serve", "probabilities", "label", [])
    found = run({"serve": serve(probabilities=ROWS, classes=[NAMES] * 4)}, raw)
    assert found.accuracy == 0.5


def test_one_probability_is_that_of_the_second_class(run: Any, batches: list[Any]) -> None:
    labels = serve(label_xf=[0, 1, 1, 0])
    found = run({"serve": serve(probabilities=[[0.2], [0.9], [0.4], [0.6]]), "labels": labels})
    loss = -(math.log(0.8) + math.log(0.9) + math.log(0.4) + math.log(0.4)) / 4
    assert (found.accuracy, found.crossentropy) == (0.5, pytest.approx(loss))


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("columns", [1, 4])
def test_it_measures_what_keras_measures(example: Any, columns: int, logits: bool) -> None:
    random = np.random.default_rng(columns)
    scores = random.normal(0, 3, (60, columns)).astype(np.float32)
    labels = random.integers(0, max(columns, 2), 60)
    if not logits:
        scores = tf.nn.softmax(scores).numpy() if columns > 1 else tf.sigmoid(scores).numpy()
    metrics = tf_keras.metrics
    if columns == 1:
        accuracy = metrics.BinaryAccuracy(threshold=0.3)
        crossentropy = metrics.BinaryCrossentropy(from_logits=logits)
    else:
        accuracy = metrics.SparseCategoricalAccuracy()
        crossentropy = metrics.SparseCategoricalCrossentropy(from_logits=logits)
    for metric in (accuracy, crossentropy):
        metric.update_state(labels[:, None], scores)
    asked = Evaluation("s", "", "y", [], binary=columns == 1, threshold=0.3, from_logits=logits)
    rows = [example({"i": [i], "y": [int(label)]}) for i, label in enumerate(labels)]
    signatures = {"s": serve(scores=scores.tolist())}
    found = predict(signatures, {"s"}, [tf.constant(rows)], asked, "y", 0.0)
    assert found.accuracy == pytest.approx(accuracy.result().numpy())
    assert found.crossentropy == pytest.approx(crossentropy.result().numpy(), rel=1e-5)


def test_logits_have_an_accuracy_and_no_crossentropy(run: Any) -> None:
    logits = [[1.0, 2.0, 3.0]] * 4
    found = run({"serve": serve(logits=logits)}, Evaluation("serve", "", "index", []))
    assert (found.accuracy, found.crossentropy) == (0.5, None)


def test_certainty_costs_no_infinity(run: Any) -> None:
    certain = [[1.0, 0.0, 0.0]] * 4
    found = run({"serve": serve(probabilities=certain), "labels": LABELS})
    assert found.crossentropy == pytest.approx(-0.75 * math.log(1e-7), rel=1e-6)


@pytest.mark.parametrize(
    ("signatures", "asked", "error"),
    [
        ({"other": serve(p=ROWS)}, ASKED, "used serve, which was not tried"),
        ({"serve": serve(probabilities=ROWS)}, ASKED, "used labels, which was not tried"),
        (
            {"serve": serve(p=ROWS, q=ROWS)},
            Evaluation("serve", "", "index", []),
            "(unnamed) is no output",
        ),
        (
            {"serve": serve(p=ROWS)},
            Evaluation("serve", "p", "index", [], binary=True),
            "p has 3 columns, which the metric takes otherwise",
        ),
        (
            {"serve": serve(p=[1, 2, 0, 1])},
            Evaluation("serve", "p", "index", []),
            "p holds no scores of classes",
        ),
        (
            {"serve": serve(p=ROWS)},
            Evaluation("serve", "p", "ratio", []),
            "the label ratio is no index of a class",
        ),
        (
            {"serve": serve(p=ROWS)},
            Evaluation("serve", "p", "absent", []),
            "the label absent is not one value an example",
        ),
        (
            {"serve": serve(p=ROWS)},
            Evaluation("serve", "p", "label", []),
            "no output classes lists names",
        ),
        (
            {"serve": serve(p=[[0.5, 0.5]] * 4)},
            Evaluation("serve", "p", "index", []),
            "labels are columns 0 to 2, and there are 2 columns",
        ),
    ],
)
def test_what_is_missing_is_said(
    run: Any, signatures: dict[str, Any], asked: Evaluation, error: str
) -> None:
    found = run(signatures, asked)
    assert found.accuracy is None
    assert error in found.error


def test_errors_of_numbers_are_those_of_keras(run: Any) -> None:
    predicted, labels = [1.0, 2.5, -3.0, 4.0], [0.5, 2.5, 1.0, 8.0]
    asked = Evaluation("serve", "prediction", "label_xf", ["labels"], regression=True)
    signatures = {
        "serve": serve(prediction=[[value] for value in predicted]),
        "labels": serve(label_xf=[[value] for value in labels]),
    }
    found = run(signatures, asked)
    assert found.examples == 4 and found.accuracy is None
    for name, metric in (
        ("mean absolute error", tf_keras.metrics.MeanAbsoluteError()),
        ("mean squared error", tf_keras.metrics.MeanSquaredError()),
        ("root mean squared error", tf_keras.metrics.RootMeanSquaredError()),
    ):
        metric.update_state(labels, predicted)
        assert found.errors[name] == pytest.approx(float(metric.result()))


def test_numbers_that_cannot_be_compared(run: Any) -> None:
    asked = Evaluation("serve", "prediction", "label_xf", ["labels"], regression=True)
    two = {"serve": serve(prediction=[[1.0, 2.0]] * 4), "labels": LABELS}
    names = {"serve": serve(prediction=[[1.0]] * 4), "labels": serve(label_xf=[b"a"] * 4)}
    for signatures in (two, names):
        assert "not one number an example" in run(signatures, asked).error
