"""What the user reads on the console: presets, a plan, runs, a rollback, an error."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from components.evaluation.interval import Interval
from components.evaluation.results import ACCURACY, CROSSENTROPY
from components.gate import Check
from trainer_module.schedule.strategy import ACTIONS
from trainer_module.util.text import visible

from ..metadata.bless import Blessing
from ..metadata.lineage import Detail, Origin
from ..metadata.result import Evaluation, RunResult, Step
from ..metadata.runs import Folder, Run, short_id
from ..metadata.versions import Rollback, Version
from ..presets import PRESETS
from .forecast import Plan

WORST_SHOWN = 3
_COLOURS = {
    "finished": "green",
    "complete": "green",
    "failed": "red",
    "interrupted": "yellow",
    "running": "cyan",
}
_NONE = "-"
_WIDE = 112


def make(stderr: bool = False) -> Console:
    """A console that neither wraps paths nor colours numbers by itself."""
    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def presets() -> RenderableType:
    """The presets as a table."""
    table = Table("preset", "what", "data", "model", "strategy", title="plateau run PRESET")
    for name, preset in PRESETS.items():
        config = preset.build()
        table.add_row(
            f"[bold]{name}[/]",
            escape(preset.purpose),
            escape(preset.data),
            config.network.model,
            config.schedule.strategy,
        )
    return table


def error(message: str) -> Text:
    """An error, its first word marked."""
    return Text.assemble(("error: ", "bold red"), visible(message, keep="\n\t"))


def plan(plan: Plan) -> RenderableType:
    """A forecast as a table, with what it rests on."""
    table = Table("from", "changes", title=f"Plan of {plan.name}", title_justify="left")
    for name in ("learning rate", "batch", "steps/epoch", "update noise"):
        table.add_column(name, justify="right")
    for row, stage in enumerate(plan.stages):
        table.add_row(
            f"plateau {stage.index}" if stage.index else "end of warm-up" if row else "start",
            ACTIONS[stage.action],
            _decimal(stage.learning_rate),
            f"{stage.batch_size:,}",
            f"{stage.steps_per_epoch:,}",
            f"{stage.update_noise:.4g}",
        )
    assumed = f"Assumes {plan.size} training examples ({plan.size.source})."
    return Group(table, *map(Text, (plan.stop, plan.rule, assumed, *plan.notes)))


def _decimal(value: float) -> str:
    """Six digits without an exponent, so that rates compare at a glance."""
    return f"{Decimal(f'{value:.6g}'):f}"


def print_result(console: Console, result: RunResult) -> None:
    """Print what a run did and measured, the verdict, and where everything is."""
    console.print(
        Text(),
        _steps(result.steps),
        _metrics(result.evaluation),
        _gates(result.evaluation.gates),
    )
    # A path that is broken over lines cannot be copied.
    console.print(_verdict(result), soft_wrap=True)


def _steps(steps: tuple[Step, ...]) -> Table:
    table = Table("component", title="Components", title_justify="left")
    table.add_column("seconds", justify="right")
    table.add_column("")
    for step in steps:
        table.add_row(step.component, f"{step.seconds:.1f}", step.state)
    return table


def _metrics(evaluation: Evaluation) -> Table:
    table = Table("test split", title="Evaluation, with 95 % intervals", title_justify="left")
    for name in ("examples", "accuracy", "interval", "cross-entropy"):
        table.add_column(name, justify="right")
    rows = [("candidate", evaluation.candidate)]
    if evaluation.baseline is not None:
        rows.append(("baseline (last blessed)", evaluation.baseline))
    worst = evaluation.classes[:WORST_SHOWN]
    rows += [(f"candidate, class {name}", metrics) for name, metrics in worst]
    for name, metrics in rows:
        table.add_row(
            escape(visible(name)),
            _NONE if metrics.examples is None else str(metrics.examples),
            _share(metrics.values.get(ACCURACY)),
            _interval(metrics.interval),
            _share(metrics.values.get(CROSSENTROPY)),
        )
    if len(evaluation.classes) > WORST_SHOWN:
        table.caption = f"the worst {WORST_SHOWN} of {len(evaluation.classes)} classes"
    return table


def _gates(gates: tuple[Check, ...]) -> Table:
    table = Table("gate", title="Gates", title_justify="left")
    for name in ("value", "threshold", "margin"):
        table.add_column(name, justify="right")
    table.add_column("beyond interval")
    table.add_column("")
    overall = [gate for gate in gates if gate.subject is None]
    by_class = [gate for gate in gates if gate.subject is not None]
    failed = [gate for gate in by_class if not gate.passed]
    shown = failed or by_class[:WORST_SHOWN]
    for gate in overall + shown:
        table.add_row(
            escape(visible(gate.rule)),
            _measured(gate.value),
            _measured(gate.threshold),
            _NONE if gate.margin is None else f"{gate.margin:+.4f}",
            _yes(gate.beyond_interval),
            "[green]passed[/]" if gate.passed else "[red]failed[/]",
        )
    if len(by_class) > len(shown):
        table.caption = f"and {len(by_class) - len(shown)} more classes that passed"
    return table


def _measured(value: float | str | None) -> str:
    return f"{value:.4f}" if isinstance(value, float | int) else value or _NONE


def _interval(interval: Interval | None) -> str:
    return f"{interval[0]:.3f}-{interval[1]:.3f}" if interval else _NONE


def _warnings(evaluation: Evaluation) -> Text:
    """What no gate may have asked for, and a person should know."""
    text = Text(style="yellow")
    for name, metrics in evaluation.at_chance[:WORST_SHOWN]:
        text.append(
            f"warning: class {name}: accuracy {metrics[ACCURACY]:.4f} is not above chance, "
            f"{evaluation.chance:.4f}\n"
        )
    more = len(evaluation.at_chance) - WORST_SHOWN
    if more > 0:
        text.append(f"warning: {_count(more, 'more class', 'es')} not above chance\n")
    for gate in evaluation.gates:
        if gate.is_change and gate.note:
            text.append(f"warning: {gate.note}\n")
    if evaluation.unseen:
        named = ", ".join(evaluation.unseen[:WORST_SHOWN])
        more = len(evaluation.unseen) - WORST_SHOWN
        named += f" and {more} more" if more > 0 else ""
        text.append(f"warning: without a test example: {named}\n")
    return text


def _verdict(result: RunResult) -> Text:
    text = _warnings(result.evaluation)
    if result.blessed and result.unservable:
        text.append("blessed, but not servable, not pushed", "bold red")
        for check in result.unservable:
            text.append(f"\n  {check}")
        text.append(f"\nmodel  {result.model}")
    elif result.blessed:
        text.append("blessed", "bold green")
        if result.evaluation.baseline is None:
            text.append(" (first model: nothing to compare with yet)")
        text.append(f"\nmodel  {result.pushed or result.model}")
    else:
        text.append("not blessed, not pushed", "bold red")
        for gate in result.evaluation.failed:
            text.append(f"\n  {visible(str(gate))}")
        for problem in result.evaluation.problems:
            text.append(f"\n  {visible(problem)}")
        text.append(f"\nmodel  {result.model}")
    if result.bad_images:
        text.append(f"\ndata   {_count(result.bad_images, 'bad picture')} left out", "yellow")
    if result.left_out_files:
        files = _count(result.left_out_files, "file")
        note = f"\ndata   {files} of other suffixes left out ({result.left_out_suffixes})"
        text.append(note, "yellow")
    if result.converted_images:
        text.append(f"\ndata   {_count(result.converted_images, 'picture')} converted to PNG")
    if result.unlabelled_rows:
        rows = _count(result.unlabelled_rows, "row")
        text.append(f"\ndata   {rows} without a label left out", "yellow")
    text.append(f"\nreport {result.report}")
    text.append(f"\nlog    {result.log}")
    text.append(f"\ntime   {result.seconds:.1f} s")
    return text


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def as_json(value: object) -> str:
    """Dataclasses, alone or in a list, as indented JSON; times are ISO, paths text."""

    def plain(item: object) -> object:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return {f.name: plain(getattr(item, f.name)) for f in dataclasses.fields(item)}
        if isinstance(item, Mapping):
            return {key: plain(part) for key, part in item.items()}
        if isinstance(item, datetime):
            return item.isoformat()
        if isinstance(item, list | tuple):
            return [plain(part) for part in item]
        return item if isinstance(item, int | float | bool | None) else str(item)

    return json.dumps(plain(value), indent=2)


def print_runs(console: Console, folder: Folder) -> None:
    """Print the runs of an output folder, the newest first, and what is served now."""
    table = _plain_table(escape(str(folder.path)))
    for name in ("run", "when", "data", "strategy", "best", "test", "blessed", "pushed", "state"):
        table.add_column(name, justify="right" if name in ("best", "test") else "left")
    # On a narrow console a run takes two lines, broken where it reads best.
    gap = " " if console.width >= _WIDE else "\n"
    for run in folder.runs:
        state = Text(run.state, style=_COLOURS[run.state])
        table.add_row(
            run.id,
            f"{run.began:%Y-%m-%d}{gap}{run.began:%H:%M}",
            run.data or _NONE,
            run.strategy.replace("_", gap) or _NONE,
            _share(run.best_value),
            _share(run.test_accuracy),
            "by hand" if run.reason else _yes(run.blessed),
            Text(_pushed(run, gap), style="bold" if run.served else ""),
            state.append(f"{gap}{_cached(run)}", style="default") if run.cached else state,
        )
    console.print(table)
    monitors = sorted({run.monitor for run in folder.runs if run.monitor})
    if monitors:
        console.print(Text(f"best: best {' or '.join(monitors)}; test: accuracy on the test split"))
    for run in folder.runs:
        if run.reason:
            console.print(Text(f"{run.id}: pushed by hand: {run.reason}"), soft_wrap=True)
    console.print(_served(folder.served), soft_wrap=True)
    console.print()


def _pushed(run: Run, gap: str = " ") -> str:
    number = _NONE if run.pushed is None else str(run.pushed)
    return f"{number}{gap}served" if run.served else number


def _cached(run: Run) -> str:
    return f"{run.cached}/{run.steps} cached"


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: _NONE}[value]


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


def print_run(console: Console, detail: Detail) -> None:
    """Print one run: its steps, its lineage, its data and its parameters."""
    # A path that is broken over lines cannot be copied.
    console.print(_head(detail), soft_wrap=True)
    table = _plain_table("Steps")
    table.add_column("component", no_wrap=True)
    table.add_column("seconds", justify="right")
    table.add_column("state")
    table.add_column("made", overflow="fold")
    for step in detail.steps:
        state = {"complete": "run"}.get(step.state, step.state)
        table.add_row(
            step.component,
            _NONE if step.seconds is None else f"{step.seconds:.1f}",
            Text(state, style=_COLOURS.get(step.state, "")),
            Text("\n".join(_where(made.path, detail.output) for made in step.made)),
        )
    console.print(Text(), table)
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


def _plain_table(title: str) -> Table:
    """A table without lines between its columns, so that more of them fit."""
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0)
    )


def _head(detail: Detail) -> Text:
    run = detail.run
    text = Text.assemble("run        ", (run.id, "bold"), f"  ({run.name})")
    text.append("\nstate      ").append(run.state, _COLOURS[run.state])
    text.append(f", {_cached(run)}" if run.cached else "")
    text.append(f"\npipeline   {run.pipeline or _NONE}")
    if run.best_value is not None:
        text.append(f"\nbest       {run.monitor} {_share(run.best_value)}")
    if run.test_accuracy is not None:
        text.append(f"\ntest       accuracy {_share(run.test_accuracy)}")
    text.append(f"\nblessed    {_yes(run.blessed)}")
    text.append(f"\npushed     {_pushed(run)}")
    text.append(f", by hand: {run.reason}" if run.reason else "")
    text.append(f"\ncode       {detail.code or _NONE}")
    text.append(f"\noutput     {detail.output}")
    return text.append(f"\nlog        {detail.log or _NONE}")


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
    """Names and values, group by group."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for group, values in groups.items():
        for i, (name, value) in enumerate(values.items()):
            shown = value if isinstance(value, str) else json.dumps(value)
            grid.add_row(
                group if i == 0 else "",
                "" if name == group else name,
                # Fingerprints are long, and are compared part by part.
                Text(_NONE if value is None else _spaced(visible(shown))),
            )
    return Padding(grid, (0, 0, 0, 2))


