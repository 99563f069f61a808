"""Seconds of `plateau run digits` by component, compared with the smallest TFX pipeline.

Each contestant runs in processes of its own, three times in a folder: the first run, one that has a
baseline to evaluate against, and one that finds everything in the cache.
"""

import resource
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

from benchmarks import child
from benchmarks.report import Result, Row, columns, ratios
from benchmarks.settings import Settings
from pipeline.data import digits
from pipeline.metadata import store
from pipeline.metadata.store import PipelineRun
from trainer_module import history
from trainer_module.util.checks import require

OWN, SMALLEST = "plateau", "smallest"
RUNS = ("first run", "second run", "all-cached run")
BEFORE, REST = "imports and wiring", "between and after"
RECORDS = "images to TFRecords"
BATCHES = 33
"""Updates in an epoch of the smallest pipeline: 1,078 images in batches of 32."""

_QUICK = ["--max-epochs", "2", "--min-accuracy", "0", "--min-class-accuracy", "0"]
# Components with the same job share a name.
_ALIKE = {
    "ImageExampleGen": "ExampleGen",
    "ImportExampleGen": "ExampleGen",
    "InlineSchemaGen": "SchemaGen",
}
_WORK = (RECORDS, "ExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")
_ORDER = (
    *(BEFORE, RECORDS, "ExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator"),
    *("AnomalyGate", "LatestBlessedStatistics", "LatestBlessedModel", "DriftGate", "Transform"),
    *("Trainer", "Evaluator", "Servable", "TrainingReport", "ServingPusher", "Pusher", REST),
)


@dataclass(frozen=True)
class Timing:
    """Where the seconds of one run went.

    Attributes:
        total: From the start of the process to its end.
        before: Of these, until the first component began: imports, checks of the data, compiling.
        steps: Seconds of each component, by ML Metadata.
        cpu: Seconds of processor time, user and system, of the process and its children.
    """

    total: float
    before: float
    steps: Mapping[str, float]
    cpu: float

    def __post_init__(self) -> None:
        # ML Metadata counts milliseconds, and from another clock.
        require(
            self.parts[REST] > -0.1,
            "the parts of a run must not exceed the whole",
            dict(self.parts),
            "Measure again while nobody sets the clock.",
        )

    @cached_property
    def parts(self) -> Mapping[str, float]:
        """All parts, which add up to the whole."""
        rest = self.total - self.before - sum(self.steps.values())
        return {BEFORE: self.before, **self.steps, REST: rest}

    @property
    def other(self) -> float:
        """What is neither training nor Beam work: all but the Trainer and Beam's components."""
        return self.total - sum(self.steps.get(name, 0) for name in _WORK)

    @property
    def share(self) -> float:
        """The same as a share of the whole."""
        return self.other / self.total


class Round(NamedTuple):
    """One turn: the runs of either pipeline, in the order of `RUNS`."""

    own: tuple[Timing, ...]
    smallest: tuple[Timing, ...]


