import dataclasses
from typing import get_args

import pytest

from components.servable import measurement
from components.servable.measurement import (
    Finding,
    Latency,
    Signature,
    Stage,
    from_lines,
    to_line,
)

SOME = [
    Stage("loading the model"),
    Signature("a", "examples", {"x": "string [N]"}, {}),
    Finding("answers", "a: InvalidArgumentError: no\u2028image"),
    Finding("batch of 1", difference=float("inf")),
    Latency("a", 200, 1.5, 4.0),
]


def test_lines_give_the_measurements_back() -> None:
    assert from_lines("".join(map(to_line, SOME))) == SOME


@pytest.mark.parametrize("lost", [1, 20])
def test_a_line_half_written_is_left_out(lost: int) -> None:
    text = "".join(map(to_line, SOME))
    assert from_lines(text[:-lost]) == SOME[:-1]


def test_every_kind_can_be_written() -> None:
    kinds = {kind.__name__ for kind in get_args(measurement.Measurement)}
    tuples = {name for name, value in vars(measurement).items() if dataclasses.is_dataclass(value)}
    assert kinds == tuples
