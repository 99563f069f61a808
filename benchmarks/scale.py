"""Seconds and memory of each component on more and more images, and of a plain writer.

Each component runs in a process of its own, as `plateau run` would run it. The steps before it come
from the cache.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks import child, cifar, step
from benchmarks.report import Result, Row, columns, ratios
from benchmarks.settings import Settings
from benchmarks.step import COMPONENTS, REST, Cost, Step
from trainer_module.util.checks import require

PLAIN, DECODING = "plain writer", "plain writer that decodes"
ENGINES = ("direct", "direct:2")
READER = COMPONENTS[0]
TRAINER = "Trainer"
GROWTH, MEMORY, RATE = 1.3, 1.15, 0.8

# Less than the decoded images of the second size need, and more than those of the last.
_ON_DISK_MIB, _IN_MEMORY_MIB = 16, 4096
# ImageExampleGen is compared with a plain writer at these sizes, or else at the last.
_WRITTEN = (60_000, 200_000)


@dataclass(frozen=True)
class Measured:
    """All that was measured.

    Attributes:
        costs: By number of images, of each component and `REST`.
        in_memory: The Trainer on the most images, with its cache in memory.
        writing: Seconds of each turn by number of images and contestant: `PLAIN`, `DECODING`
            and the engines with which ImageExampleGen ran.
    """

    costs: Mapping[int, Mapping[str, Cost]]
    in_memory: Cost
    writing: Mapping[int, Mapping[str, Sequence[float]]] = field(default_factory=dict)


def measure(settings: Settings) -> Result:
    """Runs all components on all sizes, then lets reading and writing take turns.

    Raises:
        ValueError: The images are missing, or a run failed.
    """
    sizes = (500, 2_000) if settings.quick else settings.sizes
    require(
        len(sizes) >= 2 and list(sizes) == sorted(set(sizes)),
        "`sizes` must be two or more, rising",
        sizes,
        "Try `sizes=1000 10000`.",
    )
    most, cache = sizes[-1], 1 if settings.quick else _ON_DISK_MIB
    rounds = 1 if settings.quick else min(settings.rounds, 3)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        data = cifar.write_folders(settings.data, place / "images", sizes)
        costs: dict[int, dict[str, Cost]] = {}
        for size in sizes:
            costs[size] = {}
            for name in (*COMPONENTS, REST):
                if name == READER:
                    _read(data[size])
                run = Step(name, data[size], place / f"run-{size}", cache_mib=cache)
                costs[size][name] = cost = step.cost(run)
                _log(f"{size:,} images, {name}: {cost.seconds:.1f} s, {cost.peak_mib:,.0f} MiB")
        in_memory = Step(TRAINER, data[most], place / f"run-{most}", cache_mib=_IN_MEMORY_MIB)
        measured = Measured(
            costs,
            step.cost(in_memory),
            {
                size: _turns(data[size], place / f"writing-{size}", rounds)
                for size in [size for size in sizes if size in _WRITTEN] or [most]
            },
        )
    return Result(
        part="scale",
        method=(
            "CIFAR-10's images as a folder by class; beyond 60,000 they come again, mirrored or "
            "with another brightness, encoded again. The cifar10 preset with a CNN of width 1/16, "
            "one epoch in batches of 256, and gates that let every model pass; one tenth of the "
            "images is the test split that is evaluated. Each component runs in a process of its "
            "own, with the options of `plateau run`; the steps before it come from the cache. "
            "Seconds are those of the component by ML Metadata, without imports; memory is the "
            "peak of the resident memory of the whole process. The Trainer may keep "
            f"{cache} MiB of decoded images in memory, less than the second size needs, and so "
            "reads them from its file. The plain writer is one process that reads each image and "
            "writes it as a tf.Example with the same features and compression into one file. "
            "ImageExampleGen does more: it decodes each image to see that it is complete, finds "
            "what TensorFlow would show differently from a viewer, draws the splits by a hash of "
            "the contents, mixes the classes, and hashes sizes and times for the cache. All images "
            "are read once right before, so that the page cache has them."
        ),
        rows=compare(measured),
        details={
            "costs": {
                str(size): {name: asdict(cost) for name, cost in by_name.items()}
                for size, by_name in costs.items()
            },
            "trainer_in_memory": asdict(measured.in_memory),
            "writing_seconds": {str(n): dict(seconds) for n, seconds in measured.writing.items()},
        },
        tables=tables(measured),
    )


def compare(measured: Measured) -> list[Row]:
    """Growth of seconds and memory, and the rates of reading, with their bounds."""
    costs, rows = measured.costs, []
    sizes = list(costs)
    most, base = sizes[-1], sizes[min(1, len(sizes) - 2)]
    for name in COMPONENTS:
        growth = {
            f"{a:,} to {b:,}": costs[b][name].seconds / costs[a][name].seconds / (b / a)
            for a, b in pairwise(sizes)
        }
        rows.append(
            Row(
                f"growth of {name}'s seconds over that of the images, worst step",
                "the size before",
                (max(growth.values()),),
                "at most",
                GROWTH,
                ", ".join(f"{step}: {value:.2f}" for step, value in growth.items()),
            )
        )
    for name in (*COMPONENTS, REST):
        few, many = costs[base][name], costs[most][name]
        rows.append(
            Row(
                f"peak memory of {name}, {most:,} images",
                f"{base:,} images",
                (many.peak_mib / few.peak_mib,),
                "at most",
                MEMORY,
                f"{many.peak_mib:,.0f} MiB against {few.peak_mib:,.0f}; without pages of files "
                f"{many.anonymous_mib:,.0f} against {few.anonymous_mib:,.0f}",
            )
        )
    on_disk, in_memory = costs[most][TRAINER], measured.in_memory
    rows += [
        Row(
            f"memory of the Trainer without pages of files, {most:,} images on disk",
            "in memory",
            (on_disk.anonymous_mib / in_memory.anonymous_mib,),
            note=f"{on_disk.anonymous_mib:,.0f} MiB against {in_memory.anonymous_mib:,.0f}",
        ),
        Row(
            "difference of the validation loss, images on disk",
            "in memory",
            (abs(on_disk.loss - in_memory.loss),),
            "at most",
            0.0,
            f"{on_disk.loss:.6f}, one epoch",
        ),
    ]
    targets = {(ENGINES[0], PLAIN): RATE, (ENGINES[1], PLAIN): 1.0}
    for size, seconds in measured.writing.items():
        for rival in (PLAIN, DECODING):
            for engine in ENGINES:
                what = f"images a second of {READER} on {engine}, {size:,} images"
                values = ratios(seconds[rival], seconds[engine])
                rows.append(Row(what, rival, values, target=targets.get((engine, rival))))
    for (start, before), (end, after) in pairwise(measured.writing.items()):
        more = {
            name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in after
        }
        for engine in ENGINES:
            what = f"images a second of {READER} on {engine}, from {start:,} to {end:,} images"
            values = ratios(more[PLAIN], more[engine])
            rows.append(Row(what, PLAIN, values, note="without the time to start"))
    return rows


def tables(measured: Measured) -> str:
    """Seconds, their growth, and memory, as Markdown tables."""
    costs, names = measured.costs, (*COMPONENTS, REST)

    def of_each(title: str, field: str, form: str) -> str:
        rows = {
            f"{n:,}": [format(getattr(by[name], field), form) for name in names]
            for n, by in costs.items()
        }
        return columns(title, names, rows)

    growth = {
        f"{a:,} to {b:,}": [
            f"{(costs[b][n].seconds - costs[a][n].seconds) / (b - a) * 1000:.3f}" for n in names
        ]
        for a, b in pairwise(costs)
    }
    contestants = (PLAIN, DECODING, *ENGINES)
    rates = {
        f"{size:,}": [f"{size / min(seconds[name]):,.0f}" for name in contestants]
        for size, seconds in measured.writing.items()
    }
    titles = (PLAIN, DECODING, *(f"{READER}, {engine}" for engine in ENGINES))
    return "\n\n".join(
        [
            of_each("seconds", "seconds", ".1f"),
            columns("seconds for each further 1,000", names, growth),
            of_each("processor time, all of the process", "processor", ".1f"),
            of_each("peak memory, MiB", "peak_mib", ",.0f"),
            columns("images a second, best of all turns", titles, rates),
        ]
    )


def _turns(data: Path, place: Path, rounds: int) -> Mapping[str, Sequence[float]]:
    """Seconds of the writers and of ImageExampleGen, by name."""
    place.mkdir()
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, DECODING, *ENGINES)}
    for turn in range(rounds):
        _log(f"{data.name} images, reading and writing, turn {turn + 1}")
        for name in (PLAIN, DECODING):
            _read(data)
            file = place / "images.tfrecord.gz"
            arguments = [str(data), str(file), *(["decode"] if name == DECODING else [])]
            output = child.run("benchmarks.writer", arguments, f"{name} on {data.name} images")
            seconds[name].append(float(output.splitlines()[-1]))
            file.unlink()
        for engine in ENGINES:
            _read(data)
            output_folder = place / f"{turn}-{engine.replace(':', '-')}"
            seconds[engine].append(step.cost(Step(READER, data, output_folder, engine)).seconds)
    return seconds


def _read(folder: Path) -> None:
    """Reads all images of a folder, so that the page cache has them."""
    for path in folder.glob("*/*"):
        path.read_bytes()


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
