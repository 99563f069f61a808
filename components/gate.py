"""Gates: the record of one check, and the error that stops a run.  Loads no TFX."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trainer_module.util.checks import UserError

_LISTED = 20


@dataclass(frozen=True)
class Check:
    """One rule, what was measured, the threshold, and the verdict."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    rule: str
    """What is checked, in words, such as "accuracy, class cat"."""
    value: float | str
    """What was measured; in words where it is no number."""
    threshold: float | str | None
    """Smallest value that passes, or the largest one where `at_most`; in words where the value is;
    None where the value is only measured."""
    passed: bool | None
    """The verdict; None where there is none."""
    note: str = ""
    """More about the value, or what to do."""
    at_most: bool = False
    """Whether the threshold is an upper one."""
    metric: str = ""
    """Name of what was measured, such as "accuracy" or "drift"."""
    subject: str | None = None
    """Class or feature that is checked; None where it is the whole."""
    is_change: bool = False
    """Whether the value is a difference from the baseline's, or a share of it."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval of the value; None where it has none."""

    @property
    def margin(self) -> float | None:
        """Distance of the value from the threshold, negative where it fails; None without one."""
        if isinstance(self.value, str) or self.threshold is None or isinstance(self.threshold, str):
            return None
        return self.threshold - self.value if self.at_most else self.value - self.threshold

    @property
    def comparison(self) -> str:
        """The sign between value and threshold where the check is passed."""
        return "<=" if self.at_most else ">="

    @property
    def beyond_interval(self) -> bool | None:
        """Whether the threshold lies outside the value's interval; None without one."""
        if self.interval is None or self.margin is None:
            return None
        assert isinstance(self.threshold, float | int)
        low, high = self.interval
        return not low <= self.threshold <= high

    @property
    def limit(self) -> str:
        """The threshold in words, with the sign that goes before a number."""
        if isinstance(self.threshold, float | int):
            return f"{self.comparison} {self.threshold:.4f}"
        return self.threshold or "none"

    def __str__(self) -> str:
        """One line: rule, value, threshold, note."""
        if isinstance(self.value, str):
            return f"{self.rule}: {self.value} (rule: {self.limit}). {self.note}".rstrip()
        line = f"{self.rule} is {self.value:.4f}, must be {self.limit}"
        return f"{line}. {self.note}" if self.note else line


class GateError(UserError):
    """Error of a gate that stops the run; the message lists each failed check.

    Args:
        rule: What must hold.
        failed: Checks that failed.
        remedy: What to do, if the checks do not say so themselves.
    """

    def __init__(self, rule: str, failed: Sequence[Check], remedy: str = "") -> None:
        super().__init__(rule, tuple(failed), remedy)
        self._failed = failed

    def __str__(self) -> str:
        """The rule, a line for each failed check, and the remedy."""
        lines = [f"\n  {check}" for check in self._failed[:_LISTED]]
        if len(self._failed) > _LISTED:
            lines.append(f"\n  and {len(self._failed) - _LISTED} more")
        return f"{self.rule}:{''.join(lines)}" + (f"\n{self.remedy}" if self.remedy else "")


def failed(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Returns the checks that failed."""
    return tuple(check for check in checks if check.passed is False)


def to_json(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Returns checks as JSON values."""
    return [dataclasses.asdict(check) for check in checks]


def parse(entry: object) -> Check:
    """Returns one check of `to_json`.

    Args:
        entry: A JSON value.

    Raises:
        UserError: It is no check.
    """
    text = json.dumps(entry)
    try:
        check: Check = _adapter().validate_json(text)
    except ValueError as error:
        rule = "a check must have a rule, a value, a threshold and a verdict"
        raise UserError(rule, text[:200], "Write it by `components.gate.to_json`.") from error
    return check


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Check)
