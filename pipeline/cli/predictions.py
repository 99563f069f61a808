"""Console output of `plateau predict`."""

import contextlib
from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from trainer_module.util.text import visible

from ..predict import PredictConfig, Summary

_SHOWN = 10


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[], None]]:
    """Counts examples where the console is a terminal."""
    columns = SpinnerColumn(), TextColumn("{task.completed} examples"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda: shown.advance(task)


def print_summary(console: Console, summary: Summary, config: PredictConfig) -> None:
    """Prints the first predictions, what could not be predicted, and the accuracy."""
    if summary.first:
        console.print(_table(summary))
    for bad in summary.unreadable[:_SHOWN]:
        place = bad.source if bad.row is None else f"{bad.source}, row {bad.row}"
        line = f"not predicted  {visible(str(place))}: {visible(bad.reason)}"
        console.print(Text(line, style="yellow"), soft_wrap=True)
    lines = [f"predicted  {summary.predicted:,}"]
    if summary.predicted > len(summary.first):
        lines[0] += f", of which {len(summary.first)} are shown"
        if config.file is None:
            lines[0] += "; add --file predictions.csv for all"
    if summary.unreadable:
        lines[0] += f"; {len(summary.unreadable):,} not predicted"
    if summary.labelled:
        share = summary.correct / summary.labelled
        lines.append(f"accuracy   {share:.4f}, of the {summary.labelled:,} with a label")
    if summary.converted:
        lines.append(f"converted  {summary.converted:,} to PNG, as for training")
    lines.append(f"model      {summary.model}")
    if config.file is not None:
        lines.append(f"file       {config.file}")
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _table(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    has_rows = any(each.example.row is not None for each in summary.first)
    has_labels = summary.labelled > 0
    for name, there in (("file", True), ("row", has_rows), ("label", has_labels)):
        if there:
            table.add_column(name, overflow="fold")
    for number in range(1, max(len(each.classes) for each in summary.first) + 1):
        table.add_column("class" if number == 1 else f"class {number}", overflow="fold")
    for classes, probabilities, example in (
        (each.classes, each.probabilities, each.example) for each in summary.first
    ):
        cells = [visible(str(example.source))]
        cells += [str(example.row)] if has_rows else []
        cells += [visible(example.label or "")] if has_labels else []
        for name, probability in zip(classes, probabilities, strict=True):
            cells.append(f"{visible(name)}  {probability:.4f}")
        table.add_row(*map(Text, cells))
    return table
