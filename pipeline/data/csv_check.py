"""CSV check: errors of a table by file, row and column, before a run.

The rules are those by which CsvExampleGen and the schema would stop the run later on, with less to
say about where. Rows are counted from 1, the header, as editors do, and read one at a time. Columns
that no feature uses may hold anything.
"""

import csv
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from tensorflow_metadata.proto.v0 import schema_pb2

from schemas.columns import MISSING_INTEGER
from trainer_module.config import TableFeatures
from trainer_module.util.checks import UserError, require
from trainer_module.util.text import listed

from . import schema as contract

MAX_ROW = 16 * 1024**2
"""Bytes of a row, line breaks in its cells included."""

_INT64 = range(-(2**63), 2**63)
_BOM = "\ufeff"
# Special in the pattern by which CsvExampleGen looks for files.
_WILD = frozenset("*?[]\\")
_LISTED = 20
_QUOTE = (
    "Put double quotes around a whole cell that holds quotes, commas or line breaks, and double "
    "the quotes within; end rows with line feeds."
)


def count_rows(csv_folder: str | os.PathLike[str]) -> int:
    """Returns the number of rows in the CSV files of a folder, without headers; no cell is checked.

    Raises:
        UserError: There is no CSV file, or one that cannot be read.
    """
    return sum(sum(1 for _ in read_rows(file)) - 1 for file in find_files(Path(csv_folder)))


def check_table(
    csv_folder: str | os.PathLike[str],
    schema: str | os.PathLike[str],
    features: TableFeatures,
    classes: Sequence[str] = (),
    on_missing_label: Literal["fail", "skip"] = "fail",
) -> int:
    """Checks the CSV files of a folder against a schema.

    Args:
        csv_folder: Folder with *.csv files, all with the same header.
        schema: TFMD schema as text (.pbtxt).
        features: Columns that the model uses.
        classes: Values the label column may have, where `features` takes it as it stands.
        on_missing_label: Whether rows without a label are an error or left out.

    Returns:
        Number of rows, without headers and rows that are left out.

    Raises:
        UserError: A rule is broken, the schema cannot be read, or does not fit the features.
    """
    folder = Path(csv_folder)
    files = find_files(folder)
    columns = _columns(Path(schema), features, classes)
    header: list[str] = []
    count, unlabelled = 0, 0
    places: list[str] = []
    for file in files:
        rows = read_rows(file)
        _, names = next(rows)
        _check_header(file, names, columns)
        require(
            names == (header or names),
            f"{file}, row 1: all files must have the columns of {files[0].name}",
            ",".join(names),
            "Give them the same header.",
        )
        header = names
        checked = [(i, columns[name]) for i, name in enumerate(header) if name in columns]
        for row, cells in rows:
            count += 1
            if not _check_row(f"{file}, row {row}", cells, len(header), checked):
                unlabelled += 1
                if len(places) < _LISTED:
                    places.append(f"{file.name}:{row}")
    require(count > 0, f"{folder}: a table must have rows below its header", count, "Add data.")
    label = " and ".join(map(repr, features.labels))
    more = f" and {unlabelled - _LISTED:,} more" if unlabelled > _LISTED else ""
    require(
        not unlabelled or on_missing_label == "skip",
        f"{folder}: each row must have a label in the column {label}",
        f"{unlabelled:,} of {count:,} rows without: {', '.join(places)}{more}",
        "Fill it in, or leave these rows out with `on_missing_label=skip`.",
    )
    require(unlabelled < count, f"{folder}: some row must have a label", "none", "Add some.")
    for column in columns.values():
        column.check_type_shows(folder)
    return count - unlabelled


@dataclass
class _Column:
    """A column's rules, and whether a value of its own type has been seen."""

    name: str
    type: int
    required: bool
    is_label: bool
    values: tuple[str, ...]
    # What to do about another value.
    remedy: str = "Correct the value, or add it to the column's domain in the schema."
    low: float = -math.inf
    high: float = math.inf
    seen: bool = field(default=False, init=False)
    typed: bool = field(default=False, init=False)

    def is_missing(self, cell: str) -> bool:
        """Returns whether a cell gives no label."""
        if not cell or self.type == schema_pb2.BYTES:
            return not cell
        number = parse_number(cell)
        return number is not None and not math.isfinite(number)

    def check(self, cell: str) -> tuple[str, str] | None:
        """Returns the rule that a cell breaks, and the remedy; None if it breaks none."""
        if not cell:
            if self.required and not self.is_label:
                return "it may not be empty", "Fill it in, or remove the row."
            return None
        self.seen = True
        number = parse_number(cell)
        is_int = self.type == schema_pb2.INT
        if self.type == schema_pb2.BYTES:
            self.typed = self.typed or number is None
        elif number is None or (is_int and not isinstance(number, int)):
            kind = "a whole number of 64 bits, in digits 0 to 9" if is_int else "a number"
            return f"it must be {kind}", "Correct the value, or the column's type in the schema."
        else:
            self.typed = self.typed or is_int or isinstance(number, float)
            if number < self.low or number > self.high:
                rule = f"it must be at least {self.low} and at most {self.high}"
                return rule, "Correct the value, or the column's domain in the schema."
            if is_int and number == MISSING_INTEGER:
                rule = "it may not be -2^63, which stands for a missing value in serving_columns"
                return rule, "Leave the cell empty if it is missing."
        if self.values and (str(number) if is_int else cell) not in self.values:
            return f"it must be one of {listed(self.values, _LISTED)}", self.remedy
        return None

    def check_type_shows(self, folder: Path) -> None:
        """Raises UserError if no cell shows the type of the column.

        CsvExampleGen takes a column of whole numbers for INT, whatever the schema says.
        """
        what, remedy = "a value that is no number", "Make it INT or FLOAT in the schema."
        if self.type == schema_pb2.FLOAT:
            what = "a number with a point"
            remedy = "Write one value as 1.0 in place of 1, or make it INT in the schema."
        kind = schema_pb2.FeatureType.Name(self.type)
        require(
            self.typed or not self.seen,
            f"{folder}, column {self.name!r}: a column of type {kind} must hold {what}",
            "numbers that are read as another type",
            remedy,
        )


