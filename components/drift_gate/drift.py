"""How far data has moved, as DriftGate writes it and others read it.  Pure, and loads no TFDV."""

import json
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from components import gate
from components.gate import Check

Kind: TypeAlias = Literal["drift", "skew"]

FILE_NAME = "drift.json"


def distance(
    kind: Kind, feature: str, value: float, threshold: float | None, note: str = ""
) -> Check:
    """Returns how far one feature has moved.

    Args:
        kind: drift, against the data of the last blessed model; skew, between two splits.
        feature: Its name.
        value: The distance less its sampling error, from 0, alike, to 1, nothing in common.
        threshold: Largest distance that passes; None if it is only measured.
        note: Which distance it is, and its sampling error.
    """
    return Check(
        f"{kind} of {feature}",
        value,
        threshold,
        None if threshold is None else value <= threshold,
        note,
        at_most=True,
        metric=kind,
        subject=feature,
    )


def to_json(distances: Sequence[Check]) -> str:
    """The content of a `drift.json`."""
    return json.dumps(gate.to_json(distances), indent=1) + "\n"


def parse(content: str | bytes) -> tuple[Check, ...]:
    """The distances, the largest first.

    Args:
        content: A `drift.json`.

    Raises:
        ValueError: It is no list of distances.
    """
    entries = json.loads(content)
    if not isinstance(entries, list):
        raise ValueError(f"it must be a list of distances, got a {type(entries).__name__}")
    checks = [gate.parse(entry) for entry in entries]
    for check in checks:
        if check.metric not in ("drift", "skew") or isinstance(check.value, str):
            raise ValueError(f"a distance must be a number, of drift or skew, got {check}")
    return largest_first(checks)


def largest_first(distances: Iterable[Check]) -> tuple[Check, ...]:
    """The distances in the order they are written and shown in."""
    return tuple(
        sorted(distances, key=lambda each: (-float(each.value), each.metric, each.subject or ""))
    )
