"""What the fresh process measures: one line of JSON each, so that a crash loses nothing before it.

The process that measures and the one that judges both import this, so it imports nothing heavy.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias, get_args


class Stage(NamedTuple):
    """What is done next; the last one tells where a process died or hung."""

    doing: str


class Read(NamedTuple):
    """The examples found.

    Attributes:
        examples: How many were read to make requests of.
    """

    examples: int


class Loaded(NamedTuple):
    """How loading went.

    Attributes:
        seconds: Time it took.
        tensorflow: Version.
        device: "CPU" or "GPU".
        arithmetic: Coarsest floating type the model's graph computes in.
        keras: Whether Keras had to be imported.
        error: Why it failed; empty if it did not.
    """

    seconds: float
    tensorflow: str
    device: str
    arithmetic: str
    keras: bool = False
    error: str = ""


class Signature(NamedTuple):
    """A signature and how it is asked.

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


class Requests(NamedTuple):
    """What the requests are made of.

    Attributes:
        examples: Number of different examples in them.
    """

    examples: int


class Answer(NamedTuple):
    """One request to one signature.

    Attributes:
        signature: Name.
        rows: Examples in the request.
        error: What it raised; empty if it answered.
        clear: Whether that was one of tf.errors with a message.
    """

    signature: str
    rows: int
    error: str = ""
    clear: bool = False


class Output(NamedTuple):
    """One tensor of an answer.

    Attributes:
        signature: Name.
        rows: Examples in the request.
        name: Name of the output.
        dtype: Type it came in.
        shape: Shape it came in.
        declared_dtype: Type that the signature declares.
        declared_shape: Shape that the signature declares, None for what may vary; None as a
            whole where not even the rank is declared.
        size: Number of values.
        not_finite: How many of them are NaN or infinite.
    """

    signature: str
    rows: int
    name: str
    dtype: str
    shape: Sequence[int]
    declared_dtype: str
    declared_shape: Sequence[int | None] | None
    size: int
    not_finite: int


class Difference(NamedTuple):
    """Two answers to the same examples, held against each other.

    Attributes:
        between: "single" (a batch of 1 and the same row of a large batch), "signatures", or
            "session" (both loaders).
        signature: Name.
        other: What it was compared with.
        output: Name of the output.
        largest: Largest difference of floating values, relative where they exceed 1.
        unequal: Number of other values that are not equal, or of all where shapes differ.
        size: Number of values compared.
    """

    between: str
    signature: str
    other: str
    output: str
    largest: float
    unequal: int
    size: int


class Session(NamedTuple):
    """How the loader of model servers fared with the model.

    Attributes:
        error: What it raised; empty if it loaded and answered.
    """

    error: str = ""


class Corrupt(NamedTuple):
    """A corrupt request, and the good one after it.

    Attributes:
        signature: Name.
        sent: What was sent, in words.
        must_refuse: Whether an answer would be wrong, too.
        error: Type and first line of what was raised; empty if there was an answer.
        clear: Whether it was one of tf.errors with a message.
        error_after: What the good request raised; empty if it was answered.
        equal_after: Whether it was answered as before.
    """

    signature: str
    sent: str
    must_refuse: bool
    error: str
    clear: bool
    error_after: str
    equal_after: bool


class Original(NamedTuple):
    """A file that was converted for training, sent as it is.

    Attributes:
        signature: Name.
        file: Its name.
        error: What it raised; empty if it was answered.
        clear: Whether that was one of tf.errors with a message.
        largest: Largest difference to the answer to the stored image, as in `Difference`.
        unequal: Number of other values that are not equal.
        size: Number of values compared.
    """

    signature: str
    file: str
    error: str = ""
    clear: bool = False
    largest: float = 0.0
    unequal: int = 0
    size: int = 0


class Latency(NamedTuple):
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


class Predictions(NamedTuple):
    """What the model says about the whole evaluated split.

    Attributes:
        examples: Number of them.
        accuracy: Share where the most probable column is the label's; None if not measured.
        accuracy_by_name: Share where the class named is the label; None if there are no names.
        crossentropy: Mean negative log-likelihood in nats; None if not measured.
        near_ties: Examples whose two best probabilities are as good as equal, so that rounding
            decides between them.
        error: Why nothing was measured; empty if it was.
    """

    examples: int
    accuracy: float | None = None
    accuracy_by_name: float | None = None
    crossentropy: float | None = None
    near_ties: int = 0
    error: str = ""


class Finished(NamedTuple):
    """The process did all it had to."""

    seconds: float


Measurement: TypeAlias = (
    Stage
    | Read
    | Loaded
    | Signature
    | Requests
    | Answer
    | Output
    | Difference
    | Session
    | Corrupt
    | Original
    | Latency
    | Predictions
    | Finished
)
_KINDS = {kind.__name__: kind for kind in get_args(Measurement)}


def to_line(measurement: Measurement) -> str:
    """The measurement as a line."""
    return json.dumps({"kind": type(measurement).__name__, **measurement._asdict()}) + "\n"


def from_lines(text: str) -> list[Measurement]:
    """The measurements in a file, without the line that a dying process may have left half done."""
    found: list[Measurement] = []
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            values = json.loads(line)
            found.append(_KINDS[values.pop("kind")](**values))
    return found
