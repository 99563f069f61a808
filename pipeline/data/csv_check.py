"""CSV check: errors of a table by file, row and column, before a run.

The rules are those by which CsvExampleGen and the schema would stop the run later on, with less to
say about where. Rows are read one at a time, in the dialect of their file (`dialect`), and the
columns that the features use are written anew, as CsvExampleGen reads them. Other columns may hold
anything.
"""

import contextlib
import csv
import math
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal, TypeGuard

from tensorflow_metadata.proto.v0 import schema_pb2

from schemas.columns import DATE, MISSING_INTEGER
from trainer_module.config import TableFeatures
from trainer_module.util.checks import UserError, require
from trainer_module.util.text import listed

from . import dialect
from . import schema as contract

_INT64 = range(-(2**63), 2**63)
# Special in the pattern by which CsvExampleGen looks for files.
_WILD = frozenset("*?[]\\")
# What CsvExampleGen takes for parts of a header.
_DATE = re.compile(DATE)
_UNNAMED = frozenset(',"\r\n')
_LISTED = 20


def count_rows(csv_folder: str | os.PathLike[str]) -> int:
    """Returns the number of rows in the CSV files of a folder, without headers; no cell is checked.

    Raises:
        UserError: There is no CSV file, or one that cannot be read.
    """
    files = find_files(Path(csv_folder))
    return sum(max(0, sum(1 for _ in dialect.read(file)) - 1) for file in files)


