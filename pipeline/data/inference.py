"""Inference of a table's columns, label classes and schema from its CSV files."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from trainer_module.config import TableFeatures
from trainer_module.util.checks import require
from trainer_module.util.text import listed

from . import csv_check, dialect
from .dialect import Dialect

MAX_CLASSES = 100
"""Values beyond which a column is no label of classes."""

# Rows for each value from which whole numbers are classes, as AutoGluon infers them.
_ROWS_PER_CLASS = 20
# Skewness from which a label has a long tail: that of an exponential distribution is 2.
_LONG_TAIL = 1.0
# Numbers with at most this many values are categories, as the number of doors is.
_FEW_VALUES = 10
# Rows for each value below which a text is an id or free text.
_ROWS_PER_VALUE = 3
# Rows for each value from which it is no accident that a value fixes the label.
_ROWS_OF_A_LEAK = 5
# Values of a column that are remembered; beyond them it has "many".
_REMEMBERED = 100_000
# Share of numbers from which other cells stand for missing ones, such as NA.
_NUMBERS = 0.5
_LISTED, _SHOWN = 10, 20
_UNMARKED = "write them as 1200 or 0.45"
# Days and months in another order, or without leading zeros.
_OTHER_DATE = re.compile(
    r"([0-9]{4}([./-])[0-9]{1,2}\2[0-9]{1,2}|[0-9]{1,2}([./-])[0-9]{1,2}\3([0-9]{4}|[0-9]{2}))"
    r"([T ][0-9].*)?"
)
# Numbers that CsvExampleGen takes for text, such as $1,200 and 45%.
_MARKED_NUMBER = re.compile(r"[+-]?[$€£¥]?\s?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]+)?\s?[%$€£¥]?")

Use = Literal["numeric", "categorical", "date", "label", "left out"]
Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Column:
    """Column of a table, and how a run uses it."""

    name: str
    """Name in the header."""
    use: Use
    """What the run makes of it."""
    kind: str
    """Type of its values, as CsvExampleGen reads them: whole numbers, numbers or text."""
    missing: int
    """Number of empty cells."""
    values: int
    """Number of values that differ, up to a bound."""
    why: str = ""
    """Why it is left out, or what to know of a label; else empty."""


@dataclass(frozen=True)
class Table:
    """What was inferred from the rows of a table."""

    columns: tuple[Column, ...]
    """The columns in the order of the header."""
    rows: int
    """Number of rows below the headers."""
    features: TableFeatures
    """How the columns are used."""
    classes: tuple[str, ...]
    """Values of the label, sorted; none without a label, and for a regression."""
    schema: str
    """TFMD schema as text (.pbtxt)."""
    dialect: str = ""
    """How the first file is written, in words, where it is not as most CSV files are."""


def is_table(data: Path) -> bool:
    """Returns True for a CSV file, and for a folder that has CSV files and no folders."""
    if data.is_file():
        return data.suffix.lower() == ".csv"
    children = list(data.iterdir()) if data.is_dir() else []
    return any(child.suffix.lower() == ".csv" for child in children) and not any(
        child.is_dir() for child in children
    )


def infer(data: Path, label: str | None, task: Task | None = None) -> Table:
    """Infers how to train on a table, in one pass over its rows.

    Whole numbers of few values are categories. Ids, free text, columns of one value, and columns
    whose values give the label away are left out. Labels that are numbers, but for whole ones that
    repeat, make a regression.

    Args:
        data: CSV file, or folder of CSV files with the same header.
        label: Name of the label's column; None if there is none yet.
        task: What to predict; None infers it from the label.

    Raises:
        UserError: A file that cannot be read, no column to learn from, or a label that is not
            there, has one value, or does not fit the task.
    """
    files = csv_check.find_files(data)
    dialects = list(map(dialect.detect, files))
    columns = _read(files, dialects, label)
    for column in columns.values():
        column.settle()
    rows = max((column.rows for column in columns.values()), default=0)
    require(rows > 0, f"{data}: a table must have rows below its header", rows, "Add data.")
    classes: tuple[str, ...] = ()
    if label is not None:
        _check_label(data, columns[label])
        task = task or columns[label].task
        if task == "regression":
            _check_number(data, columns[label])
        else:
            classes = _classes(data, columns[label])
    judged = tuple(column.judge(label) for column in columns.values())
    numeric = tuple(column.name for column in judged if column.use == "numeric")
    categorical = tuple(column.name for column in judged if column.use == "categorical")
    dates = tuple(column.name for column in judged if column.use == "date")
    require(
        bool(numeric or categorical or dates),
        f"{data}: some column must be of use to predict the label",
        "; ".join(f"{column.name}: {column.why or column.use}" for column in judged[:_LISTED]),
        "Add columns, or name some with `numeric` or `categorical`.",
    )
    features = TableFeatures(
        numeric=numeric,
        categorical=categorical,
        dates=dates,
        # Each entry is a column of the model's input, for each categorical column.
        vocabulary_size=min(
            max((column.values for column in judged if column.use == "categorical"), default=1),
            TableFeatures.vocabulary_size,
        ),
        label=label or "label",
        task=task or "classification",
    )
    schema = schema_pb2.Schema(feature=[columns[column.name].feature(classes) for column in judged])
    text = text_format.MessageToString(schema, as_utf8=True)
    return Table(judged, rows, features, classes, text, str(dialects[0]))


@dataclass
class Moments:
    """Sums of the powers of numbers, for their skewness."""

    count: int = 0
    first: float = 0.0
    low: float = math.inf
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def add(self, number: float) -> None:
        """Counts a finite number."""
        if not math.isfinite(number):
            return
        # Around the first one, powers of numbers such as years would lose their digits.
        self.first = self.first if self.count else number
        self.low = min(self.low, number)
        self.count += 1
        apart = number - self.first
        one, two, three = self.sums
        # Powers by ** would be an error where these are infinite.
        square = float(apart) * apart
        self.sums = one + apart, two + square, three + square * apart

    @property
    def skewness(self) -> float:
        """Third standardised moment; 0 where all numbers are equal."""
        one, two, three = (total / max(self.count, 1) for total in self.sums)
        variance = two - one * one
        if not 0 < variance < math.inf:
            return 0.0
        return float((three - 3 * one * two + 2 * one * one * one) / variance / math.sqrt(variance))

    @property
    def tail(self) -> str:
        """Advice on a label with a long tail; empty for others."""
        if not (self.low >= 0 and self.skewness >= _LONG_TAIL):
            return ""
        return f"long tail (skewness {self.skewness:.1f}): --label-scale log may do better"


@dataclass
class _Column:
    """Statistics of a column."""

    name: str
    is_label: bool
    rows: int = 0
    missing: int = 0
    # Cells such as NA, which are missing in a column of numbers.
    words: int = 0
    numbers: int = 0
    # Numbers such as 1.5; and such as 1.0, too.
    has_fractions: bool = False
    has_floats: bool = False
    text: str = ""
    dates: int = 0
    # Each value with the label of its rows: empty where they have none, None where they differ.
    labels: dict[str, str | None] = field(default_factory=dict)
    is_overflowing: bool = False
    is_counting: bool = True
    last: float | None = None
    moments: Moments = field(default_factory=Moments)

    def add(self, cell: str, label: str) -> None:
        """Counts a cell."""
        self.rows += 1
        if not cell:
            self.missing += 1
            return
        number = csv_check.parse_number(cell)
        if cell.strip() in dialect.MISSING:
            self.words += 1
        elif number is None:
            is_date = csv_check.is_date(cell)
            self.dates += is_date
            if not is_date:
                self.text = self.text or cell
        else:
            self.numbers += 1
            self.has_floats = self.has_floats or isinstance(number, float)
            self.is_counting = self.is_counting and self.last in (None, number - 1)
            self.last = number
            if self.is_label:
                self.has_fractions = self.has_fractions or not csv_check.is_whole(number)
                self.moments.add(number)
        # A row without a label agrees with any.
        known = self.labels.get(cell, "")
        if cell not in self.labels and len(self.labels) >= _REMEMBERED:
            self.is_overflowing = True
        elif known == "":
            self.labels[cell] = label
        elif label not in ("", known):
            self.labels[cell] = None

    def settle(self) -> None:
        """Takes words such as NA for missing, where all other cells are numbers."""
        if self.numbers and self.numbers + self.words == self.present:
            self.missing += self.words
            self.labels = {
                cell: label
                for cell, label in self.labels.items()
                if cell.strip() not in dialect.MISSING
            }

    @property
    def present(self) -> int:
        """Number of cells that are not empty."""
        return self.rows - self.missing

    @property
    def is_number(self) -> bool:
        """Whether CsvExampleGen reads numbers."""
        return self.numbers == self.present

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers: as CsvExampleGen reads them, or 1.0 as label."""
        return self.is_number and not (self.has_fractions if self.is_label else self.has_floats)

    @property
    def kind(self) -> str:
        """Type of the values in words."""
        return "whole numbers" if self.is_whole else "numbers" if self.is_number else "text"

    @property
    def has_marks(self) -> bool:
        """Whether the first text is a number with a thousands separator, a currency or %."""
        return not self.is_number and _MARKED_NUMBER.fullmatch(self.text) is not None

    @property
    def task(self) -> Task:
        """What a model of this label predicts."""
        values = len(self.labels)
        repeats = values <= _FEW_VALUES or (
            values <= MAX_CLASSES and self.present >= _ROWS_PER_CLASS * values
        )
        is_class = not self.is_number or (self.is_whole and repeats)
        return "classification" if is_class else "regression"

    def judge(self, label: str | None) -> Column:
        """Returns the column with its use."""
        use, why = self._use(label)
        return Column(self.name, use, self.kind, self.missing, len(self.labels), why)

    def _use(self, label: str | None) -> tuple[Use, str]:
        values = len(self.labels)
        if self.is_label:
            return "label", self.moments.tail if self.is_number else ""
        if values < 2:
            return "left out", "it has one value" if values else "it is empty"
        if self.is_whole and self.is_counting and values > _FEW_VALUES:
            return "left out", "it counts the rows"
        is_fixed = None not in self.labels.values() and not self.is_overflowing
        if label is not None and is_fixed and self.present >= _ROWS_OF_A_LEAK * values:
            return "left out", f"each of its values fixes {label}"
        if self.is_number and not (self.is_whole and values <= _FEW_VALUES):
            return "numeric", ""
        if self.has_marks and (self.numbers or values > _FEW_VALUES):
            return "left out", f"numbers such as {self.text[:_SHOWN]!r}: {_UNMARKED}"
        if not self.is_number and self.numbers > _NUMBERS * self.present:
            return "left out", f"numbers, but for cells such as {self.text[:_SHOWN]!r}: empty them"
        if self.dates == self.present:
            return "date", ""
        if not self.is_number and _OTHER_DATE.fullmatch(self.text):
            return "left out", f"dates such as {self.text[:_SHOWN]!r}: write them as 2026-01-31"
        if not self.is_number and (self.is_overflowing or self.present < _ROWS_PER_VALUE * values):
            return "left out", "an id or free text: most values occur once or twice"
        return "categorical", ""

    def feature(self, classes: tuple[str, ...]) -> schema_pb2.Feature:
        """Returns the column as a feature of a schema."""
        is_int = self.is_whole and (bool(classes) or not self.has_floats)
        kind = schema_pb2.INT if is_int else schema_pb2.FLOAT
        feature = schema_pb2.Feature(
            name=self.name, type=kind if self.is_number else schema_pb2.BYTES
        )
        feature.presence.min_count = 1
        feature.value_count.min = feature.value_count.max = 1
        if not self.missing:
            feature.presence.min_fraction = 1
        if self.is_label and not self.is_number:
            feature.string_domain.value.extend(classes)
        return feature


