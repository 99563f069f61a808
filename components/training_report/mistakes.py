"""Most confident mistakes of a model, which is asked about a sample of the split again."""

import base64
import heapq
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import schemas
from components.evaluation import scores
from components.group import groups
from components.image_example_gen.image import as_shown

SHOWN = 24
LOOKED_AT = 2000
"""Examples looked at, at most: a minute of work for a big model on a CPU, not an hour."""

SIGNATURE = "serving_default"
LABEL_SIGNATURE = "transform_labels"
PROBABILITIES, PREDICTION = "probabilities", "prediction"

_BATCH = 32
_BATCH_BYTES = 32 * 2**20
_THUMBNAIL = 160
# What TensorFlow decodes. Pillow's readers of other formats need not parse anything.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
_VALUES_SHOWN = 8
_TEXT_SHOWN = 80


class UnfitModelError(ValueError):
    """Model or examples cannot be asked about mistakes; the message says why."""


@dataclass(frozen=True)
class Mistake:
    """One example that was classified wrong.

    Attributes:
        actual: Its class.
        predicted: The class it was predicted as.
        confidence: Probability of that class.
        actual_probability: Probability of the right class; None for an unknown one.
        name: File name, or the number of the row.
        thumbnail: Image as a data URI; None for a table.
        width: Width of the thumbnail in pixels.
        columns: Features of a table's row, as text.
    """

    actual: str
    predicted: str
    confidence: float
    actual_probability: float | None
    name: str
    thumbnail: str | None = None
    width: int = 0
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mistakes:
    """The mistakes among the examples looked at.

    Attributes:
        shown: The most confident ones, the most confident first.
        wrong: Number of mistakes.
        looked_at: Number of examples the model was asked about.
        every: 1 where it was asked about each example in turn, 2 for every second one, ...
        softmax: Whether the model returns logits, of which the softmax was taken.
    """

    shown: tuple[Mistake, ...]
    wrong: int
    looked_at: int
    every: int = 1
    softmax: bool = False


class Classifier(Protocol):
    """Source of labels and scores of serialized tf.Examples."""

    def scores(self, records: Sequence[bytes]) -> NDArray[np.float64]:
        """Returns a score for each class, [N, C], or for the second of two classes, [N, 1]."""

    def label_indices(self, records: Sequence[bytes]) -> NDArray[np.int64] | None:
        """Returns the index of the right class, [N]; None where that is not known."""


class SavedModel:
    """A SavedModel with the signature `serving_default`.

    Args:
        directory: Folder or URI of a SavedModel whose signature `serving_default` takes serialized
            tf.Examples, [N], and returns `probabilities`, [N, C], or `prediction`, [N, 1]. A
            signature `transform_labels` that returns labels, [N, 1], is used if there is one.

    Raises:
        UnfitModelError: It has no such signature.
    """

    def __init__(self, directory: str) -> None:
        import tensorflow as tf

        # A signature does not keep its model alive.
        self._model = tf.saved_model.load(directory)
        self._signatures = self._model.signatures
        if SIGNATURE not in self._signatures:
            names = ", ".join(self._signatures) or "none"
            raise UnfitModelError(f"the model has no signature {SIGNATURE} (only {names})")

    def scores(self, records: Sequence[bytes]) -> NDArray[np.float64]:
        """Returns a score for each class, [N, C], or for the second of two classes, [N, 1]."""
        tensor = self._output(PROBABILITIES, records)
        if tensor.shape.rank != 2 or not tensor.dtype.is_floating or not tensor.shape[1]:
            words = f"{tensor.dtype.name} {tensor.shape}"
            raise UnfitModelError(f"{SIGNATURE} returns no score for each class, but {words}")
        return np.asarray(tensor.numpy(), np.float64)

    def numbers(self, records: Sequence[bytes]) -> NDArray[np.float64]:
        """Returns the prediction of a regression, [N]."""
        tensor = self._output(PREDICTION, records)
        if not tensor.dtype.is_floating or tensor.shape.num_elements() != len(records):
            words = f"{tensor.dtype.name} {tensor.shape}"
            raise UnfitModelError(f"{SIGNATURE} returns no number for each example, but {words}")
        return np.asarray(tensor.numpy(), np.float64).reshape(-1)

    def label_indices(self, records: Sequence[bytes]) -> NDArray[np.int64] | None:
        """Returns the index of the right class, [N]; None without `transform_labels`."""
        labels = self.labels(records)
        return None if labels is None else labels.astype(np.int64)

    def labels(self, records: Sequence[bytes]) -> NDArray[Any] | None:
        """Returns the label, an index or a number, [N]; None without `transform_labels`."""
        if LABEL_SIGNATURE not in self._signatures:
            return None
        (labels,) = self._call(LABEL_SIGNATURE, records).values()
        return np.asarray(labels.numpy()).reshape(-1)

    def _output(self, name: str, records: Sequence[bytes]) -> Any:
        """Returns the output of that name, or the only one there is."""
        outputs = self._call(SIGNATURE, records)
        name = next(iter(outputs)) if len(outputs) == 1 else name
        if name not in outputs:
            names = ", ".join(sorted(outputs))
            raise UnfitModelError(f"{SIGNATURE} returns {names}, and no {name}")
        return outputs[name]

    def _call(self, name: str, records: Sequence[bytes]) -> dict[str, Any]:
        import tensorflow as tf

        signature = self._signatures[name]
        inputs = signature.structured_input_signature[1]
        if len(inputs) != 1 or next(iter(inputs.values())).dtype != tf.string:
            raise UnfitModelError(f"{SIGNATURE} does not take serialized tf.Examples")
        outputs: dict[str, Any] = signature(**{next(iter(inputs)): tf.constant(records)})
        return outputs


