"""`make bench-scale`: what more pictures cost, and what reading them costs beside a plain writer.

Each component runs in a process of its own, as `plateau run` would run it, on folders of more and
more pictures. What comes before it is found in the cache.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import tyro

from benchmarks import child, folders, hardware, report, step
from benchmarks.comparison import Comparison, ratios
from benchmarks.report import Result
from benchmarks.settings import ROOT
from benchmarks.step import COMPONENTS, REST, Cost, Step
from trainer_module.util.checks import require

PLAIN, DECODING = "plain writer", "plain writer that decodes"
ENGINES = ("direct", "direct:2")
READER = COMPONENTS[0]
TRAINER = "Trainer"
GROWTH, MEMORY, RATE = 1.3, 1.15, 0.8

_IN_MEMORY_MIB = 4096


@dataclass(frozen=True)
class ScaleSettings:
    """Time each component, and measure its memory, on more and more pictures.

    Attributes:
        sizes: Numbers of pictures, rising; memory is compared between the second and the last.
        against: Sizes at which ImageExampleGen is held against a plain writer.
        rounds: Turns that it and the writers take.
        cache_mib: Decoded training data that the Trainer may keep in memory, in MiB; less than
            there is, so that its cache goes to disk.
        quick: Prove in minutes that it works: two sizes, ratios without weight.
        data: The archive of CIFAR-10 pictures, one folder a split and class.
        output: Folder of the results.
        note: What a reader of the results must know of the machine while it measured.
    """

    sizes: tuple[int, ...] = (1_000, 10_000, 60_000, 200_000)
    against: tuple[int, ...] = (60_000, 200_000)
    rounds: int = 3
    cache_mib: int = 16
    quick: bool = False
    data: Path = ROOT.parent / "shared" / "data" / "cifar10-images.tar.gz"
    output: Path = ROOT / "benchmarks" / "results"
    note: str = ""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            len(self.sizes) >= 2 and list(self.sizes) == sorted(set(self.sizes)),
            "sizes must be two or more, rising",
            self.sizes,
            "Try --sizes 1000 10000.",
        )
        require(
            bool(self.against) and set(self.against) <= set(self.sizes),
            "against must be some of the sizes",
            self.against,
            f"Try --against {self.sizes[-1]}.",
        )
        require(self.rounds >= 1, "rounds must be at least 1", self.rounds, "Try --rounds 3.")


@dataclass(frozen=True)
class Measured:
    """All that was measured.

    Attributes:
        costs: By number of pictures, of each component and `REST`.
        in_memory: The Trainer on the most pictures, with its cache in memory.
        writing: Seconds of each turn by number of pictures and contestant: `PLAIN`, `DECODING`
            and the engines with which ImageExampleGen ran.
    """

    costs: Mapping[int, Mapping[str, Cost]]
    in_memory: Cost
    writing: Mapping[int, Mapping[str, Sequence[float]]] = field(default_factory=dict)


def main() -> int:
    """Measure, print the tables and write the results; non-zero if a run failed."""
    settings = tyro.cli(ScaleSettings, prog="python -m benchmarks.scale")
    if settings.quick:
        settings = replace(settings, sizes=(200, 1_000), against=(1_000,), rounds=1, cache_mib=1)
        if settings.output == ScaleSettings.output:
            settings = replace(settings, output=ROOT / "runs" / "benchmarks-quick")
    machine, started = hardware.describe(), time.monotonic()
    try:
        result = measure(settings)
    except ValueError as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    machine["note"] = settings.note
    machine["minutes"] = round((time.monotonic() - started) / 60, 1)
    report.write(result, settings.output, machine, settings.quick)
    print(f"{report.table(result.rows)}\n\n{result.tables}\n")
    print(f"Results: {settings.output / 'README.md'}", file=sys.stderr)
    return 0


def measure(settings: ScaleSettings) -> Result:
    """Run all components on all sizes, then let reading and writing take turns.

    Raises:
        ValueError: The pictures are missing, or a run failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        _tell("pictures")
        data = folders.write(settings.data, place / "pictures", settings.sizes)
        costs: dict[int, dict[str, Cost]] = {}
        for size in settings.sizes:
            costs[size] = {}
            for name in (*COMPONENTS, REST):
                _tell(f"{size:,} pictures, {name}")
                if name == READER:
                    folders.read(data[size])
                run = Step(name, data[size], place / f"run-{size}", cache_mib=settings.cache_mib)
                costs[size][name] = found = step.cost(run)
                _tell(f"  {found.seconds:.1f} s, {found.peak_mib:,.0f} MiB")
        most = settings.sizes[-1]
        _tell(f"{most:,} pictures, {TRAINER} in memory")
        in_memory = step.cost(
            Step(TRAINER, data[most], place / f"run-{most}", cache_mib=_IN_MEMORY_MIB)
        )
        writing = {
            size: _turns(data[size], place / f"writing-{size}", settings.rounds)
            for size in settings.against
        }
    measured = Measured(costs, in_memory, writing)
    return Result(
        part="scale",
        method=(
            "CIFAR-10's pictures as a folder by class; beyond 60,000 they come again, mirrored or "
            "with another brightness, encoded anew. The cifar10 preset with a CNN of width 1/16, "
            "one epoch in batches of 256, and gates that let every model pass; one tenth of the "
            "pictures is the test split that is evaluated. Each component runs in a process of "
            "its own, with the options of `plateau run`; what comes before it is found in the "
            "cache. Seconds are those that ML Metadata has of the component, imports and compiling "
            "apart; memory is the peak of the resident memory of the whole process. The Trainer "
            f"may keep {settings.cache_mib} MiB of decoded pictures in memory, less than even the "
            "second size has, and so reads them from its file. The plain writer is one process "
            "that reads each picture and writes it as a tf.Example with the same features and "
            "compression into one file, imports apart. ImageExampleGen does more: it decodes each "
            "picture to see that it is whole, looks for what TensorFlow would show otherwise than "
            "a viewer does, draws the splits by a hash of the contents, mixes the classes, and "
            "hashes sizes and times for the cache. All pictures are read once right before, so "
            "that the page cache has them for all."
        ),
        rows=compare(measured),
        details={
            "costs": {
                str(size): {name: asdict(cost) for name, cost in by_name.items()}
                for size, by_name in costs.items()
            },
            "trainer_in_memory": asdict(in_memory),
            "writing_seconds": {
                str(size): {name: list(seconds) for name, seconds in by_name.items()}
                for size, by_name in writing.items()
            },
        },
        tables=tables(measured),
    )


