import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.training_report import mistakes
from components.training_report.mistakes import Mistakes, SavedModel, UnfitModelError
from tests.image_kinds import SERVED, shown

CLASSES = ("cat", "dog")


def record(**features: Any) -> bytes:
    made = tf.train.Example()
    for name, value in features.items():
        feature = made.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    serialized: bytes = made.SerializeToString()
    return serialized


class Doggish:
    """Takes every example for a dog, with the probability that its feature `sure` holds."""

    def __init__(self, indices: Sequence[int] | None = None) -> None:
        self.asked: list[bytes] = []
        self._indices = indices

    def scores(self, records: Sequence[bytes]) -> np.ndarray:
        self.asked += records
        examples = map(tf.train.Example.FromString, records)
        sure = np.array([e.features.feature["sure"].float_list.value[0] for e in examples])
        return np.stack([1 - sure, sure], axis=1)

    def label_indices(self, records: Sequence[bytes]) -> np.ndarray | None:
        return None if self._indices is None else np.array(self._indices[: len(records)])


def find(records: Sequence[bytes], classifier: Doggish, **options: Any) -> Mistakes:
    return mistakes.find(records, classifier, CLASSES, **options)


def test_the_surest_mistakes_come_first_and_the_rest_is_counted() -> None:
    sure = [0.6, 0.9, 0.7, 0.9, 0.8]
    records = [
        record(label="cat", sure=value, file_name=f"{i}.png") for i, value in enumerate(sure)
    ]
    found = find([*records, record(label="dog", sure=0.99)], Doggish(), shown=3)
    assert (found.wrong, found.looked_at, found.every) == (5, 6, 1)
    assert [mistake.name for mistake in found.shown] == ["1.png", "3.png", "4.png"]
    first = found.shown[0]
    assert (first.actual, first.predicted) == ("cat", "dog")
    assert first.confidence == pytest.approx(0.9)
    assert first.actual_probability == pytest.approx(0.1)


@pytest.mark.parametrize("columns", [1, 2])
def test_logits_become_their_softmax_and_it_is_said(columns: int) -> None:
    class Logits(Doggish):
        def scores(self, records: Sequence[bytes]) -> np.ndarray:
            return np.array([[0.0, 3.0], [0.0, -1.0]])[: len(records), 2 - columns :]

    records = [record(label="cat"), record(label="dog")]
    found = find(records, Logits())
    assert found.softmax
    confidences = [mistake.confidence for mistake in found.shown]
    assert confidences == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-1))])
    assert [mistake.actual_probability for mistake in found.shown] == pytest.approx(
        [1 - confidence for confidence in confidences]
    )


def test_a_single_probability_is_that_of_the_second_class() -> None:
    class Single(Doggish):
        def scores(self, records: Sequence[bytes]) -> np.ndarray:
            return np.array([[0.75]])

    found = find([record(label="cat")], Single())
    assert (found.shown[0].predicted, found.shown[0].confidence) == ("dog", 0.75)
    assert not found.softmax


def test_examples_looked_at_are_spread_over_all() -> None:
    records = [record(label="cat", sure=0.9, row=i) for i in range(100)]
    classifier = Doggish()
    found = find(records, classifier, total=100, look_at=40)
    assert (found.looked_at, found.every) == (34, 3)
    assert classifier.asked == records[::3]
    assert find(records, Doggish(), look_at=40).looked_at == 40


def test_labels_are_names_or_what_the_model_makes_of_them_or_indices() -> None:
    def actual(classifier: Doggish, **label: Any) -> str:
        return find([record(sure=0.9, **label)], classifier).shown[0].actual

    assert actual(Doggish(), label="cat") == "cat"
    assert actual(Doggish(), label="wolf") == "wolf"
    assert actual(Doggish([0]), label=1.0) == "cat"
    assert actual(Doggish(), label=0) == "cat"
    with pytest.raises(UnfitModelError, match="names no class"):
        actual(Doggish(), other="cat")


