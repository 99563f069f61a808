from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from components.servable import request, signature
from components.servable.measurement import Signature


def test_choose_and_ask(
    make_model: Callable[..., Any], export: Callable[..., Path], example: Callable[..., bytes]
) -> None:
    loaded = tf.saved_model.load(str(export(make_model())))
    whole = example({"x": [3.0, 2.0, 1.0], "index": [0]})
    rows = [request.parse(example({"x": [1.0], "index": [1]})), request.parse(whole)]
    tried, suitable, found = signature.choose(loaded.signatures, rows, ["labels"])
    assert [one.name for one in tried] == ["serving_columns", "serving_default"]
    assert [row.serialized for row in suitable] == [whole], "the other's x has one value, not three"
    assert found[0] == Signature(
        "labels",
        "",
        {"examples": "string [N]"},
        {"label_xf": "int64 [N, 1]"},
        "the pipeline leaves it out",
    )
    assert [each.request for each in found[1:]] == [request.FEATURES, request.EXAMPLES]
    one, other = (each.ask(suitable) for each in tried)
    assert one["class"].tolist() == other["class"].tolist() == [[b"a"]]
    np.testing.assert_array_equal(one["probabilities"], other["probabilities"])


def test_an_input_of_another_name_takes_the_only_feature_that_suits_it(
    export: Callable[..., Path], example: Callable[..., bytes]
) -> None:
    model = tf.Module()

    def sums(keras_tensor: Any) -> dict[str, Any]:
        return {"sum": tf.reduce_sum(keras_tensor, axis=1)}

    spec = tf.TensorSpec([None, 3], tf.float32, name="keras_tensor")
    folder = export(model, {"serve": tf.function(sums).get_concrete_function(spec)})
    loaded = tf.saved_model.load(str(folder))
    values = {"pixels": [3.0, 2.0, 1.0], "weight": [0.5], "index": [0]}
    rows = [request.parse(example(values))]
    (one,), suitable, (record,) = signature.choose(loaded.signatures, rows, [])
    assert record.inputs == {"keras_tensor": "float32 [N, 3], from pixels"}
    assert one.ask(suitable)["sum"].tolist() == [6.0]
    rows = [request.parse(example({**values, "other": [1.0, 1.0, 1.0]}))]
    tried, _, (record,) = signature.choose(loaded.signatures, rows, [])
    assert not tried
    assert "is no feature of the examples" in record.left_out


def test_sparse_outputs_are_padded(export: Callable[..., Path]) -> None:
    model = tf.Module()

    def words(text: Any) -> dict[str, Any]:
        return {"words": tf.strings.split(text).to_sparse()}

    spec = tf.TensorSpec([None], tf.string, name="text")
    folder = export(model, {"words": tf.function(words).get_concrete_function(spec)})
    loaded = tf.saved_model.load(str(folder))
    rows = [request.Row(text, {"text": [text]}) for text in (b"one", b"two words")]
    (one,), _, _ = signature.choose(loaded.signatures, rows, [])
    assert one.outputs == {"words": "string [N, N]"}
    assert one.ask(rows)["words"].tolist() == [[b"one", b""], [b"two", b"words"]]
