"""Drift distances as DriftGate writes them and the report reads them.  Loads no TFDV."""

import json
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from components import gate
from components.gate import Check
from trainer_module.util.checks import require

Kind: TypeAlias = Literal["drift", "skew"]

FILE_NAME = "drift.json"


def distance(
    kind: Kind, feature: str, value: float, threshold: float | None, note: str = ""
) -> Check:
    """Returns the distance of one feature as a check.

    Args:
        kind: drift, from the data of the last blessed model; skew, between two splits.
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
    """Returns the content of a `drift.json`."""
    return json.dumps(gate.to_json(distances), indent=1) + "\n"


def parse(content: str | bytes) -> tuple[Check, ...]:
    """Returns the distances in a `drift.json`, the largest first.

    Raises:
        ValueError: It is no list of distances.
    """
    entries = json.loads(content)
    remedy = "Run DriftGate again."
    require(isinstance(entries, list), "drift.json must be a list of distances", entries, remedy)
    checks = [gate.parse(entry) for entry in entries]
    for check in checks:
        is_distance = check.metric in ("drift", "skew") and not isinstance(check.value, str)
        require(is_distance, "a distance must be a number, of drift or skew", str(check), remedy)
    return largest_first(checks)


def largest_first(distances: Iterable[Check]) -> tuple[Check, ...]:
    """Returns the distances in the order in which they are written and listed."""
    return tuple(
        sorted(distances, key=lambda each: (-float(each.value), each.metric, each.subject or ""))
    )
