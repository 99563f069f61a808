"""Signatures of a SavedModel, and requests to them made of tf.Examples."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.servable.measurement import Signature
from schemas import columns

EXAMPLES, FEATURES = "examples", "features"

Answer = Mapping[str, npt.NDArray[Any]]

_MISSING: Mapping[str | int, Any] = {"": b"", "NaN": float("nan")}
_KINDS = {bytes: "bytes", float: "float", int: "integers"}
# How files of the formats that TensorFlow decodes begin: PNG, JPEG, GIF, BMP.
_IMAGE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}", re.DOTALL)


class Row(NamedTuple):
    """An example.

    Attributes:
        serialized: Its bytes in the file.
        values: Its values by feature, without features that have none.
    """

    serialized: bytes
    values: Mapping[str, Sequence[Any]]


def parse(serialized: bytes) -> Row:
    """Parses an example.

    Raises:
        google.protobuf.message.DecodeError: It is none.
    """
    values = {}
    for name, feature in tf.train.Example.FromString(serialized).features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind and getattr(feature, kind).value:
            values[name] = getattr(feature, kind).value
    return Row(serialized, values)


def as_served(rows: Sequence[Row], inputs: Mapping[str, columns.Input]) -> list[Row]:
    """Returns rows whose columns have the names of the model's inputs.

    Args:
        rows: Examples.
        inputs: Columns that the model takes, with what stands for a missing value.
    """
    renamed = []
    for row in rows:
        values = {name: value for name, value in row.values.items() if name not in inputs}
        for name, column in inputs.items():
            if column.column in row.values:
                values[name] = row.values[column.column]
            elif column.missing is not None:
                values[name] = [_MISSING.get(column.missing, column.missing)]
        renamed.append(row._replace(values=values))
    return renamed


class Tried(NamedTuple):
    """A signature that requests can be sent to.

    Attributes:
        name: Its name.
        function: The loaded function.
        form: Form of its requests: EXAMPLES or FEATURES.
        inputs: tf.TensorSpecs by name.
    """

    name: str
    function: Any
    form: str
    inputs: Mapping[str, Any]

    @property
    def outputs(self) -> dict[str, str]:
        """Type and shape of each output, in words."""
        return {name: words(spec) for name, spec in self.function.structured_outputs.items()}

    def build(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Returns the tensors of a request about examples, as NumPy arrays by input."""
        if self.form == EXAMPLES:
            (name,) = self.inputs
            return {name: np.array([row.serialized for row in rows], object)}
        tensors = {}
        for name, spec in self.inputs.items():
            shape = [len(rows), *(spec.shape.as_list()[1:] if spec.shape.rank else [])]
            values = [value for row in rows for value in row.values[name]]
            tensors[name] = np.array(values, spec.dtype.as_numpy_dtype).reshape(shape)
        return tensors

    def answer(self, tensors: Mapping[str, Any]) -> Answer:
        """Sends a request and waits for the answer; sparse and ragged outputs come padded."""
        inputs = {name: tf.constant(v, self.inputs[name].dtype) for name, v in tensors.items()}
        return {name: _dense(value) for name, value in self.function(**inputs).items()}

    def ask(self, rows: Sequence[Row]) -> Answer:
        """Sends a request about examples."""
        return self.answer(self.build(rows))


def choose(
    signatures: Mapping[str, Any], rows: Sequence[Row], leave_out: Sequence[str]
) -> tuple[list[Tried], list[Row], list[Signature]]:
    """Chooses the signatures that can be tried, and examples that suit all of them.

    Args:
        signatures: Functions of a loaded SavedModel by name.
        rows: Examples of the split.
        leave_out: Names of signatures that are not to be tried.

    Returns:
        The signatures to try; the examples; a record of every signature.
    """
    tried, records, suitable = [], [], list(rows)
    for name in sorted(signatures):
        function = signatures[name]
        inputs = function.structured_input_signature[1]
        features = _aliases(inputs, suitable)
        suitable = [_renamed(row, features) for row in suitable]
        form, left_out = form_of(inputs, suitable)
        if name in leave_out:
            form, left_out = "", "the pipeline leaves it out"
        if form == FEATURES:
            suitable = [row for row in suitable if fits(inputs, row)]
        signature = Tried(name, function, form, inputs)
        if form:
            tried.append(signature)
        taken = {key: words(spec) for key, spec in inputs.items()}
        taken |= {key: f"{taken[key]}, from {feature}" for key, feature in features.items()}
        records.append(Signature(name, form, taken, signature.outputs, left_out))
    return tried, suitable, records


