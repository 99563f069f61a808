"""Errors about bad values: the rule, the value received and the remedy."""

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt

_LONGEST_VALUE = 1000


class UserError(ValueError):
    """Error that whoever set the value can mend.

    Rule and remedy name fields of a config in backticks, as in "`patience` must be at least 1" and
    "Try `patience=5`." The command line shows those as flags.

    Attributes:
        rule: What must hold.
        value: What was received.
        remedy: What to do.
    """

    def __init__(self, rule: str, value: object, remedy: str) -> None:
        self.rule = rule
        self.value = value
        self.remedy = remedy
        super().__init__(rule, value, remedy)

    def __str__(self) -> str:
        """One line: rule, value, remedy."""
        value = repr(self.value)
        if len(value) > _LONGEST_VALUE:
            value = f"{value[:_LONGEST_VALUE]}..."
        return f"{self.rule}, got {value}. {self.remedy}"


def require(holds: bool, rule: str, value: object, remedy: str) -> None:
    """Raises UserError with rule, value and remedy unless `holds`."""
    if not holds:
        raise UserError(rule, value, remedy)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, and those that it was raised from or while handling."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def check_fields(config: Any) -> None:
    """Checks the fields of a config dataclass against their annotations.

    A field may be a Literal, or Annotated with Ge, Gt, Le, Lt or Interval of `annotated_types`, or
    either; an optional one may be None. A bounded number must be finite.

    Raises:
        UserError: A value is not one of the choices, or out of range.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        for rule, holds in _rules(field):
            require(
                value is None or holds(value),
                f"`{field.name}` must be {rule}",
                value,
                _remedy(field),
            )


def _rules(field: "Field[Any]") -> Iterator[tuple[str, Callable[[Any], bool]]]:
    """Yields each rule of a field in words, with its check."""
    kinds = get_args(field.type) if get_origin(field.type) is Union else (field.type,)
    choices = [each for kind in kinds if get_origin(kind) is Literal for each in get_args(kind)]
    bounded = next((kind for kind in kinds if get_origin(kind) is Annotated), None)
    if bounded is None and choices:
        yield f"one of {', '.join(map(str, choices))}", lambda value: value in choices
    elif bounded is not None:
        limits = [each for mark in get_args(bounded)[1:] for each in _limits(mark)]
        if limits:
            words = " and ".join(f"{word} {limit:,}" for word, limit, _ in limits)
            tests = [test for *_, test in limits]
            yield (
                " or ".join((words, *map(str, choices))),
                lambda value: (
                    value in choices or (_is_finite(value) and all(test(value) for test in tests))
                ),
            )


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _limits(mark: object) -> Iterator[tuple[str, Any, Callable[[Any], bool]]]:
    match mark:
        case Interval():
            for each in mark:
                yield from _limits(each)
        case Ge(limit):
            yield "at least", limit, lambda value: value >= limit
        case Gt(limit):
            yield "above", limit, lambda value: value > limit
        case Le(limit):
            yield "at most", limit, lambda value: value <= limit
        case Lt(limit):
            yield "below", limit, lambda value: value < limit


def _remedy(field: "Field[Any]") -> str:
    if field.default is None:
        return f"Leave `{field.name}` out."
    if field.default is MISSING:
        return f"Change `{field.name}`."
    return f"Try `{field.name}={field.default}`."
