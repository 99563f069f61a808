"""`plateau schema`, and the console output of a table's columns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from trainer_module.util import files
from trainer_module.util.checks import require
from trainer_module.util.text import visible

from ..data import inference
from ..data.inference import Table, Task
from . import console

_LISTED = 8


@dataclass(frozen=True)
class SchemaConfig:
    """Configuration of `plateau schema`."""

    data: Annotated[Path, tyro.conf.Positional]
    """CSV file, or folder of CSV files."""
    label: str | None = None
    """Column to predict; the values of a classification become the classes."""
    task: Task | None = None
    """What to predict, where it is not what the label's values suggest."""
    file: Path | None = None
    """Where to write the schema (.pbtxt); if not given, beside the data under its name."""


def write_schema(config: SchemaConfig, out: Console) -> None:
    """Infers the schema of a table, prints the columns, and writes it.

    Raises:
        UserError: The data is no table, or cannot be used; or the file exists.
    """
    data = config.data.expanduser()
    require(
        inference.is_table(data),
        "`plateau schema` takes a .csv file, or a folder that holds .csv files",
        str(data),
        "Check its path.",
    )
    file = config.file or data.with_suffix(".pbtxt")
    require(not file.exists(), "the schema's file must be new", str(file), "Name another `file`.")
    table = inference.infer(data, config.label, config.task)
    print_columns(out, table)
    with files.atomic(file) as temporary:
        temporary.write_text(table.schema, "utf-8")
    out.print(f"schema {file}", soft_wrap=True)


def print_columns(out: Console, table: Table) -> None:
    """Prints what is made of each column."""
    listing = console.table(
        f"{table.rows:,} rows{table.dialect and f' ({table.dialect})'}",
        "column",
        "use",
        "type",
        "missing",
        "values",
        "",
        numbers=("missing", "values"),
    )
    for column in table.columns:
        classes = visible(", ".join(table.classes[:_LISTED]))
        more = ", ..." if len(table.classes) > _LISTED else ""
        note = column.why
        if column.use == "label":
            note = f"classes {classes}{more}" if table.classes else f"a number. {note}".rstrip(". ")
        listing.add_row(
            escape(visible(column.name)),
            column.use,
            column.kind,
            f"{column.missing:,}" if column.missing else "",
            f"{column.values:,}",
            escape(note),
            style="dim" if column.use == "left out" else "",
        )
    out.print(listing)
