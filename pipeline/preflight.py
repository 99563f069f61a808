"""Holds data against its schema before the pipeline starts, as far as that is quickly done."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from schemas import FILE_NAME, IMAGE, LABEL
from trainer_module.config import TableFeatures

_INT64 = range(-(2**63), 2**63)
_BOM = "\ufeff"
_SHOWN = 20


class TableError(ValueError):
    """A table that breaks its schema; the message has file, row, column, rule and remedy."""


class SchemaError(ValueError):
    """A schema that cannot be read, or data or flags that do not fit it."""


def check_classes(
    folder: str | os.PathLike[str], classes: Sequence[str], schema: str | os.PathLike[str]
) -> None:
    """Hold the class folders of a folder of pictures against a schema.

    Args:
        folder: The data folder.
        classes: Names of the class folders found in it.
        schema: TFMD schema as text (.pbtxt).

    Raises:
        SchemaError: The schema is none of pictures, or a class is not among its labels.
    """
    columns = _columns(Path(schema))
    missing = [name for name in (IMAGE, LABEL, FILE_NAME) if name not in columns]
    if missing:
        raise SchemaError(
            f"{schema}: the schema of pictures must describe {IMAGE}, {LABEL} and {FILE_NAME}, "
            f"found no {missing[0]!r}. Check --schema, or leave it out."
        )
    known = columns[LABEL].values
    unknown = [name for name in classes if known and name not in known]
    if unknown:
        raise SchemaError(
            f"{folder}: each class folder must be among the labels of the schema "
            f"{Path(schema).name} ({_some(sorted(known))}), got {_some(unknown)}. Rename the "
            "folders, name another schema with --schema, or run a preset without one, as images."
        )


def values(schema: str | os.PathLike[str], column: str) -> tuple[str, ...]:
    """The values that a column may have by its schema, sorted; empty if it names none.

    Raises:
        SchemaError: The schema cannot be read.
    """
    columns = _columns(Path(schema))
    return tuple(sorted(columns[column].values)) if column in columns else ()


def count_rows(csv_folder: str | os.PathLike[str]) -> int:
    """Number of rows in the CSV files of a folder, headers not counted, values not looked at.

    Raises:
        TableError: There is no CSV file, or one that cannot be read.
    """
    return sum(max(sum(1 for _ in _rows(file)) - 1, 0) for file in _files(Path(csv_folder)))


def check_table(
    csv_folder: str | os.PathLike[str],
    schema: str | os.PathLike[str],
    features: TableFeatures | None = None,
    classes: Sequence[str] = (),
) -> int:
    """Read the CSV files of a folder through, one row at a time, and hold them against a schema.

    The rules are those by which CsvExampleGen and the schema would stop the run later on, with
    less to say about where. Rows are counted from 1, the header, as editors do.

    Args:
        csv_folder: Folder with *.csv files, all with the same header.
        schema: TFMD schema as text (.pbtxt).
        features: Columns that the model uses; where given, they are held against the schema.
        classes: Values the label column may have, where `features` takes it as it stands.

    Returns:
        Number of rows, headers not counted.

    Raises:
        TableError: A rule is broken.
        SchemaError: The schema cannot be read, or does not fit the features.
    """
    folder = Path(csv_folder)
    files = _files(folder)
    columns = _columns(Path(schema))
    if features is not None:
        _check_features(features, Path(schema), columns)
        label = columns[features.label]
        # The model compares texts, and a float has many.
        if features.label_over is None and label.type != schema_pb2.FLOAT:
            label.classes = tuple(classes)
    header: list[str] | None = None
    count = 0
    for file in files:
        rows = _rows(file)
        # An empty file has no header either.
        line, found = next(rows, (1, []))
        _check_header(file, found, columns)
        if header is not None and found != header:
            _fail(
                f"{file}, row {line}",
                f"all files must have the columns of {files[0].name}, got {found!r}",
                "Give them the same header.",
            )
        header = found
        count += _check_rows(file, rows, [columns[name] for name in header])
    if not count:
        _fail(str(folder), "a table must have rows below its header, found none", "Add data.")
    for name in header or []:
        columns[name].check_type_shows(folder)
    return count


@dataclass
class _Column:
    """A column's rules, and whether a value of its own type has been seen."""

    name: str
    type: int
    required: bool = False
    needed: bool = False
    values: frozenset[str] = frozenset()
    low: float = float("-inf")
    high: float = float("inf")
    classes: tuple[str, ...] = ()
    seen: bool = field(default=False, init=False)
    typed: bool = field(default=False, init=False)

    def check(self, cell: str) -> tuple[str, str] | None:
        """The rule a cell breaks and the remedy, if it breaks one."""
        if not cell:
            if self.required:
                return "it may not be empty", "Fill it in, or remove the row."
            return None
        self.seen = True
        number = _number(cell)
        if self.type == schema_pb2.BYTES:
            self.typed = self.typed or number is None
        elif number is None or (self.type == schema_pb2.INT and not isinstance(number, int)):
            kind = "a whole number" if self.type == schema_pb2.INT else "a number"
            return f"it must be {kind}", "Correct the value, or the column's type in the schema."
        else:
            self.typed = self.typed or self.type == schema_pb2.INT or isinstance(number, float)
            if number < self.low or number > self.high:
                return (
                    f"it must be {self.low:g} to {self.high:g}",
                    "Correct the value, or the column's domain in the schema.",
                )
        if self.values and cell not in self.values:
            return (
                f"it must be one of {_some(sorted(self.values))}",
                "Correct the value, or add it to the column's domain in the schema.",
            )
        label = str(number) if self.type == schema_pb2.INT else cell
        if self.classes and label not in self.classes:
            return (
                f"it must be one of the classes {_some(self.classes)}",
                "Correct the value, or name all classes with --classes.",
            )
        return None

    def check_type_shows(self, folder: Path) -> None:
        """CsvExampleGen takes a column of whole numbers for INT, whatever the schema says."""
        if self.seen and not self.typed:
            kind = "FLOAT" if self.type == schema_pb2.FLOAT else "BYTES"
            what = "a number with a point" if kind == "FLOAT" else "a value that is no number"
            _fail(
                f"{folder}, column {self.name!r}",
                f"a column of type {kind} must hold {what}, or it is read as another type",
                "Write one value as 1.0 in place of 1, or make it INT in the schema."
                if kind == "FLOAT"
                else "Make it INT or FLOAT in the schema.",
            )


