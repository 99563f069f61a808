"""`make reproduce`: the published figure on CIFAR-10 and on a table, as pages in docs/results."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks import plot, report, schedules, tables
from benchmarks.settings import ROOT, Settings
from pipeline import presets
from pipeline.compare import run
from pipeline.compare.statistics import Comparison
from trainer_module.util import environment


@dataclass(frozen=True)
class ReproduceConfig:
    """Compares the strategies on CIFAR-10 and on a table, and writes a page about each."""

    contest: Settings = field(default_factory=lambda: Settings(parts=("contest",)))
    """The contest on CIFAR-10; its folder holds the finished runs."""
    table_seeds: int = 5
    """Runs of each strategy on the table."""
    output: Path = ROOT / "docs" / "results"
    """Folder of the pages."""


def main() -> int:
    """Trains what is missing and writes the pages; 1 if data is missing."""
    config = tyro.cli(ReproduceConfig, prog="python -m benchmarks.reproduce")
    environment.prepare()
    machine = report.machine() | {"note": config.contest.note}
    try:
        result, comparison = schedules.compete(config.contest)
        runs = os.path.relpath(config.contest.output / "contest-runs.jsonl", config.output)
        method = result.method.replace("(contest-runs.jsonl)", f"({runs})")
        write(config.output / "cifar10.md", "CIFAR-10", method, comparison, machine)

        settings = replace(run.default(presets.taxi()), seeds=config.table_seeds)
        comparison = run.run(settings, Console(stderr=True), "plateau compare taxi").comparison
        method = (
            f"`plateau compare taxi --seeds {config.table_seeds}`: the preset taxi as it is. Each "
            "run goes through the pipeline to its evaluation on the test split. Seconds are of "
            "training."
        )
        write(config.output / "taxi.md", "Chicago taxi", method, comparison, machine)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def write(
    page: Path, title: str, method: str, comparison: Comparison, machine: Mapping[str, Any]
) -> None:
    """Writes a page about a comparison, and its figure beside it."""
    heading = f"{title}: the strategies side by side"
    figure = page.with_suffix(".png")
    plot.draw(comparison, figure, heading)
    verdict, totals, rest = tables.markdown(comparison, heading, "make reproduce").partition(
        "## Totals"
    )
    page.write_text(
        f"{verdict}{method}\n\n{report.hardware_line(machine)}\n\n"
        f"![{comparison.monitor}, noise scale and batch of each strategy]({figure.name})\n\n"
        f"{totals}{rest}"
    )
    print(page)


if __name__ == "__main__":
    sys.exit(main())
