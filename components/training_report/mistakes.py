"""The mistakes a model is surest of, found by asking it again."""

import base64
import heapq
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

import schemas
from components.evaluation import scores
from components.group import groups
from components.image_example_gen import image as picture

if TYPE_CHECKING:
    import tensorflow as tf

SHOWN = 24
LOOKED_AT = 2000
"""Examples looked at, at most: a minute of work for a big model on a CPU, not an hour."""

SIGNATURE = "serving_default"
LABEL_SIGNATURE = "transform_labels"
PROBABILITIES = "probabilities"

_BATCH = 32
_BATCH_BYTES = 32 * 2**20
_THUMBNAIL = 160
# What TensorFlow decodes. Pillow's readers of other formats need see nothing.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
_VALUES_SHOWN = 8
_TEXT_SHOWN = 80


class UnfitModelError(ValueError):
    """A model, or examples, that mistakes cannot be found with; the message says why."""


@dataclass(frozen=True)
class Mistake:
    """One example that was classified wrong.

    Attributes:
        actual: Its class.
        predicted: The class it was taken for.
        confidence: Probability the model gave to that class.
        actual_probability: Probability it gave to the right one; None for an unknown class.
        name: File name, or the number of the row.
        picture: Thumbnail as a data URI; None for a table.
        width: Width of the thumbnail in pixels.
        columns: Features of a table's row, as text.
    """

    actual: str
    predicted: str
    confidence: float
    actual_probability: float | None
    name: str
    picture: str | None = None
    width: int = 0
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mistakes:
    """The mistakes among the examples looked at.

    Attributes:
        shown: The ones the model was surest of, the surest first.
        wrong: Number of mistakes.
        looked_at: Number of examples the model was asked about.
        every: 1 where it was asked about each example in turn, 2 for every second one, ...
        softmax: Whether the model returns scores that are no probabilities, so that their softmax
            was taken.
    """

    shown: tuple[Mistake, ...]
    wrong: int
    looked_at: int
    every: int = 1
    softmax: bool = False


class Classifier(Protocol):
    """What knows labels and probabilities of serialized tf.Examples."""

    def scores(self, records: Sequence[bytes]) -> NDArray[np.float64]:
        """Probability or logit of each class, [N, C], or of the second of two classes, [N, 1]."""

    def label_indices(self, records: Sequence[bytes]) -> NDArray[np.int64] | None:
        """Index of the right class, [N]; None where the model cannot tell."""


class SavedModelClassifier:
    """A SavedModel with the signature `serving_default`."""

    def __init__(self, directory: str) -> None:
        """Load the model.

        Args:
            directory: Folder or URI of a SavedModel whose signature `serving_default` takes
                serialized tf.Examples, [N], and returns `probabilities`, [N, C]. A signature
                `transform_labels` that returns label indices, [N, 1], is used where it is there.

        Raises:
            UnfitModelError: It has no such signature.
        """
        import tensorflow as tf

        self._model = tf.saved_model.load(directory)
        signatures = self._model.signatures
        if SIGNATURE not in signatures:
            raise UnfitModelError(
                f"the model has no signature {SIGNATURE} (only {', '.join(signatures) or 'none'})"
            )
        self._predict = signatures[SIGNATURE]
        self._label = signatures.get(LABEL_SIGNATURE)

    def scores(self, records: Sequence[bytes]) -> NDArray[np.float64]:
        """Probability or logit of each class, [N, C], or of the second of two classes, [N, 1]."""
        outputs = self._call(self._predict, records)
        if PROBABILITIES in outputs:
            chosen = outputs[PROBABILITIES]
        elif len(outputs) == 1:
            (chosen,) = outputs.values()
        else:
            raise UnfitModelError(
                f"{SIGNATURE} returns {', '.join(sorted(outputs))}, and no {PROBABILITIES}"
            )
        if chosen.shape.rank != 2 or not chosen.dtype.is_floating or not chosen.shape[1]:
            raise UnfitModelError(
                f"{SIGNATURE} returns no score for each class, but {chosen.dtype.name} "
                f"{chosen.shape}"
            )
        return np.asarray(chosen.numpy(), np.float64)

    def label_indices(self, records: Sequence[bytes]) -> NDArray[np.int64] | None:
        """Index of the right class, [N]; None where the model has no `transform_labels`."""
        if self._label is None:
            return None
        (indices,) = self._call(self._label, records).values()
        return np.asarray(indices.numpy(), np.int64).reshape(-1)

    @staticmethod
    def _call(signature: Any, records: Sequence[bytes]) -> "dict[str, tf.Tensor]":
        import tensorflow as tf

        inputs = signature.structured_input_signature[1]
        if len(inputs) != 1 or next(iter(inputs.values())).dtype != tf.string:
            raise UnfitModelError(f"{SIGNATURE} does not take serialized tf.Examples")
        outputs: dict[str, tf.Tensor] = signature(**{next(iter(inputs)): tf.constant(records)})
        return outputs


