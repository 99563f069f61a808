"""`make bench-pipeline`: what a run costs beside training and Beam, against the smallest pipeline.

Each contestant runs in processes of its own, three times in a folder: the first run, one that has a
baseline to evaluate against, and one that finds everything in the cache.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import NamedTuple

import tyro

from benchmarks import hardware, report
from benchmarks.comparison import Comparison, ratios
from benchmarks.report import Result
from benchmarks.settings import ROOT
from pipeline.data import digits
from pipeline.metadata import store
from pipeline.metadata.store import PipelineRun
from trainer_module import history
from trainer_module.util.checks import require

OWN, SMALLEST = "plateau", "smallest"
RUNS = ("first run", "second run", "all-cached run")
BEFORE, REST = "imports and wiring", "between and after"
RECORDS = "pictures to TFRecords"
BATCHES = 33
"""Updates in an epoch of the smallest pipeline: 1,078 pictures in batches of 32."""

_TOLD = "records "
_QUICK = ("--max-epochs", "2", "--min-accuracy", "0", "--min-class-accuracy", "0")
# What does the same job goes by one name.
_ALIKE = {
    "ImageExampleGen": "ExampleGen",
    "ImportExampleGen": "ExampleGen",
    "InlineSchemaGen": "SchemaGen",
}
_WORK = (RECORDS, "ExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")
_ORDER = (
    BEFORE,
    RECORDS,
    "ExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "AnomalyGate",
    "LatestBlessedStatistics",
    "LatestBlessedModel",
    "DriftGate",
    "Transform",
    "Trainer",
    "Evaluator",
    "Servable",
    "TrainingReport",
    "Pusher",
    REST,
)


@dataclass(frozen=True)
class PipelineSettings:
    """Time `plateau run digits`, and the smallest TFX pipeline that does the same job.

    Attributes:
        rounds: Turns each contestant takes; ratios are taken within a turn.
        quick: Prove in minutes that it works: one turn of two epochs, ratios without weight.
        output: Folder of the results.
    """

    rounds: int = 3
    quick: bool = False
    output: Path = ROOT / "benchmarks" / "results"

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.rounds >= 1, "rounds must be at least 1", self.rounds, "Try --rounds 3.")


@dataclass(frozen=True)
class Timing:
    """Where the seconds of one run went.

    Attributes:
        total: From the start of the process to its end.
        before: Of these, until the first component began: imports, checks of the data, compiling.
        steps: Seconds of each component, as ML Metadata has them.
        cpu: Seconds of processor time, user and system, of the process and its children.
    """

    total: float
    before: float
    steps: Mapping[str, float]
    cpu: float

    def __post_init__(self) -> None:
        """Check that the parts are not more than the whole."""
        # ML Metadata counts milliseconds, and from another clock.
        require(
            self.rest > -0.1,
            "the parts of a run must not exceed the whole",
            dict(self.parts),
            "Measure again while nobody sets the clock.",
        )

    @property
    def rest(self) -> float:
        """Between components, and after the last: drivers, results read back, the end."""
        return self.total - self.before - sum(self.steps.values())

    @cached_property
    def parts(self) -> Mapping[str, float]:
        """All parts, which add up to the whole."""
        return {BEFORE: self.before, **self.steps, REST: self.rest}

    @property
    def other(self) -> float:
        """What is neither training nor Beam work: all but the Trainer and Beam's components."""
        return self.total - sum(self.steps.get(name, 0) for name in _WORK)

    @property
    def share(self) -> float:
        """The same in parts of the whole."""
        return self.other / self.total


class Round(NamedTuple):
    """One turn of both.

    Attributes:
        own: Our runs, as `RUNS` has them.
        smallest: The smallest pipeline's.
    """

    own: tuple[Timing, ...]
    smallest: tuple[Timing, ...]


def main() -> int:
    """Measure, print the tables and write the results; non-zero if a run failed."""
    settings = tyro.cli(PipelineSettings, prog="python -m benchmarks.pipeline")
    if settings.quick and settings.output == PipelineSettings.output:
        settings = replace(settings, output=ROOT / "runs" / "benchmarks-quick")
    machine, started = hardware.describe(), time.monotonic()
    try:
        result = measure(settings)
    except ValueError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 1
    machine["minutes"] = round((time.monotonic() - started) / 60, 1)
    report.write(result, settings.output, machine, settings.quick)
    print(f"{result.tables}\n\n{report.table(result.rows)}\n")
    print(f"Results: {settings.output / 'README.md'}", file=sys.stderr)
    return 0


