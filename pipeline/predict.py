"""Predictions of a pushed model for images and tables."""

import contextlib
import csv
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import tyro
from annotated_types import Ge, Gt, Lt

from components import known_classes
from components.evaluation import regression
from components.serving_pusher import versions as serving
from schemas import IMAGE, columns
from trainer_module.util import files
from trainer_module.util.checks import UserError, check_fields, require

from .data import csv_check, dialect
from .metadata import versions

BATCH = 32
"""Examples of a request; an image may take a few hundred MB while it is decoded."""

SUFFIXES = (".csv", ".jsonl")
_KEPT = 20


@dataclass(frozen=True)
class PredictConfig:
    """Configuration of `plateau predict`."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_MODEL")]
    """Output folder of a run, of which the served model is taken; or the folder of one model, a
    SavedModel."""
    paths: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PATH...")]
    """For a model of images: image files, and folders, which are searched. For a model of a table:
    CSV files, and folders of them. Columns may be in any order, and others are ignored."""
    top: Annotated[int, Ge(1)] = 1
    """Number of classes listed for each example, the most probable first; a regression has none."""
    threshold: Annotated[float | None, Gt(0), Lt(1)] = None
    """Least probability of the second of two classes for it to be predicted; 0.5 by default. The
    report shows what each threshold gives."""
    file: Path | None = None
    """File for all predictions: .csv, or .jsonl for JSON Lines."""

    def __post_init__(self) -> None:
        """Checks what needs no access to the files."""
        check_fields(self)
        require(
            self.paths != (),
            "PATH must name something to predict",
            "none",
            "Name images, folders or CSV files after the model.",
        )
        require(
            self.file is None or self.file.suffix in SUFFIXES,
            f"`file` must end with {' or '.join(SUFFIXES)}",
            str(self.file),
            "Try `file=predictions.csv`.",
        )


def default() -> PredictConfig:
    """Returns the values of the flags that are left out; the paths are required."""
    missing: Any = tyro.MISSING
    return PredictConfig(model=missing, paths=missing)


@dataclass(frozen=True)
class Example:
    """Example to predict."""

    source: Path
    row: int | None
    """Row of a CSV file, from 1, the header; None for an image."""
    inputs: Mapping[str, Any]
    """Values by input of the served signature."""
    label: str | None = None
    converted: str = ""
    """Format of an image that is sent as a PNG, such as "GIF P"; empty for others."""


@dataclass(frozen=True)
class Prediction:
    """Most probable classes of an example, the most probable first, or its number."""

    example: Example
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    number: float = math.nan
    """What a regression predicts."""


@dataclass(frozen=True)
class Unreadable:
    """Example that cannot be predicted."""

    source: Path
    row: int | None
    reason: str


Result: TypeAlias = Prediction | Unreadable


@dataclass
class Summary:
    """Counts of all predictions, and the first of them."""

    model: Path
    """Folder of the SavedModel."""
    errors: regression.Sums | None = None
    """Errors of a regression; None for classes."""
    first: list[Prediction] = field(default_factory=list)
    predicted: int = 0
    labelled: int = 0
    correct: int = 0
    """Number of labelled examples whose most probable class is the label."""
    converted: int = 0
    """Number of images that were sent as a PNG."""
    unreadable: list[Unreadable] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Counts a result."""
        if isinstance(result, Unreadable):
            self.unreadable.append(result)
            return
        example = result.example
        self.predicted += 1
        self.labelled += example.label is not None
        if self.errors is None:
            self.correct += example.label == result.classes[0]
        elif example.label is not None:
            self.errors = self.errors.add(float(example.label), result.number)
        self.converted += bool(example.converted)
        if len(self.first) < _KEPT:
            self.first.append(result)


class ServedModel:
    """Pushed SavedModel, called by the signature that TensorFlow Serving offers.

    Attributes:
        classes: Class names, in the order of its outputs; none for a regression.
        inputs: Inputs of a model of a table by name; empty for a model of images.
        label: Column of a table that holds the label; None if there is none such.
    """

    def __init__(self, folder: Path) -> None:
        """Loads the model."""
        known = known_classes.read(folder)
        if known is None:
            raise UserError(
                "the model must be one that a run of Plateau pushed, which records its classes",
                str(folder),
                "Name the output folder of a run, or one of the folders in its pushed/.",
            )
        import tensorflow as tf

        self.classes = known.classes
        self.is_regression = known.task == "regression"
        self.label = known.label
        is_table = known.kind == "table"
        self.inputs = columns.parse((folder / columns.FILE).read_bytes()) if is_table else {}
        # Its functions do not keep it alive.
        self._model: Any = tf.saved_model.load(str(folder))
        self._serve = self._model.signatures["serving_columns" if is_table else "serving_images"]

    def answer(self, examples: Sequence[Example]) -> Any:
        """Returns the probability of each class, float32 [N, C], or a number, [N, 1].

        Raises:
            tf.errors.InvalidArgumentError: The model refuses one of the examples.
        """
        import tensorflow as tf

        dtypes = {name: each.dtype for name, each in self.inputs.items()} or {IMAGE: "string"}
        batch = {
            name: tf.constant([example.inputs[name] for example in examples], dtype)
            for name, dtype in dtypes.items()
        }
        output = "prediction" if self.is_regression else "probabilities"
        return self._serve(**batch)[output].numpy()