def _columns(path: Path, features: TableFeatures, classes: Sequence[str]) -> dict[str, _Column]:
    """Returns the columns that the features use, by name, with their rules in the schema."""
    schema = contract.read(path)
    known = {feature.name: feature for feature in schema.feature}
    is_ratio = features.label_over is not None
    for use, names, as_number in (
        ("numeric", features.numeric, True),
        ("bucketized", features.bucketized, True),
        ("categorical", features.categorical, False),
        ("label", features.labels[:1], is_ratio),
        ("label_over", features.labels[1:], True),
    ):
        for name in names:
            require(
                name in known,
                f"`{use}` must name columns of the schema {path.name}",
                name,
                f"Choose from {listed(sorted(known), _LISTED)}.",
            )
            require(
                not as_number or known[name].type != schema_pb2.BYTES,
                f"`{use}` must name columns of numbers",
                name,
                f"In the schema {path.name} it is of type BYTES: move it to `categorical`.",
            )
    columns = {}
    for name in (*features.inputs, *features.labels):
        feature = known[name]
        required = feature.presence.min_fraction >= 1 or feature.HasField("shape")
        column = _Column(name, feature.type, required, name in features.labels, ())
        # Where some values may lie outside the domain, no single row is wrong.
        if feature.distribution_constraints.min_domain_mass >= 1:
            column.values = contract.values(schema, feature)
        for domain in (feature.int_domain, feature.float_domain):
            column.low = domain.min if domain.HasField("min") else column.low
            column.high = domain.max if domain.HasField("max") else column.high
        columns[name] = column
    label = columns[features.label]
    # The model compares texts, and a float has many.
    if classes and not is_ratio and label.type != schema_pb2.FLOAT:
        _check_label_classes(label, tuple(classes), path)
        domain = label.values or classes
        label.values = tuple(name for name in classes if name in domain) or tuple(classes)
        label.remedy = "Correct the value, or name all `classes`."
    return columns


def _check_label_classes(label: _Column, classes: tuple[str, ...], schema: Path) -> None:
    """Checks that classes are written as the model reads the label: 001 is read as the number 1."""
    if label.type == schema_pb2.INT:
        numbers = [parse_number(name) for name in classes]
        whole = all(isinstance(number, int) for number in numbers)
        require(
            tuple(map(str, numbers)) == classes,
            "`classes` must be whole numbers without leading zeros, as the label "
            f"{label.name!r} is of type INT in the schema {schema.name}",
            classes,
            f"Name {' '.join(map(str, numbers))}." if whole else "Or name another `label`.",
        )


def find_files(folder: Path) -> list[Path]:
    """Returns the files that CsvExampleGen will read, which is all that its pattern matches.

    Args:
        folder: Folder of the table, or its one file, which is read from a folder of its own.
    """
    if folder.is_file() and folder.suffix == ".csv":
        return [folder]
    what = "a file" if folder.exists() else "nothing"
    require(folder.is_dir(), f"{folder}: the data folder must be a folder", what, "Check its path.")
    require(
        not _WILD & set(str(folder)),
        "the path of a table may hold none of * ? [ ] \\, which stand for other characters",
        str(folder),
        "Rename the folder.",
    )
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    require(bool(tables), f"{folder}: it must hold a .csv file", "none", "Check `data`.")
    for path in tables:
        try:
            is_inside = path.resolve(strict=True).is_relative_to(folder.resolve())
        except (OSError, RuntimeError):
            is_inside = False
        for holds, rule, remedy in (
            (path.suffix == ".csv", "end in .csv, in small letters", "Rename it."),
            (path.name[0] != ".", "not be hidden, or it is read unseen", "Remove or rename it."),
            (is_inside, "lie in the data folder, not behind a link", "Copy it into the folder."),
            (path.is_file(), "be a file", "Move what else there is out of the data folder."),
        ):
            name = os.fsencode(path).decode(errors="backslashreplace")
            require(holds, f"what is named like a table must {rule}", name, remedy)
    return tables