def measure(settings: Settings) -> Result:
    """Lets both pipelines take turns.

    Raises:
        ValueError: A run failed, pushed nothing, or missed the cache.
    """
    rounds: list[Round] = []
    epochs = 0
    with tempfile.TemporaryDirectory() as folder:
        # Neither contestant pays for writing the images.
        images = digits.write_digits(Path(folder) / "images")
        for turn in range(1 if settings.quick else min(settings.rounds, 3)):
            print(f"turn {turn + 1} ...", file=sys.stderr, flush=True)
            mine, other = Path(folder) / str(turn) / OWN, Path(folder) / str(turn) / SMALLEST
            # Who goes first alternates, once the length of our training is known.
            if turn % 2:
                smallest = _smallest(images, other, epochs, settings.quick)
            own = _own(images, mine, settings.quick)
            epochs = epochs or _epochs(mine)
            if not turn % 2:
                smallest = _smallest(images, other, epochs, settings.quick)
            rounds.append(Round(own, smallest))
    return Result(
        part="pipeline",
        method=(
            "`plateau run digits` and the smallest TFX pipeline that does the same job "
            "(`benchmarks/smallest.py`, written as in TFX's documentation), each three times in "
            "processes of its own: a first run; a second, which compares the model with the first "
            "as its baseline; a third, in which all is cached. The smallest trains the same "
            f"network for about as many updates ({epochs} epochs with a batch that never grows), "
            f"on the same images. Ours does more: {_listed(only_own(rounds))}, a bound for every "
            "class, and a Trainer that drives its schedule, keeps checkpoints and writes a "
            "history. Components are timed by ML Metadata; neither training nor Beam work is what "
            "lies outside the Trainer and Beam's components."
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
        run: The run, by ML Metadata.
        started: When its process was started, local time.
        total: Seconds until the process had ended.
        cpu: Its processor time.
        records: Seconds before the first component in which images became TFRecords.
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


def compare(rounds: Sequence[Round]) -> list[Row]:
    """Our seconds in parts of the smallest pipeline's."""
    first = [(turn.own[0], turn.smallest[0]) for turn in rounds]
    extra = only_own(rounds)
    more = f"ours also has {_listed(extra)}"

    def row(what: str, pairs: Sequence[tuple[float, float]], note: str = "") -> Row:
        own, smallest = zip(*pairs, strict=True)
        return Row(what, SMALLEST, ratios(own, smallest), "at most", 1.0, note)

    def alike(timing: Timing) -> float:
        return sum(seconds for name, seconds in timing.steps.items() if name not in extra)

    shares = f"a share of {_share(a for a, _ in first)} against {_share(b for _, b in first)}"
    rows = [
        row("seconds of the first run", [(a.total, b.total) for a, b in first], more),
        row(
            "seconds of its components that both have",
            [(alike(a), alike(b)) for a, b in first],
            "with what reads the images",
        ),
        replace(
            row(
                "its seconds that are neither training nor Beam work",
                [(a.other, b.other) for a, b in first],
                f"{shares}; {more}",
            ),
            target=None,
        ),
    ]
    for i, run in enumerate(RUNS):
        if i > 0:
            seconds = [(turn.own[i].total, turn.smallest[i].total) for turn in rounds]
            rows.append(row(f"seconds of the {run}", seconds, more))
        # Another program on the machine changes this less than the seconds.
        used = [(turn.own[i].cpu, turn.smallest[i].cpu) for turn in rounds]
        rows.append(replace(row(f"processor time of the {run}", used), target=None))
    return rows


def table(rounds: Sequence[Round]) -> str:
    """Median seconds by component, as a Markdown table."""
    by_run = {
        f"{name}, {run}": [turn[k][i] for turn in rounds]
        for i, run in enumerate(RUNS)
        for k, name in enumerate((OWN, SMALLEST))
    }
    timings = list(by_run.values())
    names = {name: 0.0 for column in timings for timing in column for name in timing.parts}
    rows = {
        name: [
            f"{median(t.parts[name] for t in column):.2f}"
            if all(name in t.parts for t in column)
            else ""
            for column in timings
        ]
        for name in _ordered(names)
    }
    rows["**total**"] = [f"**{median(t.total for t in column):.2f}**" for column in timings]
    rows["neither training nor Beam work"] = [
        f"{median(t.other for t in column):.2f}" for column in timings
    ]
    rows["its share"] = [_share(column) for column in timings]
    rows["processor time"] = [f"{median(t.cpu for t in column):.2f}" for column in timings]
    return columns(f"seconds (median of {len(rounds)})", list(by_run), rows)


def _own(images: Path, output: Path, quick: bool) -> tuple[Timing, ...]:
    arguments = ["run", "digits", "--data", str(images), "--output", str(output)]
    arguments += _QUICK if quick else []
    return tuple(_run("pipeline.cli", arguments, output, run) for run in RUNS)


def _smallest(images: Path, output: Path, epochs: int, quick: bool) -> tuple[Timing, ...]:
    # Far enough below what it reaches for chance not to stop the measurement.
    arguments = [str(images), str(output), str(epochs), "0" if quick else "0.9"]
    return tuple(_run("benchmarks.smallest", arguments, output, run) for run in RUNS)


def _run(module: str, arguments: list[str], output: Path, run: str) -> Timing:
    """Runs once, in a process of its own."""
    output.mkdir(parents=True, exist_ok=True)
    started, began, used = datetime.now(), time.monotonic(), _cpu()
    printed = child.run(module, arguments, f"the {run} of {module}", cwd=output.parent)
    total, cpu = time.monotonic() - began, _cpu() - used
    require(any((output / "pushed").glob("*")), f"the {run} must push a model", module, printed)
    recorded = store.read(store.file_of(output)).runs[-1]
    uncached = [e.component for e in recorded.executions if e.state != "cached"]
    require(
        run != RUNS[-1] or all(name.startswith("LatestBlessed") for name in uncached),
        "the third run must find everything in the cache",
        uncached,
        "Something that the cache depends on changes from run to run.",
    )
    records = [line.split()[1] for line in printed.splitlines() if line.startswith("records ")]
    return timing(recorded, started, total, cpu, float(records[0]) if records else 0.0)


def _cpu() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _epochs(output: Path) -> int:
    """Epochs of the smallest pipeline with as many updates as the first run in a folder."""
    records = store.read(store.file_of(output))
    trainer = next(e for e in records.runs[0].executions if e.component == "Trainer")
    trained = dict(trainer.outputs)["training_history"]
    epochs = history.read(Path(trained.uri) / history.FILE_NAME).epochs
    return max(1, round(epochs[-1].updates / BATCHES))


def _ordered(names: Iterable[str]) -> list[str]:
    """Names in the order of the flow; unknown ones before the last."""
    places = {name: place for place, name in enumerate(_ORDER)}
    return sorted(names, key=lambda name: places.get(name, len(_ORDER) - 1.5))


def _share(timings: Iterable[Timing]) -> str:
    return f"{median(timing.share for timing in timings):.0%}"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
