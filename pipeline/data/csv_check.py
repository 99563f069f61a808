"""Holds data against its schema before the pipeline starts, as far as that is quickly done."""

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from schemas import FILE_NAME, IMAGE, LABEL
from schemas.columns import MISSING_INTEGER
from trainer_module.config import TableFeatures

MAX_ROW = 16 * 1024**2
"""Bytes of a row, line breaks in its cells included."""

MAX_SCHEMA = 16 * 1024**2
"""Bytes of a schema."""

_INT64 = range(-(2**63), 2**63)
_BOM = "\ufeff"
# Special in the pattern by which CsvExampleGen looks for files.
_WILD = frozenset("*?[]\\")
_SHOWN = 20
_LONGEST_SHOWN = 200
_QUOTE = (
    "Put double quotes around a whole cell that holds quotes, commas or line breaks, and double "
    "the quotes within; end rows with line feeds."
)


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
    return sum(sum(1 for _ in _rows(file)) - 1 for file in _files(Path(csv_folder)))


def check_table(
    csv_folder: str | os.PathLike[str],
    schema: str | os.PathLike[str],
    features: TableFeatures | None = None,
    classes: Sequence[str] = (),
    on_missing_label: Literal["fail", "skip"] = "fail",
) -> int:
    """Read the CSV files of a folder through, one row at a time, and hold them against a schema.

    The rules are those by which CsvExampleGen and the schema would stop the run later on, with
    less to say about where. Rows are counted from 1, the header, as editors do. Of columns that no
    flag uses neither values nor descriptions matter.

    Args:
        csv_folder: Folder with *.csv files, all with the same header.
        schema: TFMD schema as text (.pbtxt).
        features: Columns that the model uses; where not given, all that the schema describes.
        classes: Values the label column may have, where `features` takes it as it stands.
        on_missing_label: Whether rows without a label are an error or left out.

    Returns:
        Number of rows, headers and rows that are left out not counted.

    Raises:
        TableError: A rule is broken.
        SchemaError: The schema cannot be read, or does not fit the features.
    """
    folder = Path(csv_folder)
    files = _files(folder)
    columns = _columns(Path(schema))
    if features is not None:
        _check_features(features, Path(schema), columns)
        columns = {name: columns[name] for name in (*features.inputs, *features.labels)}
        for column in columns.values():
            column.needed = True
        for name in features.labels:
            columns[name].is_label = True
        label = columns[features.label]
        # The model compares texts, and a float has many.
        if features.label_over is None and label.type != schema_pb2.FLOAT:
            label.classes = tuple(classes)
            _check_label_classes(label, Path(schema))
    header: list[str] | None = None
    count, unlabelled = 0, _Places()
    for file in files:
        rows = _rows(file)
        _, found = next(rows)
        _check_header(file, found, columns, every=features is None)
        if header is not None and found != header:
            _fail(
                f"{file}, row 1",
                f"all files must have the columns of {files[0].name}, "
                f"got {_short(','.join(found))!r}",
                "Give them the same header.",
            )
        header = found
        count += _check_rows(file, rows, [columns.get(name) for name in header], unlabelled)
    if not count:
        _fail(str(folder), "a table must have rows below its header, found none", "Add data.")
    if unlabelled.count and on_missing_label == "fail":
        names = " and ".join(repr(name) for name, column in columns.items() if column.is_label)
        _fail(
            str(folder),
            f"each row must have a label in the column {names}, "
            f"{unlabelled.count:,} of {count:,} rows have none: {unlabelled}",
            "Fill it in, or leave these rows out with --on-missing-label skip.",
        )
    if unlabelled.count == count:
        _fail(
            str(folder),
            f"a table must have rows with a label, all {count:,} have none",
            "Add some.",
        )
    for name in header or []:
        if name in columns:
            columns[name].check_type_shows(folder)
    return count - unlabelled.count