def check_names(file: Path, header: list[str], used: Collection[str] = ()) -> None:
    """Checks the form of a header.

    Args:
        file: The file, for the message.
        header: Names of the columns.
        used: Names that the first column may not hide behind a byte order mark; all if none.

    Raises:
        UserError: It is empty, or holds quotes or other characters that are no parts of names.
    """
    where = f"{file}, row 1"
    names = ",".join(header)
    require(
        header != [""],
        f"{where}: a CSV file must have a header",
        "an empty row",
        "Add the header, remove empty rows above it, or remove the file.",
    )
    require(
        not header[0].startswith(_BOM) or bool(used and header[0].removeprefix(_BOM) not in used),
        f"{where}: the file may not start with a byte order mark",
        header[0],
        "Save it as UTF-8 without one.",
    )
    require(
        not set('"\r\0') & set(names),
        f"{where}: a header may hold neither quotes nor single carriage returns nor NUL "
        "characters, which CsvExampleGen takes for parts of the names",
        names,
        f"For quotes run: sed -i '1s/\"//g' {file.name}. Else end rows with line feeds, and save "
        "as UTF-8.",
    )


def _check_header(file: Path, header: list[str], columns: dict[str, _Column]) -> None:
    check_names(file, header, columns)
    where = f"{file}, row 1"
    names = ",".join(header)
    for name in columns:
        require(
            header.count(name) < 2,
            f"{where}, column {name!r}: column names must differ",
            names,
            "Rename or remove one.",
        )
        require(
            name in header or name not in map(str.strip, header),
            f"{where}, column {name!r}: names may have no blanks around them",
            names,
            "Separate the names by commas alone.",
        )
        require(
            name in header,
            f"{where}, column {name!r}: each column that a feature uses must be in the file",
            names,
            "Add the column; the first row must be the header, with commas between names.",
        )


def check_size(where: str, cells: list[str], size: int) -> None:
    """Raises UserError unless a row has as many cells as the header."""
    if len(cells) != size:
        remedy = "Add or remove cells; put cells that hold commas in double quotes."
        raise UserError(f"{where}: each row must have {size} cells", len(cells), remedy)


def _check_row(
    where: str, cells: list[str], size: int, columns: Sequence[tuple[int, _Column]]
) -> bool:
    """Checks a row, and returns whether it has a label."""
    check_size(where, cells, size)
    has_label = True
    for i, column in columns:
        cell = cells[i]
        if broken := column.check(cell):
            raise UserError(f"{where}, column {column.name!r}: {broken[0]}", cell, broken[1])
        if column.is_label and column.is_missing(cell):
            has_label = False
    return has_label


def read_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields row number and cells, the header first, cut as CsvExampleGen cuts them.

    It takes the first line for the header, whatever is in it, and parts it at the commas. Then it
    joins lines until their quotes are paired, and has the csv module parse what it joined. Where
    the two do not see the same row, that module asks for the same text again without end. Blank
    lines are passed over.
    """
    row = 1
    try:
        with file.open("rb") as stream:
            yield row, _line(file, row, stream, MAX_ROW).strip().split(",")
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
            require(not parts, f"{file}, row {row}: quotes must be paired", "one alone", _QUOTE)
    except UnicodeDecodeError as error:
        rule = f"{file}, at or below row {row}: a CSV file must be UTF-8"
        raise UserError(rule, error.object[error.start : error.end], "Save it as UTF-8.") from None
    except OSError as error:
        rule, remedy = (
            f"{file}: a CSV file must be readable",
            "Give yourself permission to read it.",
        )
        raise UserError(rule, error.strerror, remedy) from error


def _line(file: Path, row: int, stream: BinaryIO, room: int) -> str:
    content = stream.readline(room + 1)
    require(
        len(content) <= room,
        f"{file}, below row {row}: a row may have at most {MAX_ROW:,} bytes",
        "more",
        "Look for a quote without its partner, or for missing line feeds.",
    )
    return content.decode("utf-8")


def _parsed(file: Path, row: int, record: str) -> Iterator[list[str]]:
    """Yields the cells in a text; nothing if it is blank."""
    rule, remedy = "", _QUOTE
    # From Python 3.11 on, the csv module reads it as any other character.
    if "\0" in record:
        rule = "a row may hold no NUL characters"
        remedy = "Save the file as UTF-8, and leave cells without a value empty."
    try:
        if not rule:
            yield from (cells for cells in csv.reader((record,), strict=True) if cells)
    except csv.Error as error:
        rule = f"a row must be readable ({error})"
        if "limit" in str(error):
            rule = f"a cell may have at most {csv.field_size_limit():,} characters"
            remedy = "Shorten the cell, or look for a quote without its partner."
    if rule:
        raise UserError(f"{file}, row {row}: {rule}", record, remedy)


def parse_number(cell: str) -> int | float | None:
    """Returns a cell as CsvExampleGen takes it: an int of 64 bits, a float, or None for text."""
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
