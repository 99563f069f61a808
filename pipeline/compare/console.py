"""What `plateau compare` prints: each run's turn, and the totals at the end."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import text
from .statistics import UNITS, Comparison

_COLOURS = {"good": "bold green", "bad": "bold red", "unknown": "bold yellow"}


def print_turn(console: Console, number: int, of: int, strategy: str, seed: int) -> None:
    """Say which run comes now."""
    console.print(f"\n[bold]{strategy}, seed {seed}[/]  [dim]run {number} of {of}[/]")


def print_comparison(
    console: Console, comparison: Comparison, page: Path, log: Path, seconds: float
) -> None:
    """Print the totals, the verdict, and where everything is."""
    seeds = len(comparison.seeds)
    # On a narrow console a mean and its spread take a line each.
    narrow = console.width < 112
    table = Table(
        title="Comparison"
        + (f" (mean ± standard deviation of {seeds} seeds)" if seeds > 1 else ""),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    table.add_column("strategy", no_wrap=True)
    for name in (*UNITS, f"best {comparison.monitor}", "test accuracy"):
        table.add_column(name, justify="right")
    for total in comparison.totals:
        cells = [
            *(text.cost(total.costs[unit]) for unit in UNITS),
            text.share(total.best),
            text.share(total.test_accuracy),
        ]
        table.add_row(total.strategy, *(c.replace(" ±", "\n±") if narrow else c for c in cells))
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
    places = {
        "report": page,
        "tables": page.with_suffix(".md"),
        "log": log,
        "time": f"{seconds:.1f} s",
    }
    # A path that is broken over lines cannot be copied.
    for name, place in places.items():
        console.print(Text(f"{name:6} {place}"), soft_wrap=True)