def _read(
    files: Sequence[Path], dialects: Sequence[Dialect], label: str | None
) -> dict[str, _Column]:
    """Returns the statistics of each column by name, in the order of the header."""
    columns: dict[str, _Column] = {}
    for file, written in zip(files, dialects, strict=True):
        rows = dialect.read(file, written)
        header = csv_check.take_header(file, rows)
        twice = sorted({name for name in header if header.count(name) > 1})
        require(not twice, f"{file}, row 1: column names must differ", twice, "Rename one.")
        if not columns:
            columns = {name: _Column(name, name == label) for name in header}
            require(
                label is None or label in columns,
                f"`label` must name a column of {file.name}",
                label,
                f"{_nearest(label or '', header)}Choose from {listed(header, _LISTED)}.",
            )
        require(
            list(columns) == header,
            f"{file}, row 1: all files must have the same columns",
            ",".join(header),
            f"Give them the header {','.join(columns)}.",
        )
        position = header.index(label) if label is not None else None
        for row, cells in rows:
            csv_check.check_size(f"{file}, row {row}", cells, len(header))
            value = cells[position] if position is not None else ""
            for column, cell in zip(columns.values(), cells, strict=True):
                column.add(cell, value)
    return columns


def _check_label(data: Path, label: _Column) -> None:
    """Checks what holds for both tasks."""
    rule = f"{data}: the label {label.name!r} must"
    require(
        label.present * 2 >= label.rows,
        f"{rule} be there in most rows",
        f"{label.missing:,} of {label.rows:,} rows without",
        "Name another `label`, or fill it in.",
    )
    require(
        len(label.labels) >= 2,
        f"{rule} have at least two values",
        next(iter(label.labels), None),
        "Name another `label`, or add rows with other values.",
    )


