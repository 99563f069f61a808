from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError

from components.servable import request
from components.servable.request import EXAMPLES, FEATURES, Row
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
    row = request.parse(serialized)
    assert row.serialized == serialized
    assert {name: list(found) for name, found in row.values.items()} == {
        "a": [b"x"],
        "b": [1, 2],
        "c": [0.5],
    }
    absent = tf.train.Example()
    absent.features.feature["a"].bytes_list.SetInParent()
    assert request.parse(absent.SerializeToString()).values == {}


def test_columns_that_are_served_under_other_names() -> None:
    inputs = {
        "petal_width": Input("petal width", "float32", "NaN"),
        "self_": Input("self", "int64", MISSING_INTEGER),
        "x": Input("X (m)", "string", ""),
        "id": Input("_id", "int64", None),
    }
    whole = Row(b"1", {"petal width": [1.5], "self": [2], "X (m)": [b"b"], "_id": [7], "x": [9]})
    bare = Row(b"2", {"x": [9]})
    first, second = request.as_served([whole, bare], inputs)
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
    assert request.as_served([bare], {}) == [bare]


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
    assert request.form_of(inputs, ROWS) == (form, "")


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
    form = request.form_of(inputs, ROWS)
    assert form.request == ""
    assert why in form.left_out


def test_build() -> None:
    built = request.build(EXAMPLES, {"inputs": spec(tf.string, None)}, ROWS)
    assert built["inputs"].tolist() == [b"1", b"2"]
    inputs = {"x": spec(tf.float32, None, 2, 1), "count": spec(tf.float32, None)}
    built = request.build(FEATURES, inputs, ROWS)
    assert built["x"].tolist() == [[[1.0], [2.0]], [[3.0], [4.0]]]
    assert built["x"].dtype == np.float32
    assert built["count"].tolist() == [3.0, 4.0]
    assert request.build(FEATURES, inputs, [])["x"].shape == (0, 2, 1)


def test_strings_keep_their_last_zero() -> None:
    rows = [Row(b"a\0", {}), Row(b"b\0\0", {})]
    built = request.build(EXAMPLES, {"inputs": spec(tf.string, None)}, rows)
    assert tf.constant(built["inputs"], tf.string).numpy().tolist() == [b"a\0", b"b\0\0"]


@pytest.mark.parametrize("seed", range(20))
def test_no_example(seed: int) -> None:
    content = request.no_example(seed)
    with pytest.raises(DecodeError):
        tf.train.Example.FromString(content)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Could not parse"):
        tf.io.parse_example([content], {"x": tf.io.VarLenFeature(tf.float32)})
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_image(content)
    assert content == request.no_example(seed)


def test_only_what_holds_pictures_throughout_is_a_picture() -> None:
    inputs = {name: spec(tf.string, None) for name in ("image", "brand", "count", "absent")}
    assert request.pictures(inputs, ROWS) == ["image"]
    assert request.pictures(inputs, [*ROWS, Row(b"3", {"image": [b"a path"]})]) == []


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg])
def test_real_pictures_are_seen(encode: Callable[[Any], Any]) -> None:
    content = encode(tf.zeros([4, 4, 3], tf.uint8)).numpy()
    assert request.pictures({"i": spec(tf.string, None)}, [Row(b"", {"i": [content]})]) == ["i"]