def _columns(path: Path) -> dict[str, _Column]:
    schema = schema_pb2.Schema()
    try:
        text_format.Parse(path.read_text("utf-8"), schema)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise SchemaError(
            f"{path}: the schema must be a readable TFMD schema as text ({error}). Check --schema."
        ) from error
    domains = {domain.name: frozenset(domain.value) for domain in schema.string_domain}
    columns = {}
    for feature in schema.feature:
        column = _Column(feature.name, feature.type)
        column.required = feature.presence.min_fraction >= 1 or feature.HasField("shape")
        column.needed = (
            column.required or feature.presence.min_fraction > 0 or feature.presence.min_count > 0
        )
        # Where some values may lie outside the domain, no single row is wrong.
        if feature.distribution_constraints.min_domain_mass >= 1:
            own = frozenset(feature.string_domain.value)
            column.values = own or domains.get(feature.domain, frozenset())
        for domain in (feature.int_domain, feature.float_domain):
            column.low = domain.min if domain.HasField("min") else column.low
            column.high = domain.max if domain.HasField("max") else column.high
        columns[feature.name] = column
    return columns


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        _fail(str(folder), f"the data folder must be a folder, found {what}", "Check --data.")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".csv" and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        _fail(str(folder), "the data folder must hold a .csv file, found none", "Check --data.")
    return files


