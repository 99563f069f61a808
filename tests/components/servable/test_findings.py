import numpy as np
import pytest
import tensorflow as tf

from components.servable import findings, verdict
from components.servable.findings import difference, is_floating
from components.servable.measurement import Finding

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("one", "other", "largest"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.25], [0.5], 0.25),
        ([300.0], [200.0], 0.5),
        ([NAN, INF, -INF], [NAN, INF, -INF], 0.0),
        ([NAN], [1.0], INF),
        ([INF], [-INF], INF),
        ([], [], 0.0),
    ],
)
def test_floating_values(one: list[float], other: list[float], largest: float) -> None:
    assert difference(np.array(one), np.array(other)) == (largest, 0, len(one))


def test_other_values_are_counted() -> None:
    assert difference(np.array([1, 2, 3]), np.array([1, 0, 0])) == (0.0, 2, 3)
    names = np.array([b"a", b"b"], object)
    assert difference(names, np.array([b"a", b"c"], object)) == (0.0, 1, 2)


def test_other_shapes_differ_throughout() -> None:
    assert difference(np.zeros((2, 3)), np.zeros((2, 4))) == (0.0, 8, 8)


def test_bfloat16_is_floating() -> None:
    halves = tf.constant([1.0, 2.0], tf.bfloat16).numpy()
    assert is_floating(halves)
    assert difference(halves, halves) == (0.0, 0, 2)
    assert not is_floating(np.array([b"a"], object))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (1.0, ""),
        (1.0 + 0.9e-4, ""),
        (1.0 - 1.1e-4, "a: y: differs by up to 0.00011"),
        (INF, "a: y: differs by up to inf"),
    ],
)
def test_answers_must_agree_within_the_tolerance(value: float, problem: str) -> None:
    one, other = {"y": np.array([1.0, value])}, {"y": np.array([1.0, 1.0]), "z": np.zeros(2)}
    (finding,) = findings.compare("rule", "a", one, other, 1e-4)
    assert (finding.rule, finding.problem) == ("rule", problem)


def test_labels_must_agree_exactly() -> None:
    one, other = {"y": np.array([1, 2])}, {"y": np.array([1, 3])}
    (finding,) = findings.compare("rule", "a", one, other, 1e-4)
    assert finding.problem == "a: y: 1 of 2 values differ"


@pytest.mark.parametrize(
    ("dtype", "shape", "declared", "as_declared"),
    [
        ("float32", [256, 2], [None, 2], True),
        ("float32", [256, 7], [None, None], True),
        ("float32", [2], [2], True),
        ("float32", [3, 1], None, True),
        ("float32", [], [], True),
        ("float64", [256, 2], [None, 2], False),
        ("float32", [255, 2], [None, 2], False),
        ("float32", [256, 3], [None, 2], False),
        ("float32", [256], [None, 2], False),
        ("float32", [], [None], False),
    ],
)
def test_shapes_and_types(
    dtype: str, shape: list[int], declared: list[int | None] | None, as_declared: bool
) -> None:
    specs = {"y": tf.TensorSpec(declared, tf.float32)}
    answer = {"y": np.zeros(shape, dtype)}
    shapes, finite = findings.of_answer("a, 256 rows", 256, answer, specs)
    assert (shapes.rule, finite) == (verdict.SHAPES, Finding(verdict.FINITE))
    if as_declared:
        assert not shapes.problem
    else:
        assert shapes.problem.startswith(f"a, 256 rows: y is {dtype} {shape}, not float32")


def test_values_that_are_not_finite_are_counted() -> None:
    specs = {"y": tf.TensorSpec([None], tf.float32)}
    answer = {"y": np.array([1.0, NAN, INF], np.float32)}
    _, finite = findings.of_answer("a, 3 rows", 3, answer, specs)
    assert finite.problem == "a, 3 rows: 2 of 3 values of y"
    assert len(list(findings.of_answer("a, 0 rows", 0, answer, specs))) == 1


def test_only_errors_of_tensorflow_refuse_a_request() -> None:
    message = "Could not parse\n\t [[{{node x}}]]"
    refused = tf.errors.InvalidArgumentError(None, None, message)
    assert findings.of_refusal("rule", "a", refused).refusal == (
        "InvalidArgumentError: Could not parse"
    )
    for error in (KeyError(3), tf.errors.InternalError(None, None, "")):
        finding = findings.of_refusal("rule", "a", error)
        assert not finding.refusal
        assert finding.problem.startswith(f"a: {type(error).__name__}")
