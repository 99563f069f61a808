"""How far data has moved, as DriftGate writes it and others read it.  Pure, and loads no TFDV."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["drift", "skew"]

FILE_NAME = "drift.json"


class DriftError(ValueError):
    """The data lies further from the reference than it may."""


@dataclass(frozen=True)
class Distance:
    """How far one feature has moved.

    Attributes:
        kind: drift, against the data of the last blessed model; skew, between two splits.
        feature: Its name.
        value: The distance, from 0, alike, to 1, nothing in common.
        bound: Largest that passes; None if it is only measured.
    """

    kind: Kind
    feature: str
    value: float
    bound: float | None

    @property
    def margin(self) -> float | None:
        """By how much the value lies below the bound, negative where it fails; None without one."""
        return None if self.bound is None else self.bound - self.value

    @property
    def passed(self) -> bool | None:
        """Whether the bound holds; None without one, and then nothing is held against it."""
        return None if self.bound is None else self.value <= self.bound


def to_json(distances: Sequence[Distance]) -> str:
    """The content of a `drift.json`."""
    return json.dumps([dataclasses.asdict(each) for each in distances], indent=1) + "\n"


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
    return largest_first(_distance(entry) for entry in entries)


def largest_first(distances: Iterable[Distance]) -> tuple[Distance, ...]:
    """The distances in the order they are written and shown in."""
    return tuple(sorted(distances, key=lambda each: (-each.value, each.kind, each.feature)))


def _distance(entry: object) -> Distance:
    match entry:
        case {
            "kind": "drift" | "skew" as kind,
            "feature": str(feature),
            "value": float() | int() as value,
            "bound": None | float() | int() as bound,
        }:
            return Distance(kind, feature, float(value), None if bound is None else float(bound))
    raise ValueError(
        "a distance must have a kind (drift or skew), a feature, a value and a bound, "
        f"got {json.dumps(entry)[:200]}"
    )