def measure(settings: PipelineSettings) -> Result:
    """Let both take turns.

    Raises:
        ValueError: A run failed, pushed nothing, or found too little in the cache.
    """
    rounds: list[Round] = []
    epochs = 0
    with tempfile.TemporaryDirectory() as folder:
        # Neither contestant pays for writing the pictures.
        pictures = digits.write_digits(Path(folder) / "pictures")
        for turn in range(1 if settings.quick else settings.rounds):
            print(f"turn {turn + 1} ...", file=sys.stderr, flush=True)
            place = Path(folder) / str(turn)
            mine = place / OWN
            # Who goes first alternates, once it is known how long our training is.
            if turn % 2 == 0:
                own = _own(pictures, mine, settings.quick)
                epochs = _epochs(mine)
                smallest = _smallest(pictures, place / SMALLEST, epochs, settings.quick)
            else:
                smallest = _smallest(pictures, place / SMALLEST, epochs, settings.quick)
                own = _own(pictures, mine, settings.quick)
            rounds.append(Round(own, smallest))
    return Result(
        part="pipeline",
        method=(
            "`plateau run digits` and the smallest TFX pipeline that does the same job "
            "(`benchmarks/smallest.py`, written as TFX's documentation has it), each three times "
            "in processes of its own: a first run; a second, in which the model is held against "
            "the first as its baseline; a third, in which all is cached. The smallest trains the "
            f"same network for about as many updates ({epochs} epochs with a batch that never "
            "grows), on the same pictures. Ours does more: "
            f"{_listed(only_own(rounds))}, a bound for every class, and a Trainer that steers its "
            "schedule, keeps checkpoints and writes a history. Components are timed by ML "
            "Metadata; neither training nor Beam work is whatever lies outside the Trainer and "
            "Beam's components."
        ),
        rows=compare(rounds),
        details={
            "epochs_of_smallest": epochs,
            "rounds": [
                {
                    name: {
                        run: {**t.parts, "processor time": t.cpu}
                        for run, t in zip(RUNS, timings, strict=True)
                    }
                    for name, timings in zip((OWN, SMALLEST), turn, strict=True)
                }
                for turn in rounds
            ],
        },
        tables=table(rounds),
    )


def timing(
    run: PipelineRun, started: datetime, total: float, cpu: float, records: float = 0.0
) -> Timing:
    """Where the seconds of a run went.

    Args:
        run: The run, as ML Metadata has it.
        started: When its process was started, local time.
        total: Seconds until the process had ended.
        cpu: Its processor time.
        records: Seconds before the first component in which pictures became TFRecords.
    """
    steps = {_ALIKE.get(e.component, e.component): e.seconds for e in run.executions}
    before = (run.executions[0].began - started).total_seconds()
    if records:
        steps[RECORDS] = records
    return Timing(total, before - records, steps, cpu)


def only_own(rounds: Sequence[Round]) -> tuple[str, ...]:
    """Components that the smallest pipeline does not have."""
    own, smallest = (turn[0].steps for turn in rounds[0])
    return tuple(name for name in _ordered(own) if name not in smallest)


def compare(rounds: Sequence[Round]) -> list[Comparison]:
    """Our seconds in parts of the smallest pipeline's."""
    first = [(turn.own[0], turn.smallest[0]) for turn in rounds]
    more = f"ours also has {_listed(only_own(rounds))}"
    left_out = frozenset(only_own(rounds))

    def row(what: str, pairs: Sequence[tuple[float, float]], note: str = "") -> Comparison:
        own, smallest = (list(values) for values in zip(*pairs, strict=True))
        values = ratios(own, smallest)
        return Comparison(what, SMALLEST, values, "at most", 1.0, note)

    def alike(timing: Timing) -> float:
        return sum(seconds for name, seconds in timing.steps.items() if name not in left_out)

    found = [
        row("seconds of the first run", [(a.total, b.total) for a, b in first], more),
        row(
            "seconds of its components that both have",
            [(alike(a), alike(b)) for a, b in first],
            "with what reads the pictures",
        ),
        replace(
            row(
                "its seconds that are neither training nor Beam work",
                [(a.other, b.other) for a, b in first],
                f"a share of {_share(a for a, _ in first)} against {_share(b for _, b in first)}; "
                + more,
            ),
            target=None,
        ),
    ]
    for i, run in enumerate(RUNS):
        if i > 0:
            seconds = [(turn.own[i].total, turn.smallest[i].total) for turn in rounds]
            found.append(row(f"seconds of the {run}", seconds, more))
        # Another program on the machine changes this less than the seconds.
        used = [(turn.own[i].cpu, turn.smallest[i].cpu) for turn in rounds]
        found.append(replace(row(f"processor time of the {run}", used), target=None))
    return found