def compare(measured: Measured) -> list[Comparison]:
    """What was measured, against the bounds."""
    costs = measured.costs
    sizes = list(costs)
    most, base = sizes[-1], sizes[min(1, len(sizes) - 2)]
    rows = []
    for name in COMPONENTS:
        found = {
            (a, b): costs[b][name].seconds / costs[a][name].seconds / (b / a)
            for a, b in pairwise(sizes)
        }
        told = ", ".join(f"{a:,} to {b:,}: {value:.2f}" for (a, b), value in found.items())
        rows.append(
            Comparison(
                f"growth of {name}'s seconds over that of the pictures, worst step",
                "the size before",
                (max(found.values()),),
                "at most",
                GROWTH,
                told,
            )
        )
    for name in (*COMPONENTS, REST):
        few, many = costs[base][name], costs[most][name]
        rows.append(
            Comparison(
                f"peak memory of {name}, {most:,} pictures",
                f"{base:,} pictures",
                (many.peak_mib / few.peak_mib,),
                "at most",
                MEMORY,
                f"{many.peak_mib:,.0f} MiB against {few.peak_mib:,.0f}; without pages of files "
                f"{many.anonymous_mib:,.0f} against {few.anonymous_mib:,.0f}",
            )
        )
    on_disk, in_memory = costs[most][TRAINER], measured.in_memory
    rows += [
        Comparison(
            f"memory of the Trainer without pages of files, {most:,} pictures on disk",
            "in memory",
            (on_disk.anonymous_mib / in_memory.anonymous_mib,),
            note=f"{on_disk.anonymous_mib:,.0f} MiB against {in_memory.anonymous_mib:,.0f}",
        ),
        Comparison(
            "by how much the validation loss differs, pictures on disk",
            "in memory",
            (abs(on_disk.loss - in_memory.loss),),
            "at most",
            0.0,
            f"{on_disk.loss:.6f}, one epoch",
        ),
    ]
    for size, seconds in measured.writing.items():
        for engine, rival, target in (
            (ENGINES[0], PLAIN, RATE),
            (ENGINES[1], PLAIN, 1.0),
            (ENGINES[0], DECODING, None),
            (ENGINES[1], DECODING, None),
        ):
            rows.append(
                Comparison(
                    f"pictures a second of {READER} on {engine}, {size:,} pictures",
                    rival,
                    ratios(list(seconds[rival]), list(seconds[engine])),
                    target=target,
                )
            )
    for (start, before), (end, after) in pairwise(measured.writing.items()):
        which = f"from {start:,} to {end:,} pictures"
        for engine in ENGINES:
            rows.append(
                Comparison(
                    f"pictures a second of {READER} on {engine}, {which}",
                    PLAIN,
                    ratios(_more(before, after, PLAIN), _more(before, after, engine)),
                    note="what it takes to start apart",
                )
            )
    return rows