def _aliases(inputs: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """Returns the feature of each input that is named like none.

    It takes the only feature of its type and width. An input of one number is left alone: too many
    features would suit it.
    """
    names = {name for row in rows for name in row.values}
    if len(inputs) == 1 and _is_vector_of_strings(next(iter(inputs.values()))):
        return {}
    aliases = {}
    for name in inputs.keys() - names:
        spec = inputs[name]
        if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None:
            continue
        if None in spec.shape[1:] or (spec.dtype != tf.string and _width(spec) == 1):
            continue
        others = names - inputs.keys()
        suitable = [each for each in others if form_of({each: spec}, rows)[0] == FEATURES]
        if len(suitable) == 1:
            aliases[name] = suitable[0]
    return aliases


def _renamed(row: Row, features: Mapping[str, str]) -> Row:
    aliases = {name: row.values[each] for name, each in features.items() if each in row.values}
    return row._replace(values={**row.values, **aliases})


def form_of(inputs: Mapping[str, Any], rows: Sequence[Row]) -> tuple[str, str]:
    """Returns the form of requests to a signature, or "" and why it takes none.

    An input named like a feature takes that feature's values. A vector of strings that is alone
    and named otherwise takes serialized examples, as TensorFlow Serving's clients send them.

    Args:
        inputs: The signature's tf.TensorSpecs by name.
        rows: Examples of the split.
    """
    kinds = {name: _KINDS[type(values[0])] for row in rows for name, values in row.values.items()}
    if not inputs:
        return "", "it takes no input"
    if len(inputs) == 1:
        ((name, spec),) = inputs.items()
        if name not in kinds and _is_vector_of_strings(spec):
            return EXAMPLES, ""
    for name, spec in inputs.items():
        if why := _obstacle(spec, kinds.get(name)):
            return "", f"its input {name} ({words(spec)}) {why}"
    if not any(fits(inputs, row) for row in rows):
        return "", "no example has as many values as each of its inputs takes"
    return FEATURES, ""


def _is_vector_of_strings(spec: Any) -> bool:
    return (
        isinstance(spec, tf.TensorSpec)
        and spec.dtype == tf.string
        and (spec.shape.rank is None or spec.shape.as_list() == [None])
    )


def _obstacle(spec: Any, kind: str | None) -> str:
    """Returns why an input cannot take a feature of a kind; "" if it can."""
    if not isinstance(spec, tf.TensorSpec):
        return "is no dense tensor"
    if kind is None:
        return "is no feature of the examples"
    takes = {
        "bytes": spec.dtype == tf.string,
        "float": spec.dtype.is_floating,
        "integers": spec.dtype.is_floating or spec.dtype.is_integer,
    }
    if not takes[kind]:
        return f"is a feature that holds {kind}"
    if spec.shape.rank is None:
        return ""
    shape = spec.shape.as_list()
    if not shape or shape[0] is not None:
        return "does not take any number of examples"
    return "takes any number of values an example" if None in shape[1:] else ""


def _width(spec: Any) -> int:
    return 1 if spec.shape.rank is None else int(np.prod(spec.shape.as_list()[1:], dtype=int))


def fits(inputs: Mapping[str, Any], row: Row) -> bool:
    """Returns whether an example has exactly the values that the inputs take.

    Where the model does not say what stands for a missing value, an example with one can be sent
    as an example only.
    """
    return all(len(row.values.get(name, ())) == _width(spec) for name, spec in inputs.items())


def no_example(seed: int, size: int = 64) -> bytes:
    """Returns random characters that are neither a tf.Example nor an image.

    The first is the tag of a protobuf field of type 7, which does not exist. They are ASCII because
    `tf.io.parse_example` repeats them in its message, which Python then reads as UTF-8; other
    bytes would turn TensorFlow's error into one of Python's.
    """
    random = np.random.default_rng(seed).integers(32, 127, size - 1, np.uint8)
    return b"/" + random.tobytes()


def images(inputs: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Returns the inputs whose feature holds an encoded image in every example."""

    def is_image(value: Any) -> bool:
        return isinstance(value, bytes) and bool(_IMAGE.match(value))

    return [
        name
        for name in inputs
        if all(is_image(value) for row in rows for value in row.values.get(name, (None,)))
    ]


def words(spec: Any) -> str:
    """Returns type and shape in words, such as "float32 [N, 10]"."""
    if spec.shape.rank is None:
        return f"{spec.dtype.name} [...]"
    sizes = ["N" if size is None else str(size) for size in spec.shape.as_list()]
    return f"{spec.dtype.name} [{', '.join(sizes)}]"


def _dense(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.to_dense(value)
    elif isinstance(value, tf.RaggedTensor):
        value = value.to_tensor()
    return np.asarray(value.numpy())
