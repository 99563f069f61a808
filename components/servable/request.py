"""Requests to a signature, made of tf.Examples."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from schemas import columns

EXAMPLES, FEATURES = "examples", "features"

Tensors = Mapping[str, npt.NDArray[Any]]

_MISSING: Mapping[str | int, Any] = {"": b"", "NaN": float("nan")}
_KINDS = {bytes: "bytes", float: "float", int: "integers"}
# How files of the formats that TensorFlow decodes begin: PNG, JPEG, GIF, BMP.
_PICTURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}", re.DOTALL)


class Row(NamedTuple):
    """An example.

    Attributes:
        serialized: As it lies in the file.
        values: Its values by feature; features without any are not there.
    """

    serialized: bytes
    values: Mapping[str, Sequence[Any]]


def parse(serialized: bytes) -> Row:
    """Parse an example.

    Raises:
        google.protobuf.message.DecodeError: It is none.
    """
    features = tf.train.Example.FromString(serialized).features.feature
    values = {name: _values(feature) for name, feature in features.items()}
    return Row(serialized, {name: found for name, found in values.items() if len(found)})


def _values(feature: Any) -> Sequence[Any]:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def as_served(rows: Sequence[Row], inputs: Mapping[str, columns.Input]) -> list[Row]:
    """The rows with the columns that a model serves under other names under those.

    Args:
        rows: Examples.
        inputs: What the model says of its columns. A missing value is there as what stands for it.
    """
    return [row._replace(values=_as_served(row.values, inputs)) for row in rows]


def _as_served(
    values: Mapping[str, Sequence[Any]], inputs: Mapping[str, columns.Input]
) -> dict[str, Sequence[Any]]:
    found = {name: given for name, given in values.items() if name not in inputs}
    for name, given in inputs.items():
        if given.column in values:
            found[name] = values[given.column]
        elif given.missing is not None:
            found[name] = [_MISSING.get(given.missing, given.missing)]
    return found


def aliases(inputs: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """The features that inputs of other names take, by input.

    An input that is named like no feature takes the only feature of its type and width. An input
    of one number is left alone: too many features would suit it.

    Args:
        inputs: The signature's tf.TensorSpecs by name.
        rows: Examples of the split.
    """
    names = {name for row in rows for name in row.values}
    if len(inputs) == 1 and _is_vector_of_strings(next(iter(inputs.values()))):
        return {}
    found = {}
    for name in inputs.keys() - names:
        spec = inputs[name]
        if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None:
            continue
        if None in spec.shape[1:] or (spec.dtype != tf.string and _width(spec) == 1):
            continue
        suitable = [
            feature
            for feature in names - inputs.keys()
            if form_of({feature: spec}, rows).request == FEATURES
        ]
        if len(suitable) == 1:
            found[name] = suitable[0]
    return found


def renamed(rows: Sequence[Row], features: Mapping[str, str]) -> list[Row]:
    """The rows with features under further names.

    Args:
        rows: Examples.
        features: Feature by its further name.
    """
    return [
        row._replace(
            values={
                **row.values,
                **{n: row.values[f] for n, f in features.items() if f in row.values},
            }
        )
        for row in rows
    ]


class Form(NamedTuple):
    """How a signature is asked.

    Attributes:
        request: EXAMPLES, FEATURES, or empty if it cannot be asked.
        left_out: Why it cannot; empty if it can.
    """

    request: str
    left_out: str = ""


def form_of(inputs: Mapping[str, Any], rows: Sequence[Row]) -> Form:
    """Find how to ask a signature.

    An input named like a feature takes that feature's values. A vector of strings that is alone
    and named otherwise takes serialized examples, as TensorFlow Serving's clients send them.

    Args:
        inputs: The signature's tf.TensorSpecs by name.
        rows: Examples of the split.
    """
    kinds = {name: _KINDS[type(found[0])] for row in rows for name, found in row.values.items()}
    if not inputs:
        return Form("", "it takes no input")
    if len(inputs) == 1:
        ((name, spec),) = inputs.items()
        if name not in kinds and _is_vector_of_strings(spec):
            return Form(EXAMPLES)
    for name, spec in inputs.items():
        if why := _obstacle(name, spec, kinds.get(name)):
            return Form("", f"its input {name} ({words(spec)}) {why}")
    if not any(fits(inputs, row) for row in rows):
        return Form("", "no example has as many values as each of its inputs takes")
    return Form(FEATURES)


def _is_vector_of_strings(spec: Any) -> bool:
    return (
        isinstance(spec, tf.TensorSpec)
        and spec.dtype == tf.string
        and (spec.shape.rank is None or spec.shape.as_list() == [None])
    )


def _obstacle(name: str, spec: Any, kind: str | None) -> str:
    if not isinstance(spec, tf.TensorSpec):
        return "is no dense tensor"
    if kind is None:
        return "is no feature of the examples"
    held = {
        "bytes": spec.dtype == tf.string,
        "float": spec.dtype.is_floating,
        "integers": spec.dtype.is_floating or spec.dtype.is_integer,
    }
    if not held[kind]:
        return f"is a feature that holds {kind}"
    if spec.shape.rank is None:
        return ""
    shape = spec.shape.as_list()
    if not shape or shape[0] is not None:
        return "does not take any number of examples"
    if None in shape[1:]:
        return "takes any number of values an example"
    return ""


def _width(spec: Any) -> int:
    return 1 if spec.shape.rank is None else int(np.prod(spec.shape.as_list()[1:], dtype=int))


def fits(inputs: Mapping[str, Any], row: Row) -> bool:
    """Whether an example has just the values that the inputs take.

    Where the model does not say what stands for a missing value, an example with one can be sent
    as an example only.
    """
    return all(len(row.values.get(name, ())) == _width(spec) for name, spec in inputs.items())


def build(request: str, inputs: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The tensors of a request, as numpy arrays by input.

    Args:
        request: EXAMPLES or FEATURES.
        inputs: The signature's tf.TensorSpecs by name.
        rows: Examples to send, which fit where features are asked for.
    """
    if request == EXAMPLES:
        (name,) = inputs
        return {name: _array([row.serialized for row in rows], tf.string, [len(rows)])}
    return {
        name: _array(
            [value for row in rows for value in row.values[name]],
            spec.dtype,
            [len(rows), *(spec.shape.as_list()[1:] if spec.shape.rank else [])],
        )
        for name, spec in inputs.items()
    }


def _array(values: list[Any], dtype: Any, shape: list[int]) -> Any:
    return np.array(values, dtype=dtype.as_numpy_dtype).reshape(shape)


def no_example(seed: int, size: int = 64) -> bytes:
    """Random characters that are no tf.Example, nor a picture.

    The first is the tag of a protobuf field of type 7, which there isn't. They are ASCII because
    `tf.io.parse_example` repeats them in its message, which Python then reads as UTF-8; other
    bytes would turn TensorFlow's error into one of Python's.
    """
    random = np.random.default_rng(seed).integers(32, 127, size - 1, np.uint8)
    return b"/" + random.tobytes()


def pictures(inputs: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """The inputs whose feature holds an encoded picture in every example."""
    return [
        name
        for name in inputs
        if all(
            isinstance(value, bytes) and _PICTURE.match(value)
            for row in rows
            for value in row.values.get(name, (None,))
        )
    ]


def words(spec: Any) -> str:
    """Type and shape in words, such as "float32 [N, 10]"."""
    if spec.shape.rank is None:
        return f"{spec.dtype.name} [...]"
    sizes = ["N" if size is None else str(size) for size in spec.shape.as_list()]
    return f"{spec.dtype.name} [{', '.join(sizes)}]"
