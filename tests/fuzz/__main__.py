"""Fuzz the readers of outside data: `python -m tests.fuzz [NAMES] --seconds N`.

Each runs in a process of its own, guided by coverage (Atheris and libFuzzer), within bounds of
memory and of time for one input. Inputs that raise coverage are kept below --output for the next
time, and one that breaks a rule beside them. The status is 1 if there is any.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.reader import NAMES, SCRATCH, scratch

# For imports, and for what a last input may take.
GRACE = 300


class Fuzzed(NamedTuple):
    """What came of a reader."""

    name: str
    runs: int
    coverage: int
    corpus: int
    peak_mib: int
    seconds: float
    broken: tuple[str, ...]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--output", type=Path, default=Path("runs/fuzz"))
    given = parser.parse_args(argv)
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"unknown readers {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    found = []
    for name in given.names or NAMES:
        found.append(fuzz(name, given.seconds, given.output.resolve() / name))
        print(line(found[-1]), flush=True)
    return int(any(one.broken for one in found))


def fuzz(name: str, seconds: int, folder: Path) -> Fuzzed:
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    before = set(broken(folder))
    log = folder / "log.txt"
    started = time.monotonic()
    # libFuzzer ends its process at once, and so leaves behind what that made.
    place = scratch()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.run", name, str(seconds), str(folder)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, SCRATCH: str(place)},
        )
        try:
            process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    text = log.read_text(errors="replace")
    new = tuple(sorted(set(broken(folder)) - before))
    if process.returncode and not new:
        new = (f"status {process.returncode}, see {log}",)
    return Fuzzed(
        name,
        last(r"number_of_executed_units: (\d+)|^#(\d+)\t", text),
        last(r"cov: (\d+)", text),
        len(list(corpus.iterdir())),
        last(r"peak_rss_mb: +(\d+)|rss: (\d+)Mb", text),
        time.monotonic() - started,
        new,
    )


def broken(folder: Path) -> list[str]:
    """The inputs that libFuzzer kept because of them the process ended."""
    kinds = ("crash-*", "timeout-*", "oom-*", "leak-*")
    return [str(path) for kind in kinds for path in folder.glob(kind)]


def last(pattern: str, text: str) -> int:
    found = re.finditer(pattern, text, re.MULTILINE)
    return max((int(each[each.lastindex or 0]) for each in found), default=0)


def line(one: Fuzzed) -> str:
    said = f"{one.name:10}  {one.runs:>9,} inputs  {one.coverage:>6,} edges  "
    said += f"{one.corpus:>5,} kept  {one.peak_mib:>5,} MiB  {one.seconds:>5.0f} s  "
    return said + (f"BROKEN: {', '.join(one.broken)}" if one.broken else "ok")


if __name__ == "__main__":
    sys.exit(main())
