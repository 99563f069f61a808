"""What `plateau compare` prints: each run's turn, its progress, and the totals at the end."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import comparison_text
from pipeline.comparison import UNITS, Comparison
from pipeline.progress import Progress

_COLOURS = {"good": "bold green", "bad": "bold red", "unknown": "bold yellow"}


class TurnProgress(Progress):
    """Progress that tells of some components only.

    Attributes:
        only: Components to tell of; None for all.
    """

    only: frozenset[str] | None = None

    def _start(self, component: str) -> None:
        if self._told(component):
            super()._start(component)
        else:
            self.component, self._cached = component, False
            self.wait(component)

    def _finish(self) -> None:
        if self._told(self.component):
            super()._finish()
        else:
            self.stop()
            self.component = None

    def _told(self, component: str | None) -> bool:
        return self.only is None or component in self.only


@contextmanager
def shown(console: Console) -> Iterator[TurnProgress]:
    """Print the progress of the pipeline runs within the context."""
    progress = TurnProgress(console)
    root = logging.getLogger()
    root.addHandler(progress)
    progress.wait("loading TensorFlow and TFX")
    try:
        yield progress
    finally:
        progress.stop()
        root.removeHandler(progress)


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
            *(comparison_text.cost(total.costs[unit]) for unit in UNITS),
            comparison_text.share(total.best),
            comparison_text.share(total.test_accuracy),
        ]
        table.add_row(total.strategy, *(c.replace(" ±", "\n±") if narrow else c for c in cells))
        if total is not comparison.totals[0]:
            parts = [f"x {comparison_text.part(total.ratios[unit].value)}" for unit in UNITS]
            table.add_row("", *(Text(part, style="dim") for part in parts))
    verdict = comparison_text.verdict(comparison)
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
