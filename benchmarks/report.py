"""Results as files: JSON for programs, one Markdown page for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison

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


@dataclass(frozen=True)
class Result:
    """One part, measured.

    Attributes:
        part: Which.
        method: How it was measured, in a sentence or two.
        rows: The comparisons.
        details: Absolute figures and choices behind them, for the JSON file.
        figure: Name of a plot in the same folder.
        tables: Markdown with more tables.
    """

    part: str
    method: str
    rows: Sequence[Comparison]
    details: Mapping[str, Any] = field(default_factory=dict)
    figure: str = ""
    tables: str = ""


def write(result: Result, folder: Path, hardware: Mapping[str, Any], quick: bool) -> None:
    """Write a part's JSON file, then the page anew from the files of all parts."""
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
    found = [folder / f"{part}.json" for part in _HEADINGS]
    parts = [json.loads(path.read_text()) for path in found if path.exists()]
    (folder / "README.md").write_text(page(parts))


def page(parts: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown page of the parts' JSON data."""
    sections = [
        "# Benchmark results\n\n"
        "Written by `make bench`, `make bench-pipeline` and `make bench-scale`. Contestants take "
        "turns within one run; a ratio is taken within a turn, and the median over n turns (or "
        "seeds) is held against the target."
    ]
    for part in parts:
        warning = "**A quick run: it proves that the code works; its ratios are no evidence.**\n\n"
        sections.append(
            f"## {_HEADINGS[part['part']]}\n\n"
            f"{warning if part['quick'] else ''}{part['method']}\n\n"
            f"{table([Comparison.from_dict(row) for row in part['rows']])}\n\n"
            f"{hardware_line(part['hardware'])}"
        )
        # Results from before there were any have none.
        if part.get("tables"):
            sections.append(part["tables"])
        if part["figure"]:
            sections.append(f"![{_HEADINGS[part['part']]}]({part['figure']})")
    return "\n\n".join(sections) + "\n"


def table(rows: Sequence[Comparison]) -> str:
    """Comparisons as a Markdown table."""
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


def hardware_line(hardware: Mapping[str, Any]) -> str:
    """What a part was measured on, in one line."""
    extensions = ", ".join(hardware["extensions"]) or "no vector extension of note"
    note = f" {hardware['note']}" if hardware.get("note") else ""
    return (
        f"Measured {hardware['date']} on {hardware['processor']}, {hardware['cores']} cores "
        f"({extensions}), {hardware['memory_gib']} GiB, load {hardware['load_before']} before; "
        f"Python {hardware['python']}, TensorFlow {hardware['tensorflow']}, "
        f"Keras {hardware['keras']}, TFX {hardware['tfx']}.{note}"
    )
