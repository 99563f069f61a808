"""How the model served, as Servable writes it.  Pure: JSON in, plain values out."""

import json
from dataclasses import dataclass

from components import gate
from components.gate import Check
from components.servable.measurement import Latency, Signature

VERSION = 2


@dataclass(frozen=True)
class Serving:
    """What came of serving the model.

    Attributes:
        checks: The rules and whether they were kept, broken ones first, unjudged ones last.
        signatures: The signatures of the model.
        latency: Time of requests for one example, by signature.
        model_mib: Size of the model on disk.
        split: Split that the requests came from.
        examples: Number of different examples in them.
        platform: What it was served with, such as ("TensorFlow 2.16.2", "CPU", "float32").
    """

    checks: tuple[Check, ...]
    signatures: tuple[Signature, ...]
    latency: tuple[Latency, ...]
    model_mib: float
    split: str
    examples: int
    platform: tuple[str, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that the model failed."""
        return gate.failed(self.checks)


def parse(content: str | bytes) -> Serving:
    """What came of serving the model.

    Args:
        content: A `servable.json`.

    Raises:
        ValueError: It is of another version.
        KeyError: Something is missing.
        TypeError: A check, a signature or a latency has other fields.
    """
    found = json.loads(content)
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION:
        raise ValueError(f"its version must be {VERSION}, got {version!r}")
    checks = [gate.parse(each) for each in found["checks"]]
    rank = {False: 0, True: 1, None: 2}
    tensorflow = found["tensorflow"]
    platform = (tensorflow and f"TensorFlow {tensorflow}", found["device"], found["arithmetic"])
    return Serving(
        checks=tuple(sorted(checks, key=lambda check: rank[check.passed])),
        signatures=tuple(Signature(**each) for each in found["signatures"]),
        latency=tuple(Latency(**each) for each in found["latency"]),
        model_mib=float(found["model_mib"]),
        split=found["split"],
        examples=found["examples"],
        platform=tuple(part for part in platform if part),
    )
