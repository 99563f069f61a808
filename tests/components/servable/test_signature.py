from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError

from components.servable import signature
from components.servable.measurement import Signature
from components.servable.signature import EXAMPLES, FEATURES, Row, Tried
from schemas.columns import MISSING_INTEGER, Input

PNG = b"\x89PNG\r\n\x1a\n and more"
ROWS = [
    Row(b"1", {"image": [PNG], "count": [3], "x": [1.0, 2.0], "brand": [b"BMW"]}),
    Row(b"2", {"image": [PNG], "count": [4], "x": [3.0, 4.0], "brand": [b"Fiat"]}),
]


def spec(dtype: Any, *shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype)


def test_parse(example: Callable[..., bytes]) -> None:
    serialized = example({"a": [b"x"], "b": [1, 2], "c": [0.5]})
    row = signature.parse(serialized)
    assert row.serialized == serialized
    assert {name: list(found) for name, found in row.values.items()} == {
        "a": [b"x"],
        "b": [1, 2],
        "c": [0.5],
    }
    absent = tf.train.Example()
    absent.features.feature["a"].bytes_list.SetInParent()
    assert signature.parse(absent.SerializeToString()).values == {}


def test_columns_that_are_served_under_other_names() -> None:
    inputs = {
        "petal_width": Input("petal width", "float32", "NaN"),
        "self_": Input("self", "int64", MISSING_INTEGER),
        "x": Input("X (m)", "string", ""),
        "id": Input("_id", "int64", None),
    }
    whole = Row(b"1", {"petal width": [1.5], "self": [2], "X (m)": [b"b"], "_id": [7], "x": [9]})
    bare = Row(b"2", {"x": [9]})
    first, second = signature.as_served([whole, bare], inputs)
    assert first.serialized == b"1"
    assert {name: first.values[name] for name in inputs} == {
        "petal_width": [1.5],
        "self_": [2],
        "x": [b"b"],
        "id": [7],
    }
    assert np.isnan(second.values["petal_width"]).all()
    assert (second.values["self_"], second.values["x"]) == ([MISSING_INTEGER], [b""])
    assert "id" not in second.values
    assert signature.as_served([bare], {}) == [bare]


@pytest.mark.parametrize(
    ("inputs", "form"),
    [
        ({"examples": spec(tf.string, None)}, EXAMPLES),
        ({"inputs": tf.TensorSpec(None, tf.string)}, EXAMPLES),
        ({"image": spec(tf.string, None)}, FEATURES),
        ({"x": spec(tf.float32, None, 2)}, FEATURES),
        ({"x": spec(tf.float64, None, 2, 1), "count": spec(tf.int32, None)}, FEATURES),
        ({"count": spec(tf.float32, None, 1)}, FEATURES),
    ],
)
def test_signatures_that_can_be_asked(inputs: dict[str, Any], form: str) -> None:
    assert signature.form_of(inputs, ROWS) == (form, "")


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({}, "it takes no input"),
        ({"y": spec(tf.float32, None)}, "y (float32 [N]) is no feature of the examples"),
        ({"examples": spec(tf.string, None), "k": spec(tf.int32)}, "is no feature"),
        ({"image": spec(tf.float32, None, 8, 8, 3)}, "is a feature that holds bytes"),
        ({"x": spec(tf.int32, None, 2)}, "is a feature that holds float"),
        ({"count": spec(tf.int64, 16)}, "(int64 [16]) does not take any number of examples"),
        ({"count": spec(tf.int64)}, "does not take any number of examples"),
        ({"x": spec(tf.float32, None, None)}, "takes any number of values an example"),
        ({"x": spec(tf.float32, None, 3)}, "no example has as many values"),
        ({"x": tf.SparseTensorSpec([None, 2])}, "is no dense tensor"),
    ],
)
def test_signatures_that_cannot_say_why(inputs: dict[str, Any], why: str) -> None:
    form, left_out = signature.form_of(inputs, ROWS)
    assert form == ""
    assert why in left_out


def test_build() -> None:
    built = Tried("a", None, EXAMPLES, {"inputs": spec(tf.string, None)}).build(ROWS)
    assert built["inputs"].tolist() == [b"1", b"2"]
    inputs = {"x": spec(tf.float32, None, 2, 1), "count": spec(tf.float32, None)}
    built = Tried("a", None, FEATURES, inputs).build(ROWS)
    assert built["x"].tolist() == [[[1.0], [2.0]], [[3.0], [4.0]]]
    assert built["x"].dtype == np.float32
    assert built["count"].tolist() == [3.0, 4.0]
    assert Tried("a", None, FEATURES, inputs).build([])["x"].shape == (0, 2, 1)


def test_strings_keep_their_last_zero() -> None:
    rows = [Row(b"a\0", {}), Row(b"b\0\0", {})]
    built = Tried("a", None, EXAMPLES, {"inputs": spec(tf.string, None)}).build(rows)
    assert tf.constant(built["inputs"], tf.string).numpy().tolist() == [b"a\0", b"b\0\0"]


@pytest.mark.parametrize("seed", range(20))
def test_no_example(seed: int) -> None:
    content = signature.no_example(seed)
    with pytest.raises(DecodeError):
        tf.train.Example.FromString(content)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse"):
        tf.io.parse_example([content], {"x": tf.io.VarLenFeature(tf.float32)})
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_image(content)
    assert content == signature.no_example(seed)


def test_only_what_holds_images_throughout_is_an_image() -> None:
    inputs = {name: spec(tf.string, None) for name in ("image", "brand", "count", "absent")}
    assert signature.images(inputs, ROWS) == ["image"]
    assert signature.images(inputs, [*ROWS, Row(b"3", {"image": [b"a path"]})]) == []


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
def test_real_images_are_recognized(encode: Callable[[Any], Any]) -> None:
    content = encode(tf.zeros([4, 4, 3], tf.uint8)).numpy()
    assert signature.images({"i": spec(tf.string, None)}, [Row(b"", {"i": [content]})]) == ["i"]


def test_choose_and_ask(
    make_model: Callable[..., Any], export: Callable[..., Path], example: Callable[..., bytes]
) -> None:
    loaded = tf.saved_model.load(str(export(make_model())))
    whole = example({"x": [3.0, 2.0, 1.0], "index": [0]})
    rows = [signature.parse(example({"x": [1.0], "index": [1]})), signature.parse(whole)]
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
    assert [each.request for each in found[1:]] == [signature.FEATURES, signature.EXAMPLES]
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
    rows = [signature.parse(example(values))]
    (one,), suitable, (record,) = signature.choose(loaded.signatures, rows, [])
    assert record.inputs == {"keras_tensor": "float32 [N, 3], from pixels"}
    assert one.ask(suitable)["sum"].tolist() == [6.0]
    rows = [signature.parse(example({**values, "other": [1.0, 1.0, 1.0]}))]
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
    rows = [signature.Row(text, {"text": [text]}) for text in (b"one", b"two words")]
    (one,), _, _ = signature.choose(loaded.signatures, rows, [])
    assert one.outputs == {"words": "string [N, N]"}
    assert one.ask(rows)["words"].tolist() == [[b"one", b""], [b"two", b"words"]]