class _Places:
    """Rows of the same kind: their number, and where the first ones are."""

    def __init__(self) -> None:
        self.count = 0
        self._rows: dict[str, list[int]] = {}

    def add(self, file: Path, row: int) -> None:
        self.count += 1
        if self.count <= _SHOWN:
            self._rows.setdefault(file.name, []).append(row)

    def __str__(self) -> str:
        """The first ones by file, and how many more there are."""
        shown = "; ".join(
            f"{file}, row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))}"
            for file, rows in self._rows.items()
        )
        return f"{shown} and {self.count - _SHOWN:,} more" if self.count > _SHOWN else shown


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
    is_label: bool = False
    seen: bool = field(default=False, init=False)
    typed: bool = field(default=False, init=False)

    def is_missing(self, cell: str) -> bool:
        """Whether a cell gives no label."""
        if not cell or self.type == schema_pb2.BYTES:
            return not cell
        number = _number(cell)
        return number is not None and not math.isfinite(number)

    def check(self, cell: str) -> tuple[str, str] | None:
        """The rule a cell breaks and the remedy, if it breaks one."""
        if not cell:
            if self.required and not self.is_label:
                return "it may not be empty", "Fill it in, or remove the row."
            return None
        self.seen = True
        number = _number(cell)
        if self.type == schema_pb2.BYTES:
            self.typed = self.typed or number is None
        elif number is None or (self.type == schema_pb2.INT and not isinstance(number, int)):
            whole = "a whole number of 64 bits, in digits 0 to 9"
            kind = whole if self.type == schema_pb2.INT else "a number"
            return f"it must be {kind}", "Correct the value, or the column's type in the schema."
        else:
            self.typed = self.typed or self.type == schema_pb2.INT or isinstance(number, float)
            if number < self.low or number > self.high:
                return (
                    f"it must be {self._range()}",
                    "Correct the value, or the column's domain in the schema.",
                )
            if number == MISSING_INTEGER and self.type == schema_pb2.INT:
                return (
                    "it may not be -2^63, which stands for a missing value in serving_columns",
                    "Leave the cell empty if it is missing.",
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

    def _range(self) -> str:
        if math.isinf(self.low) or math.isinf(self.high):
            return f"at most {self.high}" if math.isinf(self.low) else f"at least {self.low}"
        return f"{self.low} to {self.high}"

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
        with path.open("rb") as file:
            content = file.read(MAX_SCHEMA + 1)
        if len(content) > MAX_SCHEMA:
            raise ValueError(f"it has more than {MAX_SCHEMA:,} bytes")
        text_format.Parse(content.decode("utf-8"), schema)
    # The parser lets through what the reading of single numbers and texts raises.
    except (OSError, ValueError, RecursionError, text_format.ParseError) as error:
        raise SchemaError(
            f"{path}: the schema must be a readable TFMD schema as text ({_short(str(error))}). "
            "Check --schema."
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
    """The files that CsvExampleGen will read, which is all that its pattern matches."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        _fail(str(folder), f"the data folder must be a folder, found {what}", "Check --data.")
    if _WILD & set(str(folder)):
        _fail(
            str(folder),
            "the path of a table may hold none of * ? [ ] \\, which stand for other characters",
            "Rename the folder.",
        )
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    for path in tables:
        _check_file(path, folder.resolve())
    if not tables:
        _fail(str(folder), "the data folder must hold a .csv file, found none", "Check --data.")
    return tables


def _check_file(path: Path, root: Path) -> None:
    """Each table must be a file by a name that CsvExampleGen finds, in the data folder itself."""
    where = _printable(str(path))
    if path.suffix != ".csv":
        _fail(where, "a table's name must end in .csv, in small letters", "Rename the file.")
    if path.name.startswith("."):
        _fail(where, "a table may not be hidden, or it is read unseen", "Remove it, or rename it.")
    if path.is_symlink():
        try:
            inside = path.resolve(strict=True).is_relative_to(root)
        except (OSError, RuntimeError):
            inside = False
        if not inside:
            _fail(
                where,
                "links may not lead out of the data folder, or nowhere",
                "Copy the table into the folder in place of the link.",
            )
    if not path.is_file():
        _fail(
            where,
            "what is named like a table must be a file",
            "Move what else there is out of the data folder.",
        )


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


def _check_label_classes(label: _Column, schema: Path) -> None:
    """Class names must be written as the model reads the label: 001 is read as the number 1."""
    if label.type != schema_pb2.INT or not label.classes:
        return
    where = f"the label {label.name!r}, which is of type INT in the schema {schema.name}"
    read = [_number(name) for name in label.classes]
    numbers = [number for number in read if isinstance(number, int)]
    if len(numbers) < len(read):
        raise SchemaError(
            f"--classes must be whole numbers as {where}, got {_some(label.classes)}. Name the "
            "values of the column, or another column with --label."
        )
    if tuple(map(str, numbers)) != label.classes:
        raise SchemaError(
            f"--classes must name the values of {where}, as they are read, without leading zeros, "
            f"got {_some(label.classes)}. Write --classes {' '.join(map(str, numbers))}."
        )


def _check_header(
    file: Path, header: list[str], columns: dict[str, _Column], *, every: bool
) -> None:
    """Check the header.

    Args:
        file: The table.
        header: Its columns.
        columns: Those that matter.
        every: Whether each column must be among these.
    """
    where = f"{file}, row 1"
    if header == [""]:
        _fail(
            where,
            "a CSV file must have a header, found an empty row",
            "Add the header, remove empty rows above it, or remove the file.",
        )
    if header[0].startswith(_BOM) and (every or header[0].removeprefix(_BOM) in columns):
        _fail(
            where, "the file may not start with a byte order mark", "Save it as UTF-8 without one."
        )
    for name in header:
        if set('"\r\0') & set(name):
            _fail(
                f"{where}, column {_short(name)!r}",
                "a header may hold neither quotes nor single carriage returns nor NUL characters",
                "Take them out of the first row, end rows with line feeds, and save as UTF-8.",
            )
    for name in header:
        if header.count(name) > 1 and (every or name in columns):
            _fail(
                f"{where}, column {_short(name)!r}",
                "column names must differ",
                "Rename or remove one.",
            )
    missing = [name for name, column in columns.items() if column.needed and name not in header]
    blank = next((name for name in header if name.strip() in missing), None)
    if blank is not None:
        _fail(
            f"{where}, column {blank!r}",
            f"a name must be as in schema and flags, {blank.strip()!r}, without blanks around it",
            "Separate the names by commas alone.",
        )
    if missing:
        what = "each column of the schema" if every else "each column that a flag uses"
        _fail(
            f"{where}, column {missing[0]!r}",
            f"{what} must be in the file, got {_short(','.join(header))!r}",
            "Add the column; the first row must be the header, with commas between names.",
        )
    extra = [name for name in header if every and name not in columns]
    if extra:
        _fail(
            f"{where}, column {_short(extra[0])!r}",
            "each column must be in the schema",
            "Remove the column, or describe it in the schema.",
        )


def _check_rows(
    file: Path,
    rows: Iterator[tuple[int, list[str]]],
    columns: list[_Column | None],
    unlabelled: _Places,
) -> int:
    """Check rows, count them, and add those without a label; None are columns not to look at."""
    looked = [(i, column) for i, column in enumerate(columns) if column is not None]
    labels = [(i, column) for i, column in looked if column.is_label]
    count = 0
    for line, row in rows:
        if len(row) != len(columns):
            _fail(
                f"{file}, row {line}",
                f"each row must have {len(columns)} cells, got {len(row)}",
                "Add or remove cells; put cells that hold commas in double quotes.",
            )
        for i, column in looked:
            broken = column.check(row[i])
            if broken:
                rule, remedy = broken
                _fail(
                    f"{file}, row {line}, column {column.name!r}",
                    f"{rule}, got {_short(row[i])!r}",
                    remedy,
                )
        if any(column.is_missing(row[i]) for i, column in labels):
            unlabelled.add(file, line)
        count += 1
    return count


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Row number and cells, the header first, cut as CsvExampleGen cuts them.

    It takes the first line for the header, whatever is in it, and parts it at the commas. Then it
    joins lines until their quotes are paired, and has the csv module parse what it joined. Where
    the two do not see the same row, that module asks for the same text again without end. Blank
    lines are passed over.
    """
    row = 1
    try:
        with file.open("rb") as stream:
            yield row, _header(_line(file, row, stream, MAX_ROW))
            parts: list[str] = []
            quotes, room, line = 0, MAX_ROW, 1
            while part := _line(file, row, stream, room):
                line += 1
                row = row if parts else line
                parts.append(part)
                quotes += part.count('"')
                room -= len(part)
                if quotes % 2 == 0:
                    yield from ((row, cells) for cells in _parsed(file, row, "".join(parts)))
                    parts, quotes, room = [], 0, MAX_ROW
            if parts:
                _fail(f"{file}, row {row}", "quotes must be paired, found one alone", _QUOTE)
    except UnicodeDecodeError:
        _fail(f"{file}, below row {row}", "a CSV file must be UTF-8", "Save it as UTF-8.")
    except OSError as error:
        _fail(
            str(file),
            f"a CSV file must be readable ({error.strerror})",
            "Give yourself permission to read it.",
        )


def _line(file: Path, row: int, stream: BinaryIO, room: int) -> str:
    content = stream.readline(room + 1)
    if len(content) > room:
        _fail(
            f"{file}, below row {row}",
            f"a row may have at most {MAX_ROW:,} bytes",
            "Look for a quote without its partner, or for missing line feeds.",
        )
    return content.decode("utf-8")


def _header(line: str) -> list[str]:
    return line.strip().split(",")


def _parsed(file: Path, row: int, record: str) -> Iterator[list[str]]:
    """The cells in a text; none if it is blank."""
    # From Python 3.11 on, the csv module reads it as any other character.
    if "\0" in record:
        _fail(
            f"{file}, row {row}",
            f"a row may hold no NUL characters, got {_short(record)!r}",
            "Save the file as UTF-8, and leave cells without a value empty.",
        )
    try:
        yield from (cells for cells in csv.reader((record,), strict=True) if cells)
    except csv.Error as error:
        rule, remedy = f"a row must be readable ({error})", _QUOTE
        if "limit" in str(error):
            rule = f"a cell may have at most {csv.field_size_limit():,} characters"
            remedy = "Shorten the cell, or look for a quote without its partner."
        _fail(f"{file}, row {row}", f"{rule}, got {_short(record)!r}", remedy)


def _number(cell: str) -> int | float | None:
    """A cell as CsvExampleGen takes it: whole numbers within 64 bits, other numbers, or text."""
    # It looks at bytes, among which the digits of other scripts are none.
    raw = cell.encode()
    try:
        number = int(raw)
    except ValueError:
        try:
            return float(raw)
        except ValueError:
            return None
    return number if number in _INT64 else None


def _some(values: Sequence[str]) -> str:
    shown = ", ".join(map(repr, values[:_SHOWN]))
    return f"{shown} and {len(values) - _SHOWN} more" if len(values) > _SHOWN else shown


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _printable(path: str) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


def _fail(where: str, rule: str, remedy: str) -> NoReturn:
    raise TableError(f"{where}: {rule}. {remedy}")
