"""Console output of `plateau compare`: each run's turn, and the totals at the end."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import text
from .statistics import UNITS, Comparison

_COLOURS = {"good": "bold green", "bad": "bold red", "unknown": "bold yellow"}


def print_turn(console: Console, number: int, of: int, strategy: str, seed: int) -> None:
    """Prints which run comes now."""
    console.print(f"\n[bold]{strategy}, seed {seed}[/]  [dim]run {number} of {of}[/]")


def print_comparison(
    console: Console, comparison: Comparison, page: Path, log: Path, seconds: float
) -> None:
    """Prints the totals, the verdict, and the paths of report and log."""
    seeds = len(comparison.seeds)
    spread = f" (mean ± standard deviation of {seeds} seeds)" if seeds > 1 else ""
    table = Table(
        title=f"Comparison{spread}", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False
    )
    for place, name in enumerate(text.totals_head(comparison)):
        table.add_column(name, justify="right" if place else "left", no_wrap=not place)
    # On a narrow console a mean and its spread take a line each.
    between = "\n±" if console.width < 112 else " ±"
    for total in comparison.totals:
        table.add_row(*(cell.replace(" ±", between) for cell in text.totals_row(total)))
        if total is not comparison.totals[0]:
            parts = [f"x {text.part(total.ratios[unit].value)}" for unit in UNITS]
            table.add_row("", *(Text(part, style="dim") for part in parts))
    verdict = text.verdict(comparison)
    console.print(Text(), table)
    console.print(Text(f"\n{verdict.headline}.", style=_COLOURS[verdict.kind]))
    for sentence in verdict.sentences:
        console.print(Text(f"- {sentence}"))
    if verdict.caution:
        console.print(Text(verdict.caution, style="yellow"))
    rows = {
        "report": page,
        "log": log,
        "time": f"{seconds:.1f} s",
    }
    # A path that is broken over lines cannot be copied.
    for name, value in rows.items():
        console.print(Text(f"{name:6} {value}"), soft_wrap=True)