def read_records(files: Sequence[str], compression: str) -> Iterator[bytes]:
    """Serialized tf.Examples of TFRecord files, in order.

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
    """Ask a model about examples and keep the mistakes it is surest of.

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
        actual = list(_actual(contents, classifier, classes, label))
        for (position, record), row, truth in zip(batch, probabilities, actual, strict=True):
            index = int(np.argmax(row))
            predicted = _name(index, classes)
            if predicted == truth[0]:
                continue
            wrong += 1
            column = truth[1]
            right = float(row[column]) if column is not None and column < len(row) else None
            item = (float(row[index]), -position, truth[0], predicted, right, record)
            (heapq.heappush if len(best) < shown else heapq.heappushpop)(best, item)
    ordered = sorted(best, key=lambda item: item[:2], reverse=True)
    return Mistakes(
        tuple(
            _mistake(record, -place, truth, predicted, confidence, right)
            for confidence, place, truth, predicted, right, record in ordered
        ),
        wrong,
        looked_at,
        every,
        softmax,
    )


def _name(index: int, classes: Sequence[str]) -> str:
    return classes[index] if 0 <= index < len(classes) else str(index)


def _actual(
    records: Sequence[bytes], classifier: Classifier, classes: Sequence[str], label: str
) -> Iterator[tuple[str, int | None]]:
    """Class and its column of each record."""
    columns = {name: index for index, name in enumerate(classes)}
    features = [_features(record) for record in records]
    if all(label in row and row[label].bytes_list.value for row in features):
        for row in features:
            name = row[label].bytes_list.value[0].decode(errors="replace")
            yield name, columns.get(name)
        return
    indices = classifier.label_indices(records)
    if indices is None:
        if not all(label in row and row[label].int64_list.value for row in features):
            raise UnfitModelError(
                f"the feature {label!r} names no class, and the model has no signature "
                f"{LABEL_SIGNATURE}"
            )
        indices = np.array([row[label].int64_list.value[0] for row in features])
    for index in map(int, indices):
        yield _name(index, classes), index if index >= 0 else None


def _features(record: bytes) -> Mapping[str, Any]:
    import tensorflow as tf

    features: Mapping[str, Any] = tf.train.Example.FromString(record).features.feature
    return features


def _mistake(
    record: bytes,
    position: int,
    actual: str,
    predicted: str,
    confidence: float,
    right: float | None,
) -> Mistake:
    features = _features(record)
    name = f"example {position + 1:,}"
    if schemas.FILE_NAME in features:
        name = _text(features[schemas.FILE_NAME], None)
    if schemas.IMAGE in features:
        uri, width = thumbnail(features[schemas.IMAGE].bytes_list.value[0])
        return Mistake(actual, predicted, confidence, right, name, uri, width)
    columns = {key: _text(features[key], _TEXT_SHOWN) for key in sorted(features)}
    return Mistake(actual, predicted, confidence, right, name, columns=columns)


def _text(feature: Any, limit: int | None) -> str:
    kind = feature.WhichOneof("kind")
    if kind is None:
        return ""
    values = getattr(feature, kind).value
    shapes: dict[str, Callable[[Any], str]] = {
        "bytes_list": lambda value: value.decode(errors="replace"),
        "float_list": lambda value: f"{value:.6g}",
        "int64_list": str,
    }
    text = ", ".join(map(shapes[kind], values[:_VALUES_SHOWN])) + ", …" * (
        len(values) > _VALUES_SHOWN
    )
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def thumbnail(content: bytes) -> tuple[str | None, int]:
    """An image as a small data URI, and its width in pixels; None where it cannot be read.

    It is upright and on white, as the model sees it.

    Args:
        content: Encoded picture, of a format that TensorFlow decodes.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            image = picture.as_shown(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None, 0
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    # JPEG would smear the pixels of a small image.
    kind = "PNG" if max(image.size) <= _THUMBNAIL // 2 else "JPEG"
    image.save(file, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{encoded}", image.width
