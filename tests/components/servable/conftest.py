from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

NAMES = ("a", "b", "c")
SPLIT = "test"
EXAMPLES = 40

Outputs = dict[str, Any]


def predict(x: Any) -> Outputs:
    """The class of three whose value is the largest."""
    probabilities = tf.nn.softmax(x)
    names = tf.constant(NAMES)
    return {
        "probabilities": probabilities,
        "class": tf.gather(names, tf.argmax(probabilities, axis=1))[:, None],
        "classes": tf.tile(names[None], [tf.shape(x)[0], 1]),
    }


class Model(tf.Module):
    """A model that no code of ours made: it takes examples, or the feature x."""

    def __init__(
        self,
        on_examples: Callable[[Any], Outputs] = predict,
        on_columns: Callable[[Any], Outputs] | None = None,
        numbers: int = 3,
    ) -> None:
        super().__init__()
        # Something to load: a variable of as many numbers as wanted.
        self.one = tf.Variable(tf.ones(numbers))
        self._on_examples = on_examples
        self._on_columns = on_columns or on_examples

    def on_examples(self, examples: Any) -> Outputs:
        parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([3], tf.float32)})
        return self._on_examples(parsed["x"] * self.one[0])

    def on_columns(self, x: Any) -> Outputs:
        return self._on_columns(x * self.one[0])

    def labels(self, examples: Any) -> Outputs:
        parsed = tf.io.parse_example(examples, {"index": tf.io.FixedLenFeature([], tf.int64)})
        return {"label_xf": parsed["index"][:, None]}

    def signatures(self) -> dict[str, Any]:
        batch = tf.TensorSpec([None], tf.string, name="examples")
        x = tf.TensorSpec([None, 3], tf.float32, name="x")
        return {
            name: tf.function(method).get_concrete_function(spec)
            for name, method, spec in (
                ("serving_default", self.on_examples, batch),
                ("serving_columns", self.on_columns, x),
                ("labels", self.labels, batch),
            )
        }


Export = Callable[..., Path]
"""Saves a model: export(model, functions by signature, or None for the model's own)."""


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def save(model: tf.Module, signatures: Mapping[str, Any] | None = None) -> Path:
        folder = tmp_path / "model" / "Format-Serving"
        tf.saved_model.save(model, str(folder), signatures=signatures or model.signatures())
        return folder

    return save


@pytest.fixture
def make_model() -> type[Model]:
    return Model


def serialize(values: Mapping[str, list[Any]]) -> bytes:
    example = tf.train.Example()
    for name, found in values.items():
        feature = example.features.feature[name]
        kinds = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}
        kinds[type(found[0])].value.extend(found)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


@pytest.fixture
def example() -> Callable[[Mapping[str, list[Any]]], bytes]:
    return serialize


def write(file: Path, records: list[bytes]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file), tf.io.TFRecordOptions("GZIP")) as writer:
        for record in records:
            writer.write(record)
    return file


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A file of 40 examples, of which the model gets 30 right; its folder is a split."""
    random = np.random.default_rng(0)
    records = []
    for i in range(EXAMPLES):
        x = random.normal(size=3)
        index = (int(x.argmax()) + (i % 4 == 0)) % 3
        label = [NAMES[index].encode()]
        records.append(serialize({"x": x.tolist(), "label": label, "index": [index]}))
    return write(tmp_path / f"examples/Split-{SPLIT}/data_tfrecord-00000-of-00001.gz", records)


@pytest.fixture
def empty_split(tmp_path: Path) -> Path:
    return write(tmp_path / "examples/Split-empty/data_tfrecord-00000-of-00001.gz", [])