def _more(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], name: str
) -> list[float]:
    return [b - a for a, b in zip(before[name], after[name], strict=True)]


def tables(measured: Measured) -> str:
    """Seconds, their growth, and memory, as Markdown tables."""
    costs = measured.costs
    names = (*COMPONENTS, REST)

    def lines(title: str, rows: Mapping[str, Sequence[str]]) -> str:
        body = [f"| {label} | {' | '.join(cells)} |" for label, cells in rows.items()]
        return "\n".join(
            [f"| {title} | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}", *body]
        )

    found = [
        lines(
            "seconds",
            {f"{n:,}": [f"{by[name].seconds:.1f}" for name in names] for n, by in costs.items()},
        ),
        lines(
            "seconds for each further 1,000",
            {
                f"{a:,} to {b:,}": [
                    f"{(costs[b][n].seconds - costs[a][n].seconds) / (b - a) * 1000:.3f}"
                    for n in names
                ]
                for a, b in pairwise(costs)
            },
        ),
        lines(
            "processor time, all of the process",
            {f"{n:,}": [f"{by[name].processor:.1f}" for name in names] for n, by in costs.items()},
        ),
        lines(
            "peak memory, MiB",
            {f"{n:,}": [f"{by[name].peak_mib:,.0f}" for name in names] for n, by in costs.items()},
        ),
    ]
    contestants = (PLAIN, DECODING, *(f"{READER}, {engine}" for engine in ENGINES))
    if measured.writing:
        rates = [
            f"| pictures a second, best of all turns | {' | '.join(contestants)} |",
            f"| --- |{' ---: |' * len(contestants)}",
        ]
        for size, seconds in measured.writing.items():
            cells = (f"{size / min(seconds[name]):,.0f}" for name in (PLAIN, DECODING, *ENGINES))
            rates.append(f"| {size:,} | {' | '.join(cells)} |")
        found.append("\n".join(rates))
    return "\n\n".join(found)


def _turns(data: Path, place: Path, rounds: int) -> Mapping[str, Sequence[float]]:
    """Seconds of the writers and of ImageExampleGen, by name."""
    place.mkdir()
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, DECODING, *ENGINES)}
    for turn in range(rounds):
        _tell(f"{data.name} pictures, reading and writing, turn {turn + 1}")
        for name in (PLAIN, DECODING):
            folders.read(data)
            file = place / f"{turn}-{len(seconds[name])}.tfrecord.gz"
            seconds[name].append(_written(data, file, decode=name == DECODING))
            file.unlink()
        for engine in ENGINES:
            folders.read(data)
            output = place / f"{turn}-{engine.replace(':', '-')}"
            seconds[engine].append(step.cost(Step(READER, data, output, engine)).seconds)
    return seconds


def _written(data: Path, file: Path, decode: bool) -> float:
    arguments = [str(data), str(file), *(["decode"] if decode else [])]
    what = f"the plain writer on {data.name} pictures"
    return float(child.last_line("benchmarks.writer", arguments, what))


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
