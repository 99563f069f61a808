"""The signatures of a model: which can be asked, and the asking."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.servable import request
from components.servable.measurement import Signature

Answers = Mapping[str, npt.NDArray[Any]]


class Tried(NamedTuple):
    """A signature that can be asked.

    Attributes:
        name: Its name.
        function: The loaded function.
        form: How it is asked: `request.EXAMPLES` or `request.FEATURES`.
        inputs: tf.TensorSpecs by name.
    """

    name: str
    function: Any
    form: str
    inputs: Mapping[str, Any]

    @property
    def outputs(self) -> dict[str, str]:
        """Type and shape of each output, in words."""
        found = self.function.structured_outputs
        return {name: request.words(spec) for name, spec in found.items()}

    def build(self, rows: Sequence[request.Row]) -> dict[str, Any]:
        """The tensors of a request about examples."""
        return request.build(self.form, self.inputs, rows)

    def answer(self, tensors: Mapping[str, Any]) -> Answers:
        """Ask, and wait for the answer."""
        given = {
            name: tf.constant(value, self.inputs[name].dtype) for name, value in tensors.items()
        }
        return {name: _dense(value) for name, value in self.function(**given).items()}

    def ask(self, rows: Sequence[request.Row]) -> Answers:
        """Ask about examples."""
        return self.answer(self.build(rows))


def choose(
    signatures: Mapping[str, Any], rows: Sequence[request.Row], leave_out: Sequence[str]
) -> tuple[list[Tried], list[request.Row], list[Signature]]:
    """Choose the signatures that can be asked, and examples that suit all of them.

    Args:
        signatures: Functions of a loaded SavedModel by name.
        rows: Examples of the split.
        leave_out: Names of signatures that are not to be asked.

    Returns:
        The signatures that can be asked; the examples; a record of every signature.
    """
    tried, found, suitable = [], [], list(rows)
    for name in sorted(signatures):
        function = signatures[name]
        inputs = function.structured_input_signature[1]
        features = request.aliases(inputs, suitable)
        suitable = request.renamed(suitable, features)
        form = request.form_of(inputs, suitable)
        if name in leave_out:
            form = request.Form("", "the pipeline leaves it out")
        if form.request == request.FEATURES:
            suitable = [row for row in suitable if request.fits(inputs, row)]
        one = Tried(name, function, form.request, inputs)
        if form.request:
            tried.append(one)
        taken = {key: request.words(spec) for key, spec in inputs.items()}
        taken |= {key: f"{taken[key]}, from {feature}" for key, feature in features.items()}
        found.append(Signature(name, form.request, taken, one.outputs, form.left_out))
    return tried, suitable, found


def _dense(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.to_dense(value)
    elif isinstance(value, tf.RaggedTensor):
        value = value.to_tensor()
    return np.asarray(value.numpy())