def find(path: Path) -> Path:
    """Returns the folder of the SavedModel that a path means.

    Args:
        path: A SavedModel, a folder of versions, or the output folder of a run.
    """
    if (path / "saved_model.pb").is_file():
        return path
    pushed = {**serving.versions(path), **serving.versions(versions.folder_of(path))}
    require(
        bool(pushed),
        "the model must be the output folder of a run whose model was pushed, or a SavedModel",
        str(path),
        "`plateau runs` lists output folders and what is served from them.",
    )
    return pushed[max(pushed)]


def run(config: PredictConfig, advance: Callable[[], None] = lambda: None) -> Summary:
    """Predicts, and writes the file of the config.

    Args:
        config: Model and examples.
        advance: Called after each example.
    """
    folder = find(config.model)
    for path in config.paths:
        require(path.exists(), "each PATH must exist", str(path), "Check the path.")
    model = ServedModel(folder)
    predicts = f"has {len(model.classes)} classes" if model.classes else "predicts a number"
    remedy = f"Leave it out: this model {predicts}."
    require(
        config.top == 1 or not model.is_regression,
        "`top` is for models of classes",
        config.top,
        remedy,
    )
    require(
        config.threshold is None or len(model.classes) == 2,
        "`threshold` is for models of two classes",
        config.threshold,
        remedy,
    )
    examples = rows(config.paths, model) if model.inputs else images(config.paths, model.classes)
    summary = Summary(folder, regression.Sums() if model.is_regression else None)
    with _writer(config, model.is_regression) as write:
        for result in results(model, examples, config):
            advance()
            summary.add(result)
            if isinstance(result, Prediction):
                write(result)
    return summary


def results(
    model: ServedModel, examples: Iterable[Example | Unreadable], config: PredictConfig
) -> Iterator[Result]:
    """Predicts in batches; of a batch that the model refuses, each example by itself."""
    iterator = iter(examples)
    while group := list(itertools.islice(iterator, BATCH)):
        yield from (each for each in group if isinstance(each, Unreadable))
        good = [each for each in group if isinstance(each, Example)]
        yield from _predict(model, good, config) if good else ()


def images(paths: Sequence[Path], classes: Sequence[str]) -> Iterator[Example | Unreadable]:
    """Reads images; one is labelled if its folder has the name of a class.

    An image is prepared as for training: what the model refuses is converted to a PNG.
    """
    from components.image_example_gen.folder import IMAGE_SUFFIXES
    from components.image_example_gen.image import BadImageError, prepare

    for path in paths:
        sources = [path]
        if path.is_dir():
            sources = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        require(
            bool(sources) and path.suffix.lower() != ".csv",
            "each PATH must be an image or a folder with images, which this model is for",
            str(path),
            "For a table, name the model of a table.",
        )
        for source in sources:
            label = source.parent.name if source.parent.name in classes else None
            try:
                content, converted = prepare(source.read_bytes())
            except (BadImageError, OSError) as error:
                yield Unreadable(source, None, str(error))
            else:
                yield Example(source, None, {IMAGE: content}, label, converted)


def rows(paths: Sequence[Path], model: ServedModel) -> Iterator[Example | Unreadable]:
    """Reads the rows of CSV files; one is labelled if the file has the label's column."""
    inputs = model.inputs
    tables = [
        table
        for path in paths
        for table in (sorted(path.glob("*.csv")) if path.is_dir() else [path])
    ]
    require(
        bool(tables),
        "PATH must hold a CSV file, which this model is for",
        ", ".join(map(str, paths)),
        "Name a .csv file, or a folder with some.",
    )
    # All headers are checked before anything is predicted.
    for table in tables:
        csv_check.take_header(table, dialect.read(table), [i.column for i in inputs.values()])
    for table in tables:
        lines = dialect.read(table)
        names = csv_check.take_header(table, lines)
        number = 1
        try:
            for number, row in lines:
                try:
                    csv_check.check_size(f"row {number}", row, len(names))
                    cells = dict(zip(names, row, strict=True))
                    values = {name: _value(cells[i.column], i) for name, i in inputs.items()}
                except ValueError as error:
                    yield Unreadable(table, number, str(error))
                else:
                    label = cells.get(model.label or "") or None
                    if label is not None:
                        label = _label(label, model)
                    yield Example(table, number, values, label)
        except UserError as error:
            yield Unreadable(table, number + 1, f"not readable from here on: {error}")