def test_rows_of_a_table_are_told_as_text() -> None:
    found = find([record(label="cat", sure=0.75, hour=8, note="x" * 200)], Doggish())
    (mistake,) = found.shown
    assert mistake.name == "example 1"
    assert mistake.thumbnail is None
    assert mistake.columns["hour"] == "8"
    assert mistake.columns["sure"] == "0.75"
    assert len(mistake.columns["note"]) == 80


def encoded(side: int, kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side // 2)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "width"),
    [
        (encoded(8, "PNG"), "png", 8),
        (encoded(400, "JPEG"), "jpeg", 160),
        (encoded(400, "PNG", "RGBA"), "jpeg", 160),
        (encoded(20, "BMP"), "png", 20),
        (encoded(20, "GIF", "P"), "png", 20),
    ],
)
def test_thumbnails(content: bytes, kind: str, width: int) -> None:
    uri, found = mistakes.thumbnail(content)
    assert uri is not None
    assert uri.startswith(f"data:image/{kind};base64,")
    assert found == width
    assert len(uri) < 20_000


@pytest.mark.parametrize("kind", ["rgba", "turned png", "turned rgba", "16 bits"])
def test_a_thumbnail_shows_what_the_model_sees(kind: str) -> None:
    uri, _ = mistakes.thumbnail(SERVED[kind])
    assert uri is not None
    png = base64.b64decode(uri.partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), shown(SERVED[kind]))


def test_an_image_that_cannot_be_read_has_no_thumbnail() -> None:
    assert mistakes.thumbnail(b"no picture") == (None, 0)
    assert mistakes.thumbnail(encoded(8, "PNG")[:40]) == (None, 0)


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_records_are_read_in_order(tmp_path: Path, compression: str) -> None:
    files = [str(tmp_path / name) for name in ("a", "b")]
    for file, content in zip(files, (b"1", b"2"), strict=True):
        with tf.io.TFRecordWriter(file, compression) as writer:
            writer.write(content)
    assert list(mistakes.read_records(files, compression)) == [b"1", b"2"]


class Module(tf.Module):
    """Its outputs are given."""

    def __init__(self, **outputs: list[Any]) -> None:
        super().__init__()
        self._outputs = outputs

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            name: tf.tile(tf.constant([row]), [tf.shape(records)[0], 1])
            for name, row in self._outputs.items()
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def labels(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"label_xf": tf.ones_like(records, tf.int64)[:, None]}


def saved(module: Module, folder: Path, *names: str) -> SavedModel:
    functions = {"serving_default": module.serve, "transform_labels": module.labels}
    tf.saved_model.save(module, str(folder), signatures={name: functions[name] for name in names})
    return SavedModel(str(folder))


def test_a_saved_model_is_asked(tmp_path: Path) -> None:
    module = Module(probabilities=[0.75, 0.25], logits=[1.0, 0.0])
    classifier = saved(module, tmp_path, "serving_default", "transform_labels")
    assert classifier.scores([b"", b""]).tolist() == [[0.75, 0.25]] * 2
    indices = classifier.label_indices([b"", b""])
    assert indices is not None
    assert indices.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("outputs", "names", "message"),
    [
        ({"score": [1.0, 2.0]}, ["transform_labels"], "no signature serving_default"),
        ({"a": [0.5, 0.5], "b": [1.0]}, ["serving_default"], "returns a, b, and no probabilities"),
        ({"class": [3]}, ["serving_default"], "no score for each class, but int32"),
    ],
)
def test_a_model_of_another_kind_is_told_apart(
    tmp_path: Path, outputs: dict[str, list[Any]], names: list[str], message: str
) -> None:
    with pytest.raises(UnfitModelError, match=message):
        saved(Module(**outputs), tmp_path, *names).scores([b""])


def test_few_large_examples_are_asked_about_together(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record(label="cat", sure=0.75, picture=bytes(1000)) for _ in range(10)]
    monkeypatch.setattr(mistakes, "_BATCH_BYTES", 3 * len(records[0]))
    sizes = []

    class Counting(Doggish):
        def scores(self, records: Sequence[bytes]) -> np.ndarray:
            sizes.append(len(records))
            return super().scores(records)

    assert find(records, Counting(), look_at=8).looked_at == 8
    assert sizes == [3, 3, 2]
