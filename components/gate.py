"""Gates: the record of one check and the error that stops a run.  Pure, and loads no TFX."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_LISTED = 20


@dataclass(frozen=True)
class Check:
    """One rule, what was measured, the threshold, and the verdict.

    Attributes:
        rule: What is checked, in words, such as "accuracy, class cat".
        value: What was measured; in words where it is no number.
        threshold: Smallest value that passes, or the largest one where `at_most`; in words where
            the value is; None where the value is only measured.
        passed: The verdict; None where there is none.
        note: More about the value, or what to do.
        at_most: Whether the threshold is an upper one.
        metric: Name of what was measured, such as "accuracy" or "drift".
        subject: Class or feature that is checked; None where it is the whole.
        is_change: Whether the value is a difference from the baseline's, or a share of it.
        interval: 95 % confidence interval of the value; None where it has none.
    """

    rule: str
    value: float | str
    threshold: float | str | None
    passed: bool | None
    note: str = ""
    at_most: bool = False
    metric: str = ""
    subject: str | None = None
    is_change: bool = False
    interval: tuple[float, float] | None = None

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
        """One line for people."""
        if isinstance(self.value, str):
            return f"{self.rule}: {self.value} (rule: {self.limit}). {self.note}".rstrip()
        line = f"{self.rule} is {self.value:.4f}, must be {self.limit}"
        return f"{line}. {self.note}" if self.note else line


class GateError(ValueError):
    """Nothing is broken, but a gate stops the run; the message lists each failed check."""

    def __init__(self, rule: str, failed: Sequence[Check], remedy: str = "") -> None:
        """Puts the failed checks into one message.

        Args:
            rule: What must hold.
            failed: Checks that failed.
            remedy: What to do, if the checks do not say so themselves.
        """
        lines = [f"\n  {check}" for check in failed[:_LISTED]]
        if len(failed) > _LISTED:
            lines.append(f"\n  and {len(failed) - _LISTED} more")
        super().__init__(f"{rule}:{''.join(lines)}" + (f"\n{remedy}" if remedy else ""))


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
        ValueError: It is no check.
    """
    if isinstance(entry, dict) and set(entry) == _TYPES.keys() and _has_types(entry):
        interval = entry["interval"]
        return Check(**{**entry, "interval": None if interval is None else tuple(interval)})
    raise ValueError(
        "a check must have a rule, a value, a threshold and a verdict, and be complete, "
        f"got {json.dumps(entry)[:200]}"
    )


_TYPES: dict[str, Any] = {
    "rule": str,
    "value": float | int | str,
    "threshold": float | int | str | None,
    "passed": bool | None,
    "note": str,
    "at_most": bool,
    "metric": str,
    "subject": str | None,
    "is_change": bool,
    "interval": list | None,
}


def _has_types(entry: dict[str, Any]) -> bool:
    ends = entry["interval"] or [0.0, 0.0]
    return (
        all(isinstance(entry[name], kind) for name, kind in _TYPES.items())
        and len(ends) == 2
        and all(isinstance(end, float | int) for end in ends)
    )