def _check_features(features: TableFeatures, schema: Path, columns: dict[str, _Column]) -> None:
    """Each column that a flag names must be in the schema, as a number where it is used as one."""
    ratio = features.label_over is not None
    uses = [
        ("--numeric", features.numeric, True),
        ("--bucketized", features.bucketized, True),
        ("--categorical", features.categorical, False),
        ("--label", (features.label,), ratio),
        ("--label-over", (features.label_over,) if features.label_over else (), True),
    ]
    for flag, names, as_number in uses:
        for name in names:
            if name not in columns:
                raise SchemaError(
                    f"{flag} must name columns of the schema {schema.name}, got {name!r}. "
                    f"Choose from {_some(sorted(columns))}."
                )
            if as_number and columns[name].type == schema_pb2.BYTES:
                raise SchemaError(
                    f"{flag} must name columns of numbers, got {name!r}, which is of type BYTES "
                    f"in the schema {schema.name}. Move it to --categorical, or leave it out."
                )


def _check_header(file: Path, header: list[str], columns: dict[str, _Column]) -> None:
    where = f"{file}, row 1"
    if not header:
        _fail(
            str(file),
            "a CSV file must have a header, found an empty file",
            "Add one, or remove the file.",
        )
    if header[0].startswith(_BOM):
        _fail(
            where, "the file may not start with a byte order mark", "Save it as UTF-8 without one."
        )
    for name in header:
        if header.count(name) > 1:
            _fail(f"{where}, column {name!r}", "column names must differ", "Rename or remove one.")
    missing = [name for name, column in columns.items() if column.needed and name not in header]
    if missing:
        _fail(
            f"{where}, column {missing[0]!r}",
            f"each column of the schema must be in the file, got {header!r}",
            "Add the column; the first row must be the header, with commas between names.",
        )
    extra = [name for name in header if name not in columns]
    if extra:
        _fail(
            f"{where}, column {extra[0]!r}",
            "each column must be in the schema",
            "Remove the column, or describe it in the schema.",
        )


def _check_rows(file: Path, rows: Iterator[tuple[int, list[str]]], columns: list[_Column]) -> int:
    count = 0
    for line, row in rows:
        if len(row) != len(columns):
            _fail(
                f"{file}, row {line}",
                f"each row must have {len(columns)} cells, got {len(row)}",
                "Add or remove cells; put cells that hold commas in double quotes.",
            )
        for column, cell in zip(columns, row, strict=True):
            broken = column.check(cell)
            if broken:
                rule, remedy = broken
                _fail(
                    f"{file}, row {line}, column {column.name!r}", f"{rule}, got {cell!r}", remedy
                )
        count += 1
    return count


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Row number and cells; blank lines are passed over, as CsvExampleGen does."""
    line = 0
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            for row in reader:
                line = reader.line_num
                if row:
                    yield line, row
    except UnicodeDecodeError:
        _fail(f"{file}, below row {line}", "a CSV file must be UTF-8", "Save it as UTF-8.")
    except (csv.Error, OSError) as error:
        _fail(
            f"{file}, below row {line}",
            f"a CSV file must be readable ({error})",
            "Repair the row, or the file's permissions.",
        )


def _number(cell: str) -> int | float | None:
    """A cell as CsvExampleGen takes it: whole numbers within 64 bits, other numbers, or text."""
    try:
        number = int(cell)
    except ValueError:
        try:
            return float(cell)
        except ValueError:
            return None
    return number if number in _INT64 else None


def _some(values: Sequence[str]) -> str:
    shown = ", ".join(map(repr, values[:_SHOWN]))
    return f"{shown} and {len(values) - _SHOWN} more" if len(values) > _SHOWN else shown


def _fail(where: str, rule: str, remedy: str) -> NoReturn:
    raise TableError(f"{where}: {rule}. {remedy}")
