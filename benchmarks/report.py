"""Benchmark results: JSON for programs, one Markdown page for people, and the machine measured."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal

from trainer_module.util.checks import require

_HEADINGS = {
    "speed": "Images a second",
    "precision": "Accuracy in bfloat16",
    "stage": "A change of stage",
    "memory": "Memory",
    "contest": "Schedules on CIFAR-10",
    "full": "Schedules on CIFAR-10, as many images as there are",
    "pipeline": "A run of the pipeline",
    "scale": "More and more pictures",
}
_EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
_PACKAGES = ("tensorflow", "keras", "numpy", "tfx")


@dataclass(frozen=True)
class Row:
    """Values of one quantity, one for each round or seed.

    Attributes:
        what: What was measured.
        against: What it is compared with.
        values: Ratios, or the unit that `what` names, in the order measured.
        sense: Whether the median should be at least or at most the target.
        target: Bound of the median; None where a figure is only informative.
        note: What a reader must know to judge it.
    """

    what: str
    against: str
    values: tuple[float, ...]
    sense: Literal["at least", "at most"] = "at least"
    target: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        require(bool(self.values), "a row must hold values", self.values, "Measure first.")

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.target is None:
            return None
        if self.sense == "at least":
            return self.median >= self.target
        return self.median <= self.target

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "median": self.median, "reached": self.reached}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Row":
        fields = {key: data[key] for key in data if key not in ("median", "reached")}
        return cls(**{**fields, "values": tuple(data["values"])})


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """Ratio within each turn, in which both met the same state of the machine."""
    return tuple(a / b for a, b in zip(numerators, denominators, strict=True))


@dataclass(frozen=True)
class Result:
    """One measured part.

    Attributes:
        part: Its name.
        method: How it was measured, in a sentence or two.
        rows: The comparisons.
        details: Absolute figures and choices behind them, for the JSON file.
        figure: Name of a plot in the same folder.
        tables: Markdown with more tables.
    """

    part: str
    method: str
    rows: Sequence[Row]
    details: Mapping[str, Any] = field(default_factory=dict)
    figure: str = ""
    tables: str = ""


def write(result: Result, folder: Path, hardware: Mapping[str, Any], quick: bool) -> None:
    """Writes a part's JSON file, and the page from the files of all parts."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "part": result.part,
        "quick": quick,
        "method": result.method,
        "hardware": hardware,
        "rows": [row.to_dict() for row in result.rows],
        "details": result.details,
        "figure": result.figure,
        "tables": result.tables,
    }
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    (folder / f"{result.part}.json").write_text(text)
    paths = [folder / f"{part}.json" for part in _HEADINGS]
    parts = [json.loads(path.read_text()) for path in paths if path.exists()]
    (folder / "README.md").write_text(page(parts))


def page(parts: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown page of the parts' JSON data."""
    sections = [
        "# Benchmark results\n\n"
        "Written by `make bench`. Contestants take turns within one run; a ratio is taken within "
        "a turn, and the median over n turns (or seeds) is compared with the target."
    ]
    for part in parts:
        warning = "**A quick run: it proves that the code works; its ratios are no evidence.**\n\n"
        sections.append(
            f"## {_HEADINGS[part['part']]}\n\n"
            f"{warning if part['quick'] else ''}{part['method']}\n\n"
            f"{table([Row.from_dict(row) for row in part['rows']])}\n\n"
            f"{hardware_line(part['hardware'])}"
        )
        # Results of earlier versions have no tables.
        if part.get("tables"):
            sections.append(part["tables"])
        if part["figure"]:
            sections.append(f"![{_HEADINGS[part['part']]}]({part['figure']})")
    return "\n\n".join(sections) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    lines = [
        "| what | against | median (min to max) | n | must be | reached | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    verdicts = {True: "yes", False: "**no**", None: ""}
    for row in rows:
        target = "" if row.target is None else f"{row.sense} {row.target:g}"
        values = f"{row.median:.2f} ({min(row.values):.2f} to {max(row.values):.2f})"
        cells = (row.what, row.against, values, len(row.values), target, verdicts[row.reached])
        lines.append(f"| {' | '.join(map(str, cells))} | {row.note} |")
    return "\n".join(lines)


def columns(title: str, names: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table of right-aligned columns, with a label before each row."""
    lines = [f"| {title} | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    return "\n".join([*lines, *(f"| {label} | {' | '.join(r)} |" for label, r in rows.items())])


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Processor, cores, vector extensions, load, versions and the date."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    pairs = [line.partition(":") for line in text.splitlines()]
    # Of several processors, the first.
    fields = {name.strip(): value.strip() for name, _, value in reversed(pairs)}
    flags = fields.get("flags", "").split()
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "extensions": [flag for flag in _EXTENSIONS if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "date": time.strftime("%Y-%m-%d"),
    }


def hardware_line(hardware: Mapping[str, Any]) -> str:
    """The machine of a part, in one line."""
    extensions = ", ".join(hardware["extensions"]) or "no vector extension of note"
    note = f" {hardware['note']}" if hardware.get("note") else ""
    return (
        f"Measured {hardware['date']} on {hardware['processor']}, {hardware['cores']} cores "
        f"({extensions}), {hardware['memory_gib']} GiB, load {hardware['load_before']} before; "
        f"Python {hardware['python']}, TensorFlow {hardware['tensorflow']}, "
        f"Keras {hardware['keras']}, TFX {hardware['tfx']}.{note}"
    )
