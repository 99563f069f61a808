"""`python -m benchmarks [PART ...] [--quick]`: measures and writes results."""

import importlib
import sys
import time
import warnings
from dataclasses import replace
from logging import getLogger

import tyro
from absl import logging

from benchmarks import report
from benchmarks.settings import ROOT, Settings
from trainer_module.util import environment

_FUNCTIONS = {
    "contest": "schedules.contest",
    "full": "schedules.full",
    "precision": "schedules.precision",
}


def main() -> int:
    """Measures each part, prints its table and writes the results; 1 if data is missing."""
    settings = tyro.cli(Settings, prog="python -m benchmarks")
    environment.prepare()
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.set_verbosity(logging.ERROR)
    getLogger("tensorflow").setLevel("ERROR")
    if settings.quick and settings.output == Settings.output:
        settings = replace(settings, output=ROOT / "runs" / "benchmarks-quick")
    for part in settings.parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        started, machine = time.monotonic(), report.machine()
        module, _, function = _FUNCTIONS.get(part, f"{part}.measure").partition(".")
        try:
            result = getattr(importlib.import_module(f"benchmarks.{module}"), function)(settings)
        except ValueError as error:
            print(f"{part}: {error}", file=sys.stderr)
            return 1
        machine["note"] = settings.note
        machine["minutes"] = round((time.monotonic() - started) / 60, 1)
        report.write(result, settings.output, machine, settings.quick)
        print(f"{report.table(result.rows)}\n\n{result.tables}\n", flush=True)
    print(f"Results: {settings.output / 'README.md'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
