"""Console output of presets, earlier runs, rollbacks and errors."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from trainer_module.util.text import visible

from ..metadata.bless import Blessing
from ..metadata.lineage import Detail, Origin
from ..metadata.runs import Folder, Run, short_id
from ..metadata.versions import Rollback, Version
from ..presets import PRESETS

NONE = "-"
"""Cell without a value."""

_COLOURS = {
    "finished": "green",
    "complete": "green",
    "failed": "red",
    "interrupted": "yellow",
    "running": "cyan",
}
_WIDE = 112


def make(stderr: bool = False) -> Console:
    """Returns a console that neither wraps paths nor colours numbers by itself."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def error(message: str) -> Text:
    """Returns an error, its first word marked."""
    return Text.assemble(("error: ", "bold red"), visible(message, keep="\n\t"))


def as_json(value: object) -> str:
    """Returns dataclasses, alone or in a list, as indented JSON; times are ISO, paths text."""

    def plain(item: object) -> object:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        return item.isoformat() if isinstance(item, datetime) else str(item)

    return json.dumps(value, indent=2, default=plain)


def yes(value: bool | None) -> str:
    """Returns yes, no, or the sign of no value."""
    return {True: "yes", False: "no", None: NONE}[value]


def decimals(value: float | str | None) -> str:
    """Returns a number with four decimals; words as they are."""
    return f"{value:.4f}" if isinstance(value, float | int) else value or NONE


