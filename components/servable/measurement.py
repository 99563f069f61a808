"""Measurements of a served model, exchanged between two processes as lines of JSON.

Each line is written as soon as something is measured, so a crash loses nothing that was measured
before it. Both processes import this module, so it imports nothing heavy.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeAlias, get_args


@dataclass(frozen=True)
class Stage:
    """What is done next; the last one says where a process died or hung."""

    doing: str


@dataclass(frozen=True)
class Requests:
    """Number of different examples that the requests are made of; 0 if the split has none."""

    examples: int


@dataclass(frozen=True)
class Loaded:
    """Result of loading the model.

    Attributes:
        seconds: Time it took.
        tensorflow: Version.
        device: "CPU" or "GPU".
        arithmetic: Coarsest floating type that the model computes in.
        keras: Whether Keras had to be imported.
        error: Why it failed; empty if it did not.
    """

    seconds: float
    tensorflow: str
    device: str
    arithmetic: str
    keras: bool = False
    error: str = ""


@dataclass(frozen=True)
class Signature:
    """A signature of the model.

    Attributes:
        name: Its name.
        request: "examples" (serialized tf.Examples) or "features" (a tensor a feature).
        inputs: Type and shape by name, in words.
        outputs: Type and shape by name, in words.
        left_out: Why it is not tried; empty if it is.
    """

    name: str
    request: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    left_out: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that was examined under one rule.

    Attributes:
        rule: Name of the rule, as `verdict.RULES` has it.
        problem: What breaks the rule; empty if nothing does.
        refusal: Error of `tf.errors` with which a request was refused, where the rule allows it.
        difference: Largest difference between two answers, where the rule compares them.
    """

    rule: str
    problem: str = ""
    refusal: str = ""
    difference: float | None = None


@dataclass(frozen=True)
class Latency:
    """Time of requests for one example, after some to warm up.

    Attributes:
        signature: Name.
        requests: Number of them.
        p50_ms: Median in milliseconds.
        p99_ms: 99th percentile in milliseconds.
    """

    signature: str
    requests: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Predictions:
    """Metrics of the model on the whole evaluated split.

    Attributes:
        examples: Number of them.
        accuracy: Share of examples whose most probable column is the label's; None if not measured.
        accuracy_by_name: Share of examples whose predicted name is the label; None without names.
        crossentropy: Mean negative log-likelihood in nats; None if not measured.
        near_ties: Examples whose two best scores differ by no more than rounding.
        errors: Mean absolute and root mean squared error of a regression, by those names.
        error: Why nothing was measured; empty if it was.
    """

    examples: int
    accuracy: float | None = None
    accuracy_by_name: float | None = None
    crossentropy: float | None = None
    near_ties: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Finished:
    """The process has done all it had to."""

    seconds: float


Measurement: TypeAlias = (
    Stage | Requests | Loaded | Signature | Finding | Latency | Predictions | Finished
)
_KINDS = {kind.__name__: kind for kind in get_args(Measurement)}


def to_line(measurement: Measurement) -> str:
    """Returns a measurement as a line of JSON."""
    return json.dumps({"kind": type(measurement).__name__, **asdict(measurement)}) + "\n"


def from_lines(text: str) -> list[Measurement]:
    """Parses lines of `to_line`; a last line that a dying process left incomplete is dropped."""
    records = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [_KINDS[record.pop("kind")](**record) for record in records]
