"""CSV dialects: rows of tables, whatever program wrote them.

Spreadsheets and statistics programs write semicolons or tabs, decimal commas, UTF-16, and words
such as NA for missing values. Rows are read as they are meant.
"""

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from trainer_module.util.checks import UserError, require

MAX_ROW = 16 * 1024**2
"""Characters of a line."""

MISSING = frozenset(
    "#N/A #NA -NaN -nan <NA> N/A NA NULL NaN None n/a nan null ? -".split()  # noqa: SIM905
)
"""Words that stand for a missing number: those of pandas, and those of UCI's and other archives."""

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SAMPLE_BYTES, _SAMPLE_ROWS = 2**18, 500
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+|[+-]?[0-9]{1,3}(\.[0-9]{3})+(,[0-9]+)?")
_DECIMAL_POINT = re.compile(r"[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?")
_QUOTE = (
    "Put double quotes around a whole cell that holds quotes, delimiters or line breaks, and "
    "double the quotes within."
)


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    encoding: str = "utf-8-sig"
    """Encoding by its name in Python; that of UTF-8 passes over a byte order mark."""
    delimiter: str = ","
    """Character between cells."""
    has_decimal_comma: bool = False
    """Whether 1.234,5 stands for 1234.5."""

    def __str__(self) -> str:
        """What is not as in most CSV files, in words; empty where nothing is."""
        words = [
            (self.delimiter != ",", f"{_DELIMITERS[self.delimiter]} between cells"),
            (self.has_decimal_comma, "decimal commas"),
            (self.encoding != "utf-8-sig", self.encoding.upper()),
        ]
        return ", ".join(word for holds, word in words if holds)

    def number(self, cell: str) -> str:
        """Returns a cell with a decimal point, if it is a number with a decimal comma."""
        if self.has_decimal_comma and _DECIMAL_COMMA.fullmatch(cell):
            return cell.replace(".", "").replace(",", ".")
        return cell


def detect(file: Path) -> Dialect:
    """Returns the dialect of a file, judged by its first rows.

    The delimiter is the one with which most rows have as many cells as the header, and with which
    the fewest cells hold another delimiter.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(_SAMPLE_BYTES)
    except OSError as error:
        raise _unreadable(file, error) from error
    encoding = _encoding(start)
    text = start.decode(encoding, "ignore")
    # The last row may be cut.
    whole = text if len(start) < _SAMPLE_BYTES else text[: text.rfind("\n") + 1] or text
    parsed = {each: _parse(whole, each) for each in _DELIMITERS}
    delimiter = max(parsed, key=lambda each: _fit(parsed[each], each))
    cells = list(itertools.chain(*parsed[delimiter][1:]))
    has_decimal_comma = (
        delimiter != ","
        and any("," in cell and _DECIMAL_COMMA.fullmatch(cell) for cell in cells)
        and not any(
            _DECIMAL_POINT.fullmatch(cell) and not _DECIMAL_COMMA.fullmatch(cell) for cell in cells
        )
    )
    return Dialect(encoding, delimiter, has_decimal_comma)


def read(file: Path, dialect: Dialect | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yields row number and cells, the header first. Rows count from 1 as in an editor.

    Blanks around names, and before cells, are no part of them. Blank lines are passed over.

    Args:
        file: The file.
        dialect: How it is written; detected if not given.

    Raises:
        UserError: It cannot be read, is not encoded as it seems, or its quotes do not match.
    """
    dialect = dialect or detect(file)
    row = 1
    try:
        with file.open(encoding=dialect.encoding, newline="") as stream:
            lines = _lines(file, stream)
            reader = csv.reader(
                lines, delimiter=dialect.delimiter, skipinitialspace=True, strict=True
            )
            header = True
            for cells in reader:
                # A last cell without its closing quote ends with the file.
                if header and any(cells):
                    yield row, [name.strip() for name in cells]
                    header = False
                elif cells:
                    yield row, [dialect.number(cell) for cell in cells]
                row = reader.line_num + 1
    except UnicodeError as error:
        raise UserError(
            f"{file}, at or below row {row}: a CSV file must be UTF-8 or UTF-16",
            str(error),
            "Save it as UTF-8; what Windows wrote, with `iconv -f WINDOWS-1252 -t UTF-8 "
            f"{file.name} > utf8.csv`.",
        ) from None
    except csv.Error as error:
        rule, remedy = f"a row must be readable ({error})", _QUOTE
        if "limit" in str(error):
            rule = f"a cell may have at most {csv.field_size_limit():,} characters"
            remedy = "Shorten the cell, or look for a quote without its partner."
        raise UserError(f"{file}, row {row}: {rule}", "another row", remedy) from error
    except OSError as error:
        raise _unreadable(file, error) from error


def _lines(file: Path, stream: TextIO) -> Iterator[str]:
    for row in itertools.count(1):
        line = stream.readline(MAX_ROW + 1)
        if not line:
            return
        require(
            len(line) <= MAX_ROW,
            f"{file}, row {row}: a line may have at most {MAX_ROW:,} characters",
            "more",
            "Look for missing line feeds.",
        )
        # From Python 3.11 on, the csv module reads it as any other character.
        require(
            "\0" not in line,
            f"{file}, row {row}: a row may hold no NUL characters",
            line,
            "Save the file as UTF-8, and leave cells without a value empty.",
        )
        yield line


def _unreadable(file: Path, error: OSError) -> UserError:
    return UserError(
        f"{file}: a CSV file must be readable",
        error.strerror,
        "Give yourself permission to read it.",
    )


def _encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Of most alphabets, one of the two bytes of a character is 0.
    for encoding, zeros, others in (
        ("utf-16-le", start[1::2], start[::2]),
        ("utf-16-be", start[::2], start[1::2]),
    ):
        if zeros.count(0) > len(zeros) / 2 and others.count(0) < len(others) / 100:
            return encoding
    return "utf-8-sig"


def _parse(text: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = list(itertools.islice(reader, _SAMPLE_ROWS))
    except csv.Error:
        return []
    return [row for row in rows if row]


def _fit(rows: list[list[str]], delimiter: str) -> tuple[float, float, int]:
    """Returns how well a delimiter fits, to be compared."""
    width = len(rows[0]) if rows else 0
    if width < 2:
        return (0.0, 0.0, 0)
    others = set(_DELIMITERS) - {delimiter}
    cells = list(itertools.chain(*rows))
    clean = sum(not others & set(cell) or bool(_DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    return (sum(len(row) == width for row in rows) / len(rows), clean / len(cells), width)
