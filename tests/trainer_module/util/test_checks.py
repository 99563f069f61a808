import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Lt

from trainer_module.util.checks import UserError, chain, check_fields, require


@dataclass
class Config:
    patience: Annotated[int, Ge(1)] = 5
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    buckets: Annotated[int, Interval(ge=2, le=1000)] = 10
    budget: Annotated[float | None, Gt(0)] = None
    strategy: Literal["hybrid", "auto"] = "hybrid"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("patience", 0, "`patience` must be at least 1, got 0. Try `patience=5`."),
        ("patience", "3", "`patience` must be at least 1, got '3'. Try `patience=5`."),
        ("dropout", 1, "`dropout` must be at least 0 and below 1, got 1. Try `dropout=0.0`."),
        ("dropout", math.nan, "`dropout` must be at least 0 and below 1, got nan."),
        ("buckets", 1001, "`buckets` must be at least 2 and at most 1,000, got 1001."),
        ("budget", math.inf, "`budget` must be above 0, got inf. Leave `budget` out."),
        ("strategy", "x", "`strategy` must be one of hybrid, auto, got 'x'."),
    ],
)
def test_an_error_gives_rule_value_and_remedy(field: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_fields(Config(**{field: value}))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_values_at_the_bounds_pass() -> None:
    check_fields(Config(1, 0, 1000, 1e-9, "auto"))
    check_fields(Config(buckets=2, budget=None))


def test_a_long_value_is_cut() -> None:
    with pytest.raises(UserError) as caught:
        require(False, "a name must be short", "x" * 10_000, "Shorten it.")
    assert len(str(caught.value)) < 1100
    assert str(caught.value).endswith("... Shorten it.")


def test_a_chain_of_errors_has_each_once_even_where_it_leads_in_a_circle() -> None:
    first, second = KeyError("first"), OSError("second")
    try:
        try:
            raise first
        except KeyError:
            raise second  # noqa: B904  (what it was raised while handling)
    except OSError as error:
        assert list(chain(error)) == [second, first]
    first.__cause__ = second
    assert list(chain(second)) == [second, first]
    assert list(chain(None)) == []
