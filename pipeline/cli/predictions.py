"""Console output of `plateau predict`."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from trainer_module.util.text import visible

from ..predict import PredictConfig, Summary
from .console import table

_SHOWN = 10


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[], None]]:
    """Counts examples where the console is a terminal."""
    columns = SpinnerColumn(), TextColumn("{task.completed} examples"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda: bar.advance(task)


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
    if summary.labelled and summary.errors:
        r2, mae = summary.errors.r2(), summary.errors.mae()
        known = f"of the {summary.labelled:,} with a label"
        lines.append(f"r2         {r2:.4f}, mean absolute error {mae:.5g}, {known}")
    elif summary.labelled:
        share = summary.correct / summary.labelled
        lines.append(f"accuracy   {share:.4f}, of the {summary.labelled:,} with a label")
    if summary.converted:
        lines.append(f"converted  {summary.converted:,} to PNG, as for training")
    lines.append(f"model      {summary.model}")
    if config.file is not None:
        lines.append(f"file       {config.file}")
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _table(summary: Summary) -> Table:
    optional = {
        "row": any(each.example.row is not None for each in summary.first),
        "label": summary.labelled > 0,
    }
    extra = [name for name, is_used in optional.items() if is_used]
    top = max(len(each.classes) for each in summary.first)
    answer = ["class", *(f"class {number}" for number in range(2, top + 1))]
    if summary.errors:
        answer = ["prediction"]
    listing = table("", "file", *extra, *answer, numbers=["prediction"])
    for each in summary.first:
        cells = {"row": str(each.example.row), "label": visible(each.example.label or "")}
        best = zip(each.classes, each.probabilities, strict=True)
        words = [f"{visible(name)}  {probability:.4f}" for name, probability in best]
        words = words or [f"{each.number:.6g}"]
        row = visible(str(each.example.source)), *(cells[name] for name in extra), *words
        listing.add_row(*map(Text, row))
    return listing
