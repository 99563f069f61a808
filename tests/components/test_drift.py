import json
import subprocess
import sys

import pytest

from components.drift import Distance, parse, to_json


def entry(**changes: object) -> dict[str, object]:
    return {"kind": "drift", "feature": "fare", "value": 0.25, "bound": 0.3} | changes


def test_the_largest_comes_first() -> None:
    small = entry(kind="skew", feature="hour", value=0, bound=None)
    assert parse(json.dumps([small, entry(), entry(feature="a")])) == (
        Distance("drift", "a", 0.25, 0.3),
        Distance("drift", "fare", 0.25, 0.3),
        Distance("skew", "hour", 0.0, None),
    )
    assert parse(b"[]") == ()


@pytest.mark.parametrize(
    ("value", "bound", "margin", "passed"),
    [(0.25, 0.5, 0.25, True), (0.5, 0.5, 0.0, True), (0.75, 0.5, -0.25, False)],
)
def test_margin_and_verdict(value: float, bound: float, margin: float, passed: bool) -> None:
    found = Distance("drift", "fare", value, bound)
    assert (found.margin, found.passed) == (margin, passed)


def test_without_a_bound_there_is_no_verdict() -> None:
    found = Distance("drift", "fare", 0.9, None)
    assert (found.margin, found.passed) == (None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must be a list of distances, got a dict"),
        ([entry(kind="moved")], 'kind .drift or skew.*"moved"'),
        ([entry(value="0.1")], "a feature, a value and a bound"),
        ([{"kind": "drift", "feature": "fare", "value": 0.1}], "and a bound"),
        (["fare"], 'got "fare"'),
    ],
    ids=["no list", "kind", "text", "no bound", "no object"],
)
def test_what_is_no_distance_is_refused(content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(json.dumps(content))


def test_what_is_written_is_read() -> None:
    found = (Distance("skew", "größe", 0.25, None), Distance("drift", "fare", 0.125, 0.3))
    assert parse(to_json(found)) == found


def test_a_gate_that_said_no_is_told_without_tfdv() -> None:
    code = "import sys, components.drift; sys.exit('tensorflow_data_validation' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