def table(rounds: Sequence[Round]) -> str:
    """Median seconds by component, as a Markdown table."""
    columns = [
        (f"{name}, {run}", [turn[k][i] for turn in rounds])
        for i, run in enumerate(RUNS)
        for k, name in enumerate((OWN, SMALLEST))
    ]
    names = {name: 0.0 for _, timings in columns for timing in timings for name in timing.parts}
    lines = [
        f"| seconds (median of {len(rounds)}) | {' | '.join(title for title, _ in columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
    ]
    for name in _ordered(names):
        cells = [
            f"{median(t.parts[name] for t in timings):.2f}"
            if all(name in t.parts for t in timings)
            else ""
            for _, timings in columns
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    totals = [f"**{median(t.total for t in timings):.2f}**" for _, timings in columns]
    others = [f"{median(t.other for t in timings):.2f}" for _, timings in columns]
    shares = [_share(timings) for _, timings in columns]
    lines.append(f"| **total** | {' | '.join(totals)} |")
    lines.append(f"| neither training nor Beam work | {' | '.join(others)} |")
    lines.append(f"| its share | {' | '.join(shares)} |")
    used = [f"{median(t.cpu for t in timings):.2f}" for _, timings in columns]
    lines.append(f"| processor time | {' | '.join(used)} |")
    return "\n".join(lines)


def _own(pictures: Path, output: Path, quick: bool) -> tuple[Timing, ...]:
    command = ["-m", "pipeline.cli", "run", "digits"]
    command += ["--data", str(pictures), "--output", str(output), *(_QUICK if quick else ())]
    return tuple(_run(command, output, run) for run in RUNS)


def _smallest(pictures: Path, output: Path, epochs: int, quick: bool) -> tuple[Timing, ...]:
    # Far enough below what it reaches for chance not to stop the measurement.
    bound = 0.0 if quick else 0.9
    command = ["-m", "benchmarks.smallest", str(pictures), str(output), str(epochs), str(bound)]
    return tuple(_run(command, output, run) for run in RUNS)


def _run(command: Sequence[str], output: Path, run: str) -> Timing:
    """Run once, in a process of its own."""
    output.mkdir(parents=True, exist_ok=True)
    started, began, used = datetime.now(), time.monotonic(), _cpu()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=output.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    total, cpu = time.monotonic() - began, _cpu() - used
    said = done.stdout[-2000:]
    require(
        done.returncode == 0 and any((output / "pushed").glob("*")),
        f"the {run} of python {' '.join(command)} must push a model",
        f"exit status {done.returncode}",
        f"It said last:\n{said}",
    )
    found = store.read(store.file_of(output)).runs[-1]
    uncached = [e.component for e in found.executions if e.state != "cached"]
    require(
        run != RUNS[-1] or all(name.startswith("LatestBlessed") for name in uncached),
        "the third run must find everything in the cache",
        uncached,
        "Something that the cache depends on changes from run to run.",
    )
    records = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(_TOLD)]
    return timing(found, started, total, cpu, float(records[0]) if records else 0.0)


def _cpu() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _epochs(output: Path) -> int:
    """Epochs of the smallest pipeline that come to as many updates as the first run in a folder."""
    records = store.read(store.file_of(output))
    trainer = next(e for e in records.runs[0].executions if e.component == "Trainer")
    trained = dict(records.outputs(trainer))["training_history"]
    epochs = history.read(Path(trained.uri) / history.FILE_NAME).epochs
    return max(1, round(epochs[-1].updates / BATCHES))


def _ordered(names: Mapping[str, object]) -> list[str]:
    """In the order of the flow; what is unknown before the rest."""
    known = {name: place for place, name in enumerate(_ORDER)}
    return sorted(names, key=lambda name: known.get(name, len(_ORDER) - 1.5))


def _share(timings: Iterable[Timing]) -> str:
    return f"{median(timing.share for timing in timings):.0%}"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


if __name__ == "__main__":
    sys.exit(main())