def count(number: int, noun: str, plural: str = "s") -> str:
    """Returns a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def table(title: str, *names: str, numbers: Sequence[str] = (), gap: int = 1) -> Table:
    """Returns a table without lines between its columns, so that more of them fit.

    Args:
        title: Its title.
        names: Its columns.
        numbers: Columns among them that are aligned to the right.
        gap: Spaces between columns, beyond one.
    """
    listing = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, gap, 0, 0),
    )
    for name in names:
        listing.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return listing


def presets() -> RenderableType:
    """Returns the presets as a table."""
    listing = table("plateau run PRESET", "preset", "what", "data", "model", "strategy")
    for name, preset in PRESETS.items():
        config = preset.build()
        listing.add_row(
            f"[bold]{name}[/]",
            escape(preset.purpose),
            escape(preset.data),
            config.network.model,
            config.schedule.strategy,
        )
    return listing


def print_runs(console: Console, folder: Folder) -> None:
    """Prints the runs of an output folder, the newest first, and which version is served."""
    names = "run", "when", "data", "strategy", "best", "test", "blessed", "pushed", "state"
    listing = table(escape(str(folder.path)), *names, numbers=("best", "test"), gap=0)
    # On a narrow console a run takes two lines, broken where it reads best.
    gap = " " if console.width >= _WIDE else "\n"
    for run in folder.runs:
        state = Text(run.state, style=_COLOURS[run.state])
        listing.add_row(
            run.id,
            f"{run.began:%Y-%m-%d}{gap}{run.began:%H:%M}",
            run.data or NONE,
            run.strategy.replace("_", gap) or NONE,
            decimals(run.best_value),
            decimals(run.test_r2 if run.test_accuracy is None else run.test_accuracy),
            "by hand" if run.reason else yes(run.blessed),
            Text(_pushed(run, gap), style="bold" if run.served else ""),
            state.append(f"{gap}{_cached(run)}", style="default") if run.cached else state,
        )
    console.print(listing)
    monitors = sorted({run.monitor for run in folder.runs if run.monitor})
    if monitors:
        measured = "r2" if any(run.test_r2 is not None for run in folder.runs) else "accuracy"
        line = f"best: best {' or '.join(monitors)}; test: {measured} on the test split"
        console.print(Text(line))
    for run in folder.runs:
        if run.reason:
            console.print(Text(f"{run.id}: pushed by hand: {run.reason}"), soft_wrap=True)
    console.print(_served(folder.served), soft_wrap=True)
    console.print()


def print_run(console: Console, detail: Detail) -> None:
    """Prints one run: its steps, its lineage, its data and its parameters."""
    # A path that is broken over lines cannot be copied.
    console.print(_head(detail), soft_wrap=True)
    steps = table("Steps", "component", "seconds", "state", "made", numbers=("seconds",), gap=0)
    steps.columns[0].no_wrap = True
    for step in detail.steps:
        state = {"complete": "run"}.get(step.state, step.state)
        steps.add_row(
            step.component,
            NONE if step.seconds is None else f"{step.seconds:.1f}",
            Text(state, style=_COLOURS.get(step.state, "")),
            Text("\n".join(_where(made.path, detail.output) for made in step.made)),
        )
    console.print(Text(), steps)
    if detail.lineage is not None:
        console.print(Text("\nLineage", style="italic"))
        tree = Tree(_artifact(detail.lineage, detail, ""))
        _grow(tree, detail.lineage, detail)
        console.print(tree)
    for title, values in (
        ("Data", {"": detail.data}),
        ("Columns served under another name", {"": detail.renamed}),
        ("Parameters", detail.config),
    ):
        if any(values.values()):
            console.print(Text(f"\n{title}", style="italic"), _values(values))


def rollback(plan: Rollback) -> Text:
    """Returns what a rollback will do."""
    return Text.assemble(
        f"output  {plan.output}\n",
        _served(plan.served),
        "\nagain   ",
        (str(plan.target.number), "bold"),
        f", from run {short_id(plan.target.run)}",
    )


def bless(plan: Blessing, failures: Sequence[str]) -> Text:
    """Returns what a push by hand will do."""
    text = Text.assemble(f"output  {plan.output}\n", _served(plan.served))
    text.append(f"\npush    the model of run {plan.run.id}, which was held back")
    for line in failures:
        text.append(f"\n  {line}")
    return text.append(f"\nreason  {plan.reason}")


def pushed(version: Version, replaced: Version | None) -> Text:
    """Returns what a rollback or a push by hand did."""
    text = Text.assemble(("served ", "bold green"), f" {version.number}")
    if version.origin != version.number:
        text.append(f", a copy of {version.origin}")
    text.append(f"\nmodel   {version.path}")
    if replaced is not None:
        kept = replaced.number
        text.append(f"\nkept    {kept} is still there: plateau rollback {kept}")
    return text


def _pushed(run: Run, gap: str = " ") -> str:
    number = NONE if run.pushed is None else str(run.pushed)
    return f"{number}{gap}served" if run.served else number


def _cached(run: Run) -> str:
    return f"{run.cached}/{run.steps} cached"


def _served(version: Version | None) -> Text:
    if version is None:
        return Text("served  nothing: no model has been pushed", "yellow")
    text = Text.assemble("served  ", (str(version.number), "bold"))
    if version.model is None:
        return text.append(", which neither a run nor a rollback pushed", "yellow")
    if version.origin != version.number:
        when = f", made by a rollback on {version.since:%Y-%m-%d %H:%M}" if version.since else ""
        text.append(f", a copy of {version.origin}{when}")
    return text.append(f", from run {short_id(version.run)}")


def _head(detail: Detail) -> Text:
    run = detail.run
    text = Text.assemble("run        ", (run.id, "bold"), f"  ({run.name})")
    text.append("\nstate      ").append(run.state, _COLOURS[run.state])
    text.append(f", {_cached(run)}" if run.cached else "")
    text.append(f"\npipeline   {run.pipeline or NONE}")
    if run.best_value is not None:
        text.append(f"\nbest       {run.monitor} {decimals(run.best_value)}")
    if run.test_accuracy is not None:
        text.append(f"\ntest       accuracy {decimals(run.test_accuracy)}")
    if run.test_r2 is not None:
        text.append(f"\ntest       r2 {decimals(run.test_r2)}")
    text.append(f"\nblessed    {yes(run.blessed)}")
    text.append(f"\npushed     {_pushed(run)}")
    text.append(f", by hand: {run.reason}" if run.reason else "")
    text.append(f"\ncode       {detail.code or NONE}")
    text.append(f"\noutput     {detail.output}")
    return text.append(f"\nlog        {detail.log or NONE}")


def _artifact(origin: Origin, detail: Detail, key: str) -> Text:
    text = Text.assemble((origin.type, "bold"), f" {origin.note}" if origin.note else "")
    if key == "base_model":
        text.append(" (its first weights)")
    text.append(f", by {origin.component}" if origin.component else ", of unknown origin")
    if origin.run and origin.run != detail.run.id:
        text.append(f" in run {origin.run}", "cyan")
    return text.append(f"\n{_where(origin.path, detail.output)}", "dim")


def _grow(tree: Tree, origin: Origin, detail: Detail) -> None:
    for key, source in origin.sources:
        _grow(tree.add(_artifact(source, detail, key)), source, detail)


def _values(groups: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Returns names and values, group by group."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for group, values in groups.items():
        for i, (name, value) in enumerate(values.items()):
            text = NONE if value is None else visible(_text(value))
            # Fingerprints are long, and are compared part by part.
            spaced = ", ".join(part.removeprefix(" ") for part in text.split(","))
            grid.add_row(group if i == 0 else "", "" if name == group else name, Text(spaced))
    return Padding(grid, (0, 0, 0, 2))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _where(path: Path, output: Path) -> str:
    return str(path.relative_to(output) if path.is_relative_to(output) else path)