def read_records(files: Sequence[str], compression: str) -> Iterator[bytes]:
    """Returns the serialized tf.Examples of TFRecord files, in order.

    Args:
        files: Files or URIs.
        compression: GZIP, or an empty string for none.
    """
    import tensorflow as tf

    return iter(tf.data.TFRecordDataset(list(files), compression).as_numpy_iterator())


def find(
    records: Iterable[bytes],
    classifier: Classifier,
    classes: Sequence[str],
    *,
    label: str = schemas.LABEL,
    total: int = 0,
    shown: int = SHOWN,
    look_at: int = LOOKED_AT,
) -> Mistakes:
    """Asks a model about examples and keeps its most confident mistakes.

    Args:
        records: Serialized tf.Examples.
        classifier: The model.
        classes: Class names in the order of the columns of its probabilities; empty if unknown.
        label: Name of the label feature. A text is the class; for anything else the model's
            `transform_labels` is asked, and without one an integer is the index of the class.
        total: Number of records, so that the ones looked at are spread over all of them.
        shown: Mistakes kept, at most.
        look_at: Examples looked at, at most.

    Raises:
        UnfitModelError: The model or the labels do not fit.
    """
    every = max(-(-total // look_at), 1)
    chosen = islice(enumerate(records), 0, every * look_at, every)
    # (confidence, -position) orders them, and ties go to the first example.
    best: list[tuple[float, int, str, str, float | None, bytes]] = []
    looked_at = wrong = 0
    softmax = False
    for batch in groups(chosen, lambda entry: len(entry[1]), _BATCH, _BATCH_BYTES):
        looked_at += len(batch)
        contents = [record for _, record in batch]
        values = classifier.scores(contents)
        softmax = softmax or not scores.are_probabilities(values)
        probabilities = scores.probabilities(values, softmax)
        actual = _actual(contents, classifier, classes, label)
        rows = zip(batch, probabilities, actual, strict=True)
        for (position, record), row, (name, column) in rows:
            index = int(np.argmax(row))
            predicted = _name(index, classes)
            if predicted == name:
                continue
            wrong += 1
            right = float(row[column]) if column is not None and column < len(row) else None
            item = (float(row[index]), -position, name, predicted, right, record)
            (heapq.heappush if len(best) < shown else heapq.heappushpop)(best, item)
    mistakes = tuple(_mistake(*item) for item in sorted(best, key=lambda each: each[:2])[::-1])
    return Mistakes(mistakes, wrong, looked_at, every, softmax)


def _name(index: int, classes: Sequence[str]) -> str:
    return classes[index] if 0 <= index < len(classes) else str(index)


def _actual(
    records: Sequence[bytes], classifier: Classifier, classes: Sequence[str], label: str
) -> Iterator[tuple[str, int | None]]:
    """Yields class and its column of each record."""
    rows = [features(record) for record in records]
    if all(label in row and row[label].bytes_list.value for row in rows):
        columns = {name: index for index, name in enumerate(classes)}
        for row in rows:
            name = row[label].bytes_list.value[0].decode(errors="replace")
            yield name, columns.get(name)
        return
    indices = classifier.label_indices(records)
    if indices is None:
        if not all(label in row and row[label].int64_list.value for row in rows):
            raise UnfitModelError(
                f"the feature {label!r} names no class, and the model has no signature "
                f"{LABEL_SIGNATURE}"
            )
        indices = np.array([row[label].int64_list.value[0] for row in rows])
    for index in map(int, indices):
        yield _name(index, classes), index if index >= 0 else None


def features(record: bytes) -> Mapping[str, Any]:
    """Returns the features of a serialized tf.Example by name."""
    import tensorflow as tf

    row: Mapping[str, Any] = tf.train.Example.FromString(record).features.feature
    return row


def columns(record: bytes) -> dict[str, str]:
    """Returns the features of a row by name, as text."""
    row = features(record)
    texts = {key: _text(row[key]) for key in sorted(row)}
    return {
        key: text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"
        for key, text in texts.items()
    }


def _mistake(
    confidence: float,
    minus_position: int,
    actual: str,
    predicted: str,
    right: float | None,
    record: bytes,
) -> Mistake:
    row = features(record)
    name = f"example {1 - minus_position:,}"
    if schemas.FILE_NAME in row:
        name = _text(row[schemas.FILE_NAME])
    if schemas.IMAGE in row:
        uri, width = thumbnail(row[schemas.IMAGE].bytes_list.value[0])
        return Mistake(actual, predicted, confidence, right, name, uri, width)
    return Mistake(actual, predicted, confidence, right, name, columns=columns(record))


def _text(feature: Any) -> str:
    kind = feature.WhichOneof("kind")
    if kind is None:
        return ""
    values = getattr(feature, kind).value
    words: dict[str, Callable[[Any], str]] = {
        "bytes_list": lambda value: value.decode(errors="replace"),
        "float_list": lambda value: f"{value:.6g}",
        "int64_list": str,
    }
    more = ", …" if len(values) > _VALUES_SHOWN else ""
    return ", ".join(map(words[kind], values[:_VALUES_SHOWN])) + more


def thumbnail(content: bytes) -> tuple[str | None, int]:
    """Returns an image as a small data URI, and its width in pixels; None if it cannot be read.

    It is upright and on white, as the model sees it.

    Args:
        content: Encoded image, of a format that TensorFlow decodes.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            small = as_shown(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None, 0
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    # JPEG would smear the pixels of a small image.
    kind = "PNG" if max(small.size) <= _THUMBNAIL // 2 else "JPEG"
    small.save(file, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{encoded}", small.width
