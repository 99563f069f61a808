"""What the user reads on the console: the presets, a finished run, an error."""

from decimal import Decimal

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.plan import Plan
from pipeline.presets import PRESETS
from pipeline.result import Evaluation, Gate, RunResult, Step
from trainer_module.schedule import Action

WORST_SHOWN = 3
_CHANGES: dict[Action, str] = {
    "none": "",
    "decay_lr": "learning rate",
    "grow_batch": "batch",
    "grow_batch_and_decay_lr": "both",
}


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
    return Text.assemble(("error: ", "bold red"), message)


def plan(plan: Plan) -> RenderableType:
    """A forecast as a table, with what it rests on."""
    table = Table("from", "changes", title=f"Plan of {plan.name}", title_justify="left")
    for name in ("learning rate", "batch", "steps/epoch", "noise scale"):
        table.add_column(name, justify="right")
    for stage in plan.stages:
        table.add_row(
            f"stall {stage.index}" if stage.index else "start",
            _CHANGES[stage.action],
            _decimal(stage.learning_rate),
            f"{stage.batch_size:,}",
            f"{stage.steps_per_epoch:,}",
            f"{stage.noise_scale:.4g}",
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
    table = Table("test split", title="Evaluation", title_justify="left")
    for name in ("examples", "accuracy", "cross-entropy"):
        table.add_column(name, justify="right")
    rows = [("candidate", evaluation.candidate)]
    if evaluation.baseline is not None:
        rows.append(("baseline (last blessed)", evaluation.baseline))
    worst = evaluation.classes[:WORST_SHOWN]
    rows += [(f"candidate, class {name}", metrics) for name, metrics in worst]
    for name, metrics in rows:
        table.add_row(
            escape(name),
            str(metrics.examples),
            f"{metrics.accuracy:.4f}",
            f"{metrics.crossentropy:.4f}",
        )
    if len(evaluation.classes) > WORST_SHOWN:
        table.caption = f"the worst {WORST_SHOWN} of {len(evaluation.classes)} classes"
    return table


def _gates(gates: tuple[Gate, ...]) -> Table:
    table = Table("gate", title="Gates", title_justify="left")
    for name in ("value", "bound", "margin"):
        table.add_column(name, justify="right")
    table.add_column("")
    overall = [gate for gate in gates if ", class " not in gate.rule]
    by_class = [gate for gate in gates if ", class " in gate.rule]
    failed = [gate for gate in by_class if not gate.passed]
    shown = failed or by_class[:WORST_SHOWN]
    for gate in overall + shown:
        table.add_row(
            escape(gate.rule),
            f"{gate.value:.4f}",
            f"{gate.bound:.4f}",
            f"{gate.margin:+.4f}",
            "[green]passed[/]" if gate.passed else "[red]failed[/]",
        )
    if len(by_class) > len(shown):
        table.caption = f"and {len(by_class) - len(shown)} more classes that passed"
    return table


def _verdict(result: RunResult) -> Text:
    text = Text()
    if result.blessed:
        text.append("blessed", "bold green")
        if result.evaluation.baseline is None:
            text.append(" (first model: nothing to compare with yet)")
        text.append(f"\nmodel  {result.pushed or result.model}")
    else:
        text.append("not blessed, not pushed", "bold red")
        for gate in result.evaluation.gates:
            if not gate.passed:
                text.append(f"\n  {gate.rule} is {gate.value:.4f}, must be >= {gate.bound:.4f}")
        for problem in result.evaluation.problems:
            text.append(f"\n  {problem}")
        text.append(f"\nmodel  {result.model}")
    if result.bad_images:
        text.append(f"\ndata   {_count(result.bad_images, 'bad picture')} left out", "yellow")
    if result.converted_images:
        text.append(f"\ndata   {_count(result.converted_images, 'picture')} converted to PNG")
    text.append(f"\nlog    {result.log}")
    text.append(f"\ntime   {result.seconds:.1f} s")
    return text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