def _spaced(text: str) -> str:
    return text.replace(",", ", ").replace(",  ", ", ")


def _where(path: Path, output: Path) -> str:
    return str(path.relative_to(output) if path.is_relative_to(output) else path)


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"


def rollback(plan: Rollback) -> Text:
    """What a rollback is about to do."""
    return Text.assemble(
        "output  ",
        str(plan.output),
        "\n",
        _served(plan.served),
        "\nagain   ",
        (str(plan.target.number), "bold"),
        f", from run {short_id(plan.target.run)}",
    )


def blessing(plan: Blessing, failed: Sequence[str], reason: str) -> Text:
    """What a push by hand is about to do."""
    text = Text.assemble("output  ", str(plan.output), "\n", _served(plan.served))
    text.append(f"\npush    the model of run {plan.run.id}, which was held back")
    for line in failed:
        text.append(f"\n  {line}")
    return text.append(f"\nreason  {reason}")


def blessed(plan: Blessing, made: Version) -> Text:
    """What a push by hand did."""
    text = Text.assemble(("served ", "bold green"), f" {made.number}\nmodel   {made.path}")
    if plan.served is not None:
        kept = plan.served.number
        text.append(f"\nkept    {kept} is still there: plateau rollback {kept}")
    return text


def rolled_back(plan: Rollback, made: Version) -> Text:
    """What a rollback did."""
    return Text.assemble(
        ("served ", "bold green"),
        f" {made.number}, a copy of {plan.target.number}\n",
        f"model   {made.path}\n",
        f"kept    {plan.served.number} is still there: plateau rollback {plan.served.number}",
    )
