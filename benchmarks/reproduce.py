"""`make reproduce`: the published figure on two data sets, as pages in docs/results.

CIFAR-10 is the contest of `benchmarks.contest`, whose finished runs are used; the other, a table,
goes through `plateau compare`, so through the whole pipeline.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks import contest, hardware, plot, report, runs
from benchmarks.settings import ROOT, Settings
from pipeline import presets
from pipeline.compare import run, text
from pipeline.compare.statistics import Comparison
from trainer_module.util import environment

_COMMAND = "make reproduce"


@dataclass(frozen=True)
class ReproduceConfig:
    """Compare the strategies on CIFAR-10 and on a table, and write a page about each.

    Attributes:
        contest: The contest on CIFAR-10; its folder holds the finished runs.
        table_seeds: Runs of each strategy on the table.
        output: Folder of the pages.
    """

    contest: Settings = field(default_factory=lambda: Settings(parts=("contest",)))
    table_seeds: int = 5
    output: Path = ROOT / "docs" / "results"


def main() -> int:
    """Train what is missing and write the pages; non-zero if data is missing."""
    config = tyro.cli(ReproduceConfig, prog="python -m benchmarks.reproduce")
    environment.prepare()
    try:
        cifar10(config)
        table(config)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def cifar10(config: ReproduceConfig) -> Path:
    """The page about CIFAR-10."""
    machine = hardware.describe() | {"note": config.contest.note}
    result, side_by_side = contest.compete(config.contest)
    file = os.path.relpath(config.contest.output / contest.runs_file(), config.output)
    method = result.method.replace(f"({contest.runs_file()})", f"({file})")
    return write(config.output, "cifar10", "CIFAR-10", method, side_by_side, runs.TEST, machine)


def table(config: ReproduceConfig) -> Path:
    """The page about the Chicago taxi trips that come with TFX."""
    machine = hardware.describe() | {"note": config.contest.note}
    preset = run.default(presets.taxi())
    wanted = replace(preset, seeds=config.table_seeds)
    done = run.run(wanted, Console(stderr=True), "plateau compare taxi")
    method = (
        f"The preset taxi as it is ({presets.get('taxi').purpose.rstrip('?')}), by "
        f"`plateau compare taxi --seeds {config.table_seeds}`: each run goes through the whole "
        "pipeline to its evaluation on the test split. Seconds are of training."
    )
    monitor = done.comparison.monitor
    return write(config.output, "taxi", "Chicago taxi", method, done.comparison, monitor, machine)


def write(
    folder: Path,
    name: str,
    title: str,
    method: str,
    comparison: Comparison,
    metric: str,
    machine: Mapping[str, Any],
) -> Path:
    """Write a page and its figure.

    Args:
        folder: Folder of both.
        name: Their name, without suffix.
        title: Heading.
        method: How it was measured.
        comparison: The runs.
        metric: Metric of their epochs that is drawn.
        machine: What it was measured on.

    Returns:
        The page.
    """
    heading = f"{title}: the strategies side by side"
    figure = folder / f"{name}.png"
    plot.draw(comparison, metric, figure, heading)
    words = text.markdown(comparison, heading, _COMMAND)
    verdict, totals, tables = words.partition("## Totals")
    page = folder / f"{name}.md"
    page.write_text(
        f"{verdict}{method}\n\n{report.hardware_line(machine)}\n\n"
        f"![{metric}, update noise and batch of each strategy]({figure.name})\n\n{totals}{tables}"
    )
    print(page)
    return page


if __name__ == "__main__":
    sys.exit(main())
