"""Console output of a finished run."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from components.evaluation.results import ACCURACY, CROSSENTROPY, MAE, R2, RMSE, Evaluation
from components.gate import Check
from trainer_module.util.text import joined, visible

from ..runners.result import RunResult, Step
from .console import NONE, count, decimals, table, yes

WORST = 3
"""Classes listed, the worst first."""


def print_result(console: Console, result: RunResult) -> None:
    """Prints what a run did and measured, the verdict, and the paths."""
    evaluation = result.evaluation
    console.print(Text(), _steps(result.steps), _metrics(evaluation), _gates(evaluation.gates))
    # A path that is broken over lines cannot be copied.
    console.print(_verdict(result), soft_wrap=True)


def _steps(steps: tuple[Step, ...]) -> Table:
    listing = table("Components", "component", "seconds", "state", numbers=("seconds",))
    for step in steps:
        listing.add_row(step.component, f"{step.seconds:.1f}", step.state)
    return listing


def _metrics(evaluation: Evaluation) -> Table:
    title = "Evaluation, with 95 % intervals"
    measured = (R2, MAE, RMSE) if evaluation.is_regression else (ACCURACY, CROSSENTROPY)
    first, *others = measured
    columns = "examples", first, "interval", *others
    listing = table(title, "test split", *columns, numbers=columns)
    rows = [("candidate", evaluation.candidate)]
    if evaluation.baseline is not None:
        rows.append(("baseline (last blessed)", evaluation.baseline))
    rows += [(f"candidate, class {name}", each) for name, each in evaluation.classes[:WORST]]
    for name, metrics in rows:
        low_high = metrics.interval(first)
        listing.add_row(
            escape(visible(name)),
            NONE if metrics.examples is None else str(metrics.examples),
            decimals(metrics.values.get(first)),
            f"{low_high[0]:.3f}-{low_high[1]:.3f}" if low_high else NONE,
            *(decimals(metrics.values.get(name)) for name in others),
        )
    if len(evaluation.classes) > WORST:
        listing.caption = f"the worst {WORST} of {len(evaluation.classes)} classes"
    return listing


def _gates(gates: tuple[Check, ...]) -> Table:
    numbers = "value", "threshold", "margin"
    listing = table("Gates", "gate", *numbers, "beyond interval", "verdict", numbers=numbers)
    by_class = [gate for gate in gates if gate.subject is not None]
    listed = [gate for gate in by_class if not gate.passed] or by_class[:WORST]
    for gate in [*(gate for gate in gates if gate.subject is None), *listed]:
        listing.add_row(
            escape(visible(gate.rule)),
            decimals(gate.value),
            decimals(gate.threshold),
            NONE if gate.margin is None else f"{gate.margin:+.4f}",
            yes(gate.beyond_interval),
            "[green]passed[/]" if gate.passed else "[red]failed[/]",
        )
    if len(by_class) > len(listed):
        listing.caption = f"and {len(by_class) - len(listed)} more classes that passed"
    return listing


def _warnings(evaluation: Evaluation, is_weighted: bool) -> list[str]:
    """Returns what a person should know although no gate may check it."""
    lines = [
        f"class {name}: accuracy {metrics[ACCURACY]:.4f} is not above chance, "
        f"{evaluation.chance:.4f}"
        for name, metrics in evaluation.at_chance[:WORST]
    ]
    more = len(evaluation.at_chance) - WORST
    if more > 0:
        lines.append(f"{count(more, 'more class', 'es')} not above chance")
    if evaluation.neglected and not is_weighted:
        names = ", ".join(name for name, _ in evaluation.neglected[:WORST])
        lines.append(f"{names}: rare, and often taken for others; try --class-weight balanced")
    lines += [gate.note for gate in evaluation.gates if gate.is_change and gate.note]
    if evaluation.unseen:
        lines.append(f"without a test example: {joined(evaluation.unseen, WORST)}")
    return lines


def _verdict(result: RunResult) -> Text:
    evaluation = result.evaluation
    text = Text()
    for line in _warnings(evaluation, result.is_weighted):
        text.append(f"warning: {line}\n", "yellow")
    problems: tuple[str, ...] = ()
    if result.blessed and not result.unservable:
        text.append("blessed", "bold green")
        text.append("" if evaluation.baseline else " (first model: nothing to compare with yet)")
    elif result.blessed:
        text.append("blessed, but not servable, not pushed", "bold red")
        problems = result.unservable
    else:
        text.append("not blessed, not pushed", "bold red")
        problems = (*map(str, evaluation.failed), *evaluation.problems)
    for problem in problems:
        text.append(f"\n  {visible(problem)}")
    text.append(f"\nmodel  {result.pushed or result.model}")
    rows = count(result.unlabelled_rows, "row")
    files = count(result.left_out_files, "file")
    for number, line, style in (
        (result.bad_images, f"{count(result.bad_images, 'bad image')} left out", "yellow"),
        (
            result.left_out_files,
            f"{files} of other suffixes left out ({result.left_out_suffixes})",
            "yellow",
        ),
        (
            result.converted_images,
            f"{count(result.converted_images, 'image')} converted to PNG",
            "",
        ),
        (result.unlabelled_rows, f"{rows} without a label left out", "yellow"),
    ):
        if number:
            text.append(f"\ndata   {line}", style)
    text.append(f"\nreport {result.report}")
    text.append(f"\nlog    {result.log}")
    return text.append(f"\ntime   {result.seconds:.1f} s")