def check_table(
    csv_folder: str | os.PathLike[str],
    schema: str | os.PathLike[str],
    features: TableFeatures,
    classes: Sequence[str] = (),
    on_missing_label: Literal["fail", "skip"] = "fail",
    copy: Path | None = None,
) -> int:
    """Checks the CSV files of a folder against a schema, and writes them for CsvExampleGen.

    Args:
        csv_folder: Folder with *.csv files, all with the same header; or one file.
        schema: TFMD schema as text (.pbtxt).
        features: Columns that the model uses.
        classes: Values the label column may have, where `features` takes it as it stands.
        on_missing_label: Whether rows without a label are an error or left out.
        copy: Folder for the files with the columns that are used; replaced if there is one, and
            not written if it is not given.

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
    with _folder(copy) as target:
        for file in files:
            rows = dialect.read(file)
            names = take_header(file, rows, columns)
            require(
                names == (header or names),
                f"{file}, row 1: all files must have the columns of {files[0].name}",
                ",".join(names),
                "Give them the same header.",
            )
            header = names
            checked = [(i, columns[name]) for i, name in enumerate(header) if name in columns]
            with _writer(target and target / f"{file.stem}.csv") as write:
                write([column.name for _, column in checked])
                for row, cells in rows:
                    count += 1
                    values = _check_row(f"{file}, row {row}", cells, len(header), checked)
                    write(values)
                    if any(
                        column.is_label and column.is_missing(value)
                        for value, (_, column) in zip(values, checked, strict=True)
                    ):
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
    # What to do about a value beyond them.
    remedy_of_range: str = "Correct the value, or the column's domain in the schema."
    seen: bool = field(default=False, init=False)
    typed: bool = field(default=False, init=False)
    is_date: bool = field(default=False, init=False)

    def is_missing(self, cell: str) -> bool:
        """Returns whether a cell gives no label."""
        if not cell or self.type == schema_pb2.BYTES:
            return not cell
        number = parse_number(cell)
        return number is not None and not math.isfinite(number)

    def standard(self, cell: str) -> str:
        """Returns a cell in the form in which CsvExampleGen reads it as of this type."""
        if self.type == schema_pb2.BYTES:
            return cell
        cell = cell.strip()
        if cell in dialect.MISSING:
            return ""
        # CsvExampleGen takes a column of whole numbers for INT, whatever the schema says.
        if self.type == schema_pb2.FLOAT and isinstance(parse_number(cell), int):
            return f"{cell}.0"
        # As 3.0, pandas writes whole numbers of a column in which some are missing.
        if self.type == schema_pb2.INT and not cell.isdigit():
            return as_whole(cell)
        return cell

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
            if self.is_date and not is_date(cell):
                rule = "it must be a date such as 2026-01-31 or 2026-01-31T18:30:00"
                return rule, "Correct the value, or empty the cell if it is missing."
        elif number is None or (is_int and not isinstance(number, int)):
            kind = "a whole number of 64 bits, in digits 0 to 9" if is_int else "a number"
            return f"it must be {kind}", "Correct the value, or the column's type in the schema."
        else:
            if number < self.low or number > self.high:
                rule = f"it must be at least {self.low} and at most {self.high}"
                return rule, self.remedy_of_range
            if is_int and number == MISSING_INTEGER:
                rule = "it may not be -2^63, which stands for a missing value in serving_columns"
                return rule, "Leave the cell empty if it is missing."
        is_text = self.type == schema_pb2.BYTES
        if self.values and (cell if is_text else as_whole(cell)) not in self.values:
            return f"it must be one of {listed(self.values, _LISTED)}", self.remedy
        return None

    def check_type_shows(self, folder: Path) -> None:
        """Raises UserError if the column is text and all its cells are numbers.

        CsvExampleGen takes it for one of numbers, whatever the schema says.
        """
        require(
            self.typed or not self.seen or self.type != schema_pb2.BYTES,
            f"{folder}, column {self.name!r}: a column of type BYTES must hold a value that is no "
            "number",
            "numbers",
            "Make it INT or FLOAT in the schema.",
        )


def _columns(path: Path, features: TableFeatures, classes: Sequence[str]) -> dict[str, _Column]:
    """Returns the columns that the features use, by name, with their rules in the schema."""
    schema = contract.read(path)
    known = {feature.name: feature for feature in schema.feature}
    is_ratio = features.label_over is not None
    is_number = is_ratio or features.task == "regression"
    for use, names, as_number in (
        ("numeric", features.numeric, True),
        ("bucketized", features.bucketized, True),
        ("categorical", features.categorical, False),
        ("dates", features.dates, False),
        ("label", features.labels[:1], is_number),
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
        column.is_date = name in features.dates
        require(
            not column.is_date or feature.type == schema_pb2.BYTES,
            "`dates` must name columns of text",
            name,
            f"In the schema {path.name} it is a number: move it to `numeric`.",
        )
        # Where some values may lie outside the domain, no single row is wrong.
        if feature.distribution_constraints.min_domain_mass >= 1:
            column.values = contract.values(schema, feature)
        for domain in (feature.int_domain, feature.float_domain):
            column.low = domain.min if domain.HasField("min") else column.low
            column.high = domain.max if domain.HasField("max") else column.high
        columns[name] = column
    label = columns[features.label]
    if features.label_scale == "log" and label.low < 0:
        label.low = 0.0
        label.remedy_of_range = "Correct the value, or leave out `label_scale=log`."
    if classes and not is_ratio:
        _check_label_classes(label, tuple(classes), path)
        domain = label.values or classes
        label.values = tuple(name for name in classes if name in domain) or tuple(classes)
        label.remedy = "Correct the value, or name all `classes`."
    return columns


def _check_label_classes(label: _Column, classes: tuple[str, ...], schema: Path) -> None:
    """Checks that classes are written as the model reads the label: 001 is read as the number 1."""
    if label.type != schema_pb2.BYTES:
        written = tuple(map(as_whole, classes))
        whole = all(isinstance(parse_number(name), int) for name in written)
        require(
            written == classes and whole,
            "`classes` must be whole numbers without leading zeros, as the label "
            f"{label.name!r} is of type {schema_pb2.FeatureType.Name(label.type)} in the schema "
            f"{schema.name}",
            classes,
            f"Name {' '.join(written)}." if whole else "Or name another `label`.",
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


def header(data: Path) -> list[str]:
    """Returns the names of a table's columns.

    Args:
        data: CSV file, or folder of CSV files.

    Raises:
        UserError: There is no file that can be read.
    """
    file = find_files(data)[0]
    return take_header(file, dialect.read(file))


def take_header(
    file: Path, rows: Iterator[tuple[int, list[str]]], columns: Collection[str] = ()
) -> list[str]:
    """Returns the names in the first of the rows; each of the columns must be there, once."""
    where = f"{file}, row 1"
    _, names = next(rows, (1, []))
    shown = ",".join(names)
    require(bool(names), f"{where}: a CSV file must have a header", "nothing", "Add the header.")
    missing = [name for name in columns if name not in names]
    require(
        not missing,
        f"{where}: each column that is used must be in the file",
        f"{shown} without {', '.join(missing)}",
        "Add the columns, or rename some; the first row must be the header.",
    )
    twice = [name for name in columns if names.count(name) > 1]
    require(not twice, f"{where}: column names must differ", twice, "Rename or remove some.")
    unnamed = [name for name in columns if _UNNAMED & set(name)]
    require(
        not unnamed,
        f"{where}: names of columns may hold no commas, quotes or line breaks, by which "
        "CsvExampleGen cuts a header",
        unnamed,
        "Rename them.",
    )
    return names


def check_size(where: str, cells: list[str], size: int) -> None:
    """Raises UserError unless a row has as many cells as the header."""
    if len(cells) != size:
        remedy = "Add or remove cells; put cells that hold the delimiter in double quotes."
        raise UserError(f"{where}: each row must have {size} cells", len(cells), remedy)


def _check_row(
    where: str, cells: list[str], size: int, columns: Sequence[tuple[int, _Column]]
) -> list[str]:
    """Checks a row, and returns the cells of the columns as they are written."""
    check_size(where, cells, size)
    values = []
    for i, column in columns:
        value = column.standard(cells[i])
        if broken := column.check(value):
            raise UserError(f"{where}, column {column.name!r}: {broken[0]}", value, broken[1])
        values.append(value)
    return values


@contextlib.contextmanager
def _folder(folder: Path | None) -> Iterator[Path | None]:
    """Yields a new folder, which takes the place of `folder` where no error is raised."""
    if folder is None:
        yield None
        return
    require(
        not _WILD & set(str(folder)),
        "the path of a run on a table may hold none of * ? [ ] \\, which stand for other "
        "characters",
        str(folder),
        "Name another `output`.",
    )
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _writer(file: Path | None) -> Iterator[Callable[[list[str]], object]]:
    """Opens a file for rows as CsvExampleGen reads them."""
    if file is None:
        yield lambda cells: None
        return
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        yield table.writerow
    # TFX tells the contents of files apart by size and by seconds of the time of change.
    checksum = 0
    with file.open("rb") as content:
        for block in iter(lambda: content.read(2**20), b""):
            checksum = zlib.crc32(block, checksum)
    os.utime(file, (checksum, checksum))


def is_date(cell: str) -> bool:
    """Returns whether a cell is a date as the model reads it."""
    if not _DATE.fullmatch(cell):
        return False
    try:
        date.fromisoformat(cell[:10])
    # The 31st of February.
    except ValueError:
        return False
    return True


def as_whole(cell: str) -> str:
    """Returns a cell with a whole number, 1.0 or 01, as the model reads it, 1; others as is."""
    number = parse_number(cell)
    return str(int(number)) if is_whole(number) else cell


def is_whole(number: float | None) -> TypeGuard[float]:
    """Returns whether a number is an int of 64 bits, such as 3 or 3.0."""
    return number is not None and float(number).is_integer() and int(number) in _INT64


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
