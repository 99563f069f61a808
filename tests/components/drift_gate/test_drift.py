import json

import pytest

from components import gate
from components.drift_gate.drift import distance, parse, to_json

DRIFT = distance("drift", "fare", 0.25, 0.3)


def test_the_largest_comes_first() -> None:
    found = (distance("skew", "hour", 0, None), DRIFT, distance("drift", "a", 0.25, 0.3))
    assert parse(to_json(found)) == (found[2], found[1], found[0])
    assert parse(b"[]") == ()


@pytest.mark.parametrize(
    ("value", "threshold", "margin", "passed"),
    [
        (0.25, 0.5, 0.25, True),
        (0.5, 0.5, 0.0, True),
        (0.75, 0.5, -0.25, False),
        (0.9, None, None, None),
    ],
)
def test_margin_and_verdict(
    value: float, threshold: float | None, margin: float | None, passed: bool | None
) -> None:
    found = distance("drift", "fare", value, threshold)
    assert (found.margin, found.passed) == (margin, passed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must be a list of distances, got {}"),
        (["fare"], 'got .*"fare"'),
        ([{**gate.to_json([DRIFT])[0], "metric": "moved"}], "of drift or skew, got .drift of fare"),
        ([{**gate.to_json([DRIFT])[0], "value": "0.1"}], "must be a number"),
    ],
    ids=["no list", "no object", "kind", "text"],
)
def test_what_is_no_distance_is_refused(content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(json.dumps(content))
