"""How far the data has moved, as DriftGate writes it.  Pure: JSON in, plain values out."""

import json
from dataclasses import dataclass

KINDS = ("drift", "skew")


@dataclass(frozen=True)
class Distance:
    """How far one feature has moved.

    Attributes:
        kind: drift, against the data of the last blessed model; skew, between two splits.
        feature: Its name.
        value: The distance, from 0, alike, to 1, nothing in common.
        bound: Largest that passes; None if it is only measured.
    """

    kind: str
    feature: str
    value: float
    bound: float | None

    @property
    def margin(self) -> float | None:
        """By how much the value lies below the bound, negative where it fails; None without one."""
        return None if self.bound is None else self.bound - self.value

    @property
    def passed(self) -> bool | None:
        """Whether the bound holds; None without one."""
        return None if self.bound is None else self.value <= self.bound


def parse(content: str | bytes) -> tuple[Distance, ...]:
    """The distances, the largest first.

    Args:
        content: A `drift.json`.

    Raises:
        ValueError: It is no list of distances.
    """
    entries = json.loads(content)
    if not isinstance(entries, list):
        raise ValueError(f"it must be a list of distances, got a {type(entries).__name__}")
    found = [_distance(entry) for entry in entries]
    return tuple(sorted(found, key=lambda each: (-each.value, each.kind, each.feature)))


def _distance(entry: object) -> Distance:
    match entry:
        case {
            "kind": str(kind),
            "feature": str(feature),
            "value": float() | int() as value,
            "bound": None | float() | int() as bound,
        } if kind in KINDS:
            return Distance(kind, feature, float(value), None if bound is None else float(bound))
    raise ValueError(
        "a distance must have a kind (drift or skew), a feature, a value and a bound, "
        f"got {json.dumps(entry)[:200]}"
    )