def _label(cell: str, model: ServedModel) -> str | None:
    """Returns a label as the model knows it; None where it is missing, or no number."""
    if cell in model.classes:
        return cell
    if cell.strip() in dialect.MISSING:
        return None
    if not model.is_regression:
        return csv_check.as_whole(cell)
    number = csv_check.parse_number(cell)
    return cell if number is not None and math.isfinite(number) else None


def _value(cell: str, column: columns.Input) -> str | float | int:
    """Returns a cell as the model takes it."""
    if column.dtype != "string" and cell.strip() in dialect.MISSING:
        cell = ""
    if not cell and column.missing is None:
        raise ValueError(f"{column.column} must not be empty")
    text = cell or str(column.missing)
    try:
        if column.dtype == "int64":
            return int(csv_check.as_whole(text))
        return float(text) if column.dtype == "float32" else text
    except ValueError as error:
        kind = "a whole number" if column.dtype == "int64" else "a number"
        raise ValueError(f"{column.column} must be {kind}, got {text!r}") from error


def _predict(
    model: ServedModel, examples: Sequence[Example], config: PredictConfig
) -> Iterator[Result]:
    import tensorflow as tf

    try:
        answers = model.answer(examples)
    except tf.errors.InvalidArgumentError as error:
        if len(examples) == 1:
            yield Unreadable(examples[0].source, examples[0].row, _reason(examples[0], error))
            return
        for example in examples:
            yield from _predict(model, [example], config)
        return
    for example, values in zip(examples, answers, strict=True):
        if model.is_regression:
            yield Prediction(example, number=float(values[0]))
            continue
        best = ranked(values, config.threshold)[: config.top]
        classes = tuple(model.classes[index] for index in best)
        yield Prediction(example, classes, tuple(float(values[index]) for index in best))


def ranked(probabilities: Any, threshold: float | None) -> Any:
    """Returns the classes' indices, the predicted one first.

    Args:
        probabilities: Of each class, float [C].
        threshold: Least probability of the second of two classes for it to be predicted; None for
            the most probable.
    """
    if threshold is None:
        return (-probabilities).argsort(kind="stable")
    return [1, 0] if probabilities[1] >= threshold else [0, 1]


def _reason(example: Example, error: Exception) -> str:
    """Returns why the model refuses an example: for an image, the reason of the data check."""
    from components.image_example_gen import image

    fault = image.faults([example.inputs[IMAGE]])[0] if IMAGE in example.inputs else ""
    return fault or str(error)


@contextlib.contextmanager
def _writer(config: PredictConfig, is_regression: bool) -> Iterator[Callable[[Prediction], object]]:
    """Opens the file of the config, which is written atomically."""
    if config.file is None:
        yield lambda prediction: None
        return
    with files.atomic(config.file) as path, path.open("w", encoding="utf-8", newline="") as stream:
        if config.file.suffix == ".jsonl":
            yield lambda prediction: stream.write(_json(prediction) + "\n")
            return
        table = csv.writer(stream)
        more = [
            f"{word}_{n}" for n in range(2, config.top + 1) for word in ("class", "probability")
        ]
        answer = ["prediction"] if is_regression else ["class", "probability", *more]
        table.writerow(["file", "row", *answer])
        yield lambda prediction: table.writerow(_cells(prediction))


def _cells(prediction: Prediction) -> list[Any]:
    best = zip(prediction.classes, prediction.probabilities, strict=True)
    answer = [value for pair in best for value in pair] or [prediction.number]
    return [str(prediction.example.source), prediction.example.row, *answer]


def _json(prediction: Prediction) -> str:
    best = zip(prediction.classes, prediction.probabilities, strict=True)
    top = [{"class": name, "probability": value} for name, value in best]
    answer = {**top[0], "top": top} if top else {"prediction": prediction.number}
    record = {"file": str(prediction.example.source), "row": prediction.example.row, **answer}
    return json.dumps(record, ensure_ascii=False)