def _check_number(data: Path, label: _Column) -> None:
    require(
        label.is_number,
        f"{data}: the label {label.name!r} of a regression must be a number",
        label.text,
        f"If they are numbers, {_UNMARKED}; or set `task=classification`.",
    )


def _classes(data: Path, label: _Column) -> tuple[str, ...]:
    """Returns the classes of a label, as the model reads its values."""
    values = len(label.labels)
    rule = f"{data}: the label {label.name!r} must"
    require(
        not label.has_marks or values <= _FEW_VALUES,
        f"{rule} be written as numbers, if it is one",
        label.text,
        f"If these are numbers, {_UNMARKED}.",
    )
    require(
        not label.is_number or label.is_whole,
        f"{rule} be text or whole numbers for a classification",
        next(iter(label.labels)),
        "Write the classes as text, or set `task=regression` to predict the number.",
    )
    require(
        values <= MAX_CLASSES and values < label.present,
        f"{rule} have at most {MAX_CLASSES} values, and some of them more than once",
        f"{'at least ' if label.is_overflowing else ''}{values:,} in {label.present:,} rows",
        "Name another `label`, or set `task=regression` to predict a number."
        if label.is_number
        else "Name another `label`: this is an id or free text.",
    )
    if label.is_whole:
        return tuple(map(str, sorted({int(csv_check.as_whole(v)) for v in label.labels})))
    return tuple(sorted(label.labels))


def _nearest(name: str, names: list[str]) -> str:
    return "".join(
        f"Did you mean {each!r}? " for each in difflib.get_close_matches(name, names, n=1)
    )
