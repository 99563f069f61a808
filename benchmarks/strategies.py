"""Strategies on data of your own, by `plateau compare`: what the default strategy is chosen by."""

import json
import shlex
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import child, photos, report
from benchmarks.boosting import BoostingConfig
from benchmarks.settings import ROOT
from pipeline.compare import text
from pipeline.compare.statistics import Spread
from trainer_module.schedule.strategy import ACTIONS
from trainer_module.util import environment

DATA = {
    "diamonds": "--data tables/diamonds.csv --label cut --seeds 3",
    "5,000 images of CIFAR-10": "--data images --seeds 1",
}
"""Flags of each data set."""


@dataclass(frozen=True)
class StrategiesConfig:
    """Compares the strategies on a table and on images, and writes a page."""

    tables: Path = BoostingConfig.data
    """Archive of the tables, tables/NAME.csv."""
    images: Path = photos.PhotosConfig.data
    """Archive of CIFAR-10 as images."""
    output: Path = ROOT / "docs" / "results" / "strategies.md"
    """The page."""
    note: str = ""
    """Remark about the machine, for readers of the page."""


def main() -> int:
    """Compares the strategies and writes the page; 1 if data is missing or a run fails."""
    config = tyro.cli(StrategiesConfig, prog="python -m benchmarks.strategies")
    environment.prepare()
    machine = report.machine() | {"note": config.note}
    sections: list[str] = []
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with tarfile.open(config.tables) as archive:
                archive.extractall(folder, filter="data")
            photos.extract(photos.PhotosConfig(data=config.images), folder / "images")
            for title, flags in DATA.items():
                print(f"{title} ...", file=sys.stderr, flush=True)
                command = f"compare {flags} --output {len(sections)}"
                child.run("pipeline.cli", shlex.split(command), title, cwd=folder)
                compared = folder / str(len(sections)) / "comparison" / "comparison.json"
                sections.append(section(title, command, json.loads(compared.read_text())))
                # What has been measured stays if a later run fails.
                config.output.write_text(page(sections, machine))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(config.output)
    return 0


def section(title: str, command: str, compared: Mapping[str, Any]) -> str:
    """Returns what the page says of a data set.

    Args:
        title: Its name.
        command: The command that compared the strategies on it.
        compared: The comparison, as `plateau compare` writes it.
    """
    (measure,) = {key for key in compared["totals"][0] if key.endswith("_difference")}
    measure = measure.removesuffix("_difference")
    names = ("epochs", "updates", "seconds", "seconds by seed", measure.replace("_", " "))
    rows = {
        total["strategy"]: [
            f"{total['epochs']['mean']:.1f}",
            *(f"{total['ratios'][unit]['value']:.2f}" for unit in ("updates", "seconds")),
            "{low:.2f} to {high:.2f}".format_map(total["ratios"]["seconds"]),
            text.share(Spread(tuple(total[measure]["values"]))),
        ]
        for total in compared["totals"]
    }
    parts = [
        f"## {title}",
        f"`plateau {command}`",
        report.columns("strategy", names, rows),
        f"Updates and seconds are relative to {compared['strategies'][0]}. {_of_auto(compared)}",
    ]
    return "\n\n".join(parts)


def page(sections: list[str], machine: dict[str, Any]) -> str:
    """Returns the page."""
    parts = [
        "# Strategies on data of your own",
        "`plateau compare` with no other flag, each strategy from the same seeds: learning rate, "
        "batch and model are those of `plateau run`. Seconds are of training, without the first "
        "epoch; those of `auto` include its measurements.",
        report.hardware_line(machine),
        *sections,
        "## Repeat\n\n    python -m benchmarks.strategies",
    ]
    return "\n\n".join(parts) + "\n"


def _of_auto(compared: Mapping[str, Any]) -> str:
    """Returns what auto did, and which gains it measured."""
    runs = [run for run in compared["runs"] if run["strategy"] == "auto"]
    records = [epoch for run in runs for epoch in run["epochs"]]
    counts = Counter(r["action"] for r in records if r["action"] not in ("none", "stop"))
    done = ", ".join(f"{ACTIONS[action]} {count} times" for action, count in counts.items())
    gains = [
        r["reason"].rpartition("(")[2].split()[0] for r in records if "examples/s" in r["reason"]
    ]
    measured = f"; throughput gains measured: {', '.join(gains)}" if gains else ""
    return f"`auto`, in {len(runs)} run{'s' * (len(runs) > 1)}: {done or 'no action'}{measured}."


if __name__ == "__main__":
    sys.exit(main())
