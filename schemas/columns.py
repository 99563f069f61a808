"""Inputs of the signature `serving_columns`: valid names, dtypes and missing values."""

import json
import keyword
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

FILE = "assets.extra/columns.json"
"""Below the SavedModel: input names with their columns. Loaders leave that folder alone."""

DATE = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
"""Expression of a date of ISO 8601, such as 2026-01-31 or 2026-01-31T18:30:00Z, for RE2 and `re`. A
time zone is not converted."""

MISSING_INTEGER = -(2**63)
"""What stands for a missing integer: tensors of integers have no NaN."""

MISSING: Mapping[str, str | int] = {"string": "", "float32": "NaN", "int64": MISSING_INTEGER}
"""What stands for a missing value, by dtype; NaN is a text in JSON."""

_NO_NAME = "column"
# TensorFlow passes inputs on as arguments of a method.
_RESERVED = frozenset({"self", *keyword.kwlist})


class Input(NamedTuple):
    """An input of `serving_columns`.

    Attributes:
        column: Column of the table.
        dtype: Name of its dtype.
        missing: What stands for a missing value; None where there must be one.
    """

    column: str
    dtype: str
    missing: str | int | None


def served_names(columns: Iterable[str]) -> dict[str, str]:
    """Returns a name by column that is unique and valid as the input of a signature.

    Valid is what TensorFlow accepts and gives back unchanged: a letter of ASCII, then letters,
    digits and underscores; case alone does not tell names apart. A column with such a name keeps
    it; in others, accents are dropped and what is not a letter or digit becomes an underscore.
    Equal names are numbered.

    Args:
        columns: Different names, in the order of the table.
    """
    columns = list(columns)
    # Those that may stay as they are come first, so that no other takes their name.
    ordered = sorted(columns, key=lambda column: _clean(column) != column)
    taken: set[str] = set()
    names = {}
    for column in ordered:
        stem = name = _clean(column)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        names[column] = name
    return {column: names[column] for column in columns}


def to_json(inputs: Mapping[str, Input]) -> str:
    """Returns the content of `FILE`."""
    values = {name: column._asdict() for name, column in inputs.items()}
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def parse(content: str | bytes) -> dict[str, Input]:
    """Parses the content of `FILE`.

    Raises:
        ValueError: It is not JSON, or no object of such inputs.
    """
    values: Any = json.loads(content)
    try:
        return {str(name): Input(**fields) for name, fields in values.items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"{FILE} must map each input to column, dtype and missing ({error})"
        ) from error


def _clean(column: str) -> str:
    if re.fullmatch("[A-Za-z][A-Za-z0-9_]*", column):
        name = column
    else:
        letters = "".join(map(_letters, column))
        name = re.sub(r"[^A-Za-z0-9_]+", "_", letters).strip("_")
        if not re.match("[A-Za-z]", name):
            name = f"{_NO_NAME}_{name}".rstrip("_")
    return f"{name}_" if name in _RESERVED else name


def _letters(character: str) -> str:
    """The character without its accents; lower case spells out what has none to drop."""
    plain = unicodedata.normalize("NFKD", character)
    if not plain[0].isascii():
        plain = unicodedata.normalize("NFKD", character.casefold())
    return "".join(c for c in plain if not unicodedata.combining(c))
