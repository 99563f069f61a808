"""Predictions of a pushed model for images and tables."""

import contextlib
import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple, TypeAlias

import tyro

from components import known_classes
from components.serving_pusher import versions as serving
from schemas import IMAGE, columns
from trainer_module.util import files
from trainer_module.util.checks import require

from .metadata import versions as push

BATCH = 32
"""Examples of a request; an image may take a few hundred MB while it is decoded."""

SUFFIXES = (".csv", ".jsonl")
_SHOWN = 20


@dataclass(frozen=True)
class PredictConfig:
    """What `plateau predict` needs to know.

    Attributes:
        model: Output folder of a run, of which the served model is taken; or the folder of one
            model, a SavedModel.
        paths: For a model of images: image files, and folders, which are searched through. For a
            model of a table: CSV files, and folders of them. Columns may be in any order, and
            others are ignored.
        top: Number of classes given for each example, the most probable first.
        file: File for all predictions: .csv, or .jsonl for JSON Lines.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_MODEL")]
    paths: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PATH...")]
    top: int = 1
    file: Path | None = None

    def __post_init__(self) -> None:
        """Checks what needs no look at the files."""
        require(
            self.paths != (),
            "predict must be given something to predict",
            "no PATH",
            "Name images, folders or CSV files after the model.",
        )
        require(self.top >= 1, "top must be at least 1", self.top, "Try --top 3.")
        require(
            self.file is None or self.file.suffix in SUFFIXES,
            f"file must end with {' or '.join(SUFFIXES)}",
            str(self.file),
            "Try --file predictions.csv.",
        )


def default() -> PredictConfig:
    """Returns the values of the flags that are not given; the paths always have to be."""
    missing: Any = tyro.MISSING
    return PredictConfig(model=missing, paths=missing)


class Example(NamedTuple):
    """One example to predict.

    Attributes:
        source: File that it is in.
        row: Row of a CSV file, from 1, the header; None for an image.
        inputs: Values by input of the served signature.
        label: Its class, where the data has it.
        converted: Format of an image that is sent as a PNG, such as "GIF P"; empty for others.
    """

    source: Path
    row: int | None
    inputs: Mapping[str, Any]
    label: str | None = None
    converted: str = ""


class Prediction(NamedTuple):
    """What the model says of an example.

    Attributes:
        example: The example.
        classes: The most probable classes, the most probable first.
        probabilities: Theirs.
    """

    example: Example
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


class Unreadable(NamedTuple):
    """An example that cannot be predicted.

    Attributes:
        source: File that it is in.
        row: Row of a CSV file, from 1, the header; None for an image.
        reason: Why.
    """

    source: Path
    row: int | None
    reason: str


Result: TypeAlias = Prediction | Unreadable


@dataclass(frozen=True)
class Summary:
    """All predictions, of which the first are kept.

    Attributes:
        model: Folder of the SavedModel.
        first: The first predictions.
        predicted: Number of predictions.
        labelled: How many of them have a label.
        correct: How many of these are predicted as it.
        converted: How many images were sent as a PNG.
        unreadable: Examples that could not be predicted.
    """

    model: Path
    first: tuple[Prediction, ...]
    predicted: int
    labelled: int
    correct: int
    converted: int
    unreadable: tuple[Unreadable, ...]


class ServedModel:
    """A pushed SavedModel, asked by the signature that TensorFlow Serving offers.

    Attributes:
        folder: Its folder.
        classes: Class names, in the order of its outputs.
        inputs: Inputs of a model of a table by name; empty for a model of images.
        label: Column of a table that holds the class; None if there is none such.
    """

    def __init__(self, folder: Path) -> None:
        """Loads the model.

        Raises:
            ValueError: It is none that a run of Plateau pushed.
        """
        known = known_classes.read(folder)
        require(
            known is not None,
            "model must be one that a run of Plateau pushed, which says its classes",
            str(folder),
            "Name the output folder of a run, or one of the folders in its pushed/.",
        )
        assert known is not None
        self.folder = folder
        self.classes = known.classes
        self.label = known.label
        described = folder / columns.FILE
        is_table = known.kind == "table"
        self.inputs = columns.parse(described.read_bytes()) if is_table else {}
        import tensorflow as tf

        # Its functions do not keep it alive.
        self._model: Any = tf.saved_model.load(str(folder))
        self._serve = self._model.signatures["serving_columns" if is_table else "serving_images"]

    def probabilities(self, examples: Sequence[Example]) -> Any:
        """Returns float32 [N, C].

        Raises:
            tf.errors.InvalidArgumentError: The model refuses one of the examples.
        """
        import tensorflow as tf

        dtypes = {name: given.dtype for name, given in self.inputs.items()} or {IMAGE: "string"}
        batch = {
            name: tf.constant([example.inputs[name] for example in examples], dtype)
            for name, dtype in dtypes.items()
        }
        return self._serve(**batch)["probabilities"].numpy()


def find(path: Path) -> Path:
    """Returns the folder of the SavedModel that a path means.

    Args:
        path: A SavedModel, a folder of versions, or the output folder of a run.

    Raises:
        ValueError: There is no model.
    """
    if (path / "saved_model.pb").is_file():
        return path
    versions = {**serving.versions(path), **serving.versions(push.folder_of(path))}
    require(
        bool(versions),
        "model must be the output folder of a run whose model was pushed, or a SavedModel",
        str(path),
        "`plateau runs` lists output folders and what is served from them.",
    )
    return versions[max(versions)]


def run(config: PredictConfig, advance: Callable[[], None] = lambda: None) -> Summary:
    """Predicts, and writes the file of the config.

    Args:
        config: Model and examples.
        advance: Called after each example.

    Raises:
        ValueError: There is no such model, or nothing that it could predict.
    """
    folder = find(config.model)
    for path in config.paths:
        require(path.exists(), "each path must exist", str(path), "Check the path.")
    model = ServedModel(folder)
    examples = (
        rows(config.paths, model.inputs, model.label)
        if model.inputs
        else images(config.paths, model.classes)
    )
    first: list[Prediction] = []
    unreadable: list[Unreadable] = []
    predicted = labelled = correct = converted = 0
    with _writer(config) as write:
        for result in results(model, examples, config.top):
            advance()
            if isinstance(result, Unreadable):
                unreadable.append(result)
                continue
            write(result)
            predicted += 1
            example = result.example
            labelled += example.label is not None
            correct += example.label == result.classes[0]
            converted += bool(example.converted)
            if len(first) < _SHOWN:
                first.append(result)
    return Summary(folder, tuple(first), predicted, labelled, correct, converted, tuple(unreadable))


def results(
    model: ServedModel, examples: Iterable[Example | Unreadable], top: int
) -> Iterator[Result]:
    """Predicts in batches; of a batch that the model refuses, each example by itself."""
    iterator = iter(examples)
    while group := list(itertools.islice(iterator, BATCH)):
        yield from (each for each in group if isinstance(each, Unreadable))
        good = [each for each in group if isinstance(each, Example)]
        yield from _answers(model, good, top) if good else ()


def images(paths: Sequence[Path], classes: Sequence[str]) -> Iterator[Example | Unreadable]:
    """Reads images; one is labelled if its folder has the name of a class.

    An image is prepared as for training: what the model refuses is converted to a PNG.

    Raises:
        ValueError: A path holds no image.
    """
    from components.image_example_gen.folder import IMAGE_SUFFIXES
    from components.image_example_gen.image import BadImageError, prepare

    for path in paths:
        found = [path]
        if path.is_dir():
            found = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        require(
            bool(found) and path.suffix.lower() != ".csv",
            "each path must be an image or a folder with images, which this model is for",
            str(path),
            "For a table, name the model of a table.",
        )
        for file in found:
            label = file.parent.name if file.parent.name in classes else None
            try:
                content, converted = prepare(file.read_bytes())
            except (BadImageError, OSError) as error:
                yield Unreadable(file, None, str(error))
            else:
                yield Example(file, None, {IMAGE: content}, label, converted)


def rows(
    paths: Sequence[Path], inputs: Mapping[str, columns.Input], label: str | None
) -> Iterator[Example | Unreadable]:
    """Reads the rows of CSV files; one is labelled if the file has the label's column.

    Raises:
        ValueError: A path holds no CSV file, or one without the columns of the model.
    """
    tables = [
        table
        for path in paths
        for table in (sorted(path.glob("*.csv")) if path.is_dir() else [path])
    ]
    require(
        bool(tables),
        "paths must hold a CSV file, which this model is for",
        ", ".join(map(str, paths)),
        "Name a .csv file, or a folder with some.",
    )
    # All headers are looked at before anything is predicted.
    for table in tables:
        _check_header(table, inputs)
    for table in tables:
        with _open(table) as stream:
            reader = csv.DictReader(stream, strict=True)
            # The header is row 1; a cell may span lines, so that lines do not count rows.
            for number in itertools.count(2):
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except (csv.Error, UnicodeDecodeError) as error:
                    yield Unreadable(table, number, f"not readable from here on: {error}")
                    break
                try:
                    values = {name: _value(cells[i.column], i) for name, i in inputs.items()}
                except ValueError as error:
                    yield Unreadable(table, number, str(error))
                else:
                    yield Example(table, number, values, cells.get(label or "") or None)


def _check_header(table: Path, inputs: Mapping[str, columns.Input]) -> None:
    try:
        with _open(table) as stream:
            header = next(csv.reader(stream, strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"each path must be a CSV file in UTF-8, got {table} ({error}). "
            "For images, name the model of images."
        ) from error
    missing = [i.column for i in inputs.values() if i.column not in header]
    require(
        not missing,
        "a table must have the columns that the model was trained on, with commas between them",
        f"{table} without {', '.join(missing)}",
        "Name the table's own model, or rename its columns.",
    )


def _open(table: Path) -> IO[str]:
    return table.open(encoding="utf-8-sig", newline="")


def _value(cell: str | None, given: columns.Input) -> str | float | int:
    """Returns a cell as the model takes it."""
    if not cell:
        require(
            given.missing is not None,
            f"{given.column} must not be empty",
            "an empty cell",
            "Fill it in.",
        )
        cell = str(given.missing)
    kinds: Mapping[str, Any] = {"string": str, "float32": float, "int64": int}
    try:
        value: str | float | int = kinds[given.dtype](cell)
    except ValueError as error:
        kind = "a whole number" if given.dtype == "int64" else "a number"
        raise ValueError(f"{given.column} must be {kind}, got {cell!r}") from error
    return value


def _answers(model: ServedModel, examples: Sequence[Example], top: int) -> Iterator[Result]:
    import tensorflow as tf

    try:
        probabilities = model.probabilities(examples)
    except tf.errors.InvalidArgumentError as error:
        if len(examples) == 1:
            yield Unreadable(examples[0].source, examples[0].row, _reason(examples[0], error))
            return
        for example in examples:
            yield from _answers(model, [example], top)
        return
    for example, values in zip(examples, probabilities, strict=True):
        best = (-values).argsort(kind="stable")[:top]
        yield Prediction(
            example,
            tuple(model.classes[index] for index in best),
            tuple(float(values[index]) for index in best),
        )


def _reason(example: Example, error: Exception) -> str:
    """Returns why the model refuses an example: for an image, what the check of a run says."""
    from components.image_example_gen import image

    said = [image.faults([example.inputs[IMAGE]])[0]] if IMAGE in example.inputs else []
    return said[0] if said and said[0] else str(error)


@contextlib.contextmanager
def _writer(config: PredictConfig) -> Iterator[Callable[[Prediction], None]]:
    """Opens the file of the config, which is there only once it is complete."""
    if config.file is None:
        yield lambda prediction: None
        return
    with files.whole(config.file) as path, path.open("w", encoding="utf-8", newline="") as stream:
        yield _Writer(stream, config.file.suffix == ".csv", config.top)


class _Writer:
    """Writes predictions to a file as they come."""

    def __init__(self, stream: IO[str], as_csv: bool, top: int) -> None:
        self._stream = stream
        self._csv = csv.writer(stream) if as_csv else None
        if self._csv:
            more = [f"{word}_{n}" for n in range(2, top + 1) for word in ("class", "probability")]
            self._csv.writerow(["file", "row", "class", "probability", *more])

    def __call__(self, prediction: Prediction) -> None:
        source, row = str(prediction.example.source), prediction.example.row
        best = list(zip(prediction.classes, prediction.probabilities, strict=True))
        if self._csv:
            self._csv.writerow([source, row, *(value for pair in best for value in pair)])
            return
        top = [{"class": name, "probability": value} for name, value in best]
        record = {"file": source, "row": row, **top[0], "top": top}
        self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
