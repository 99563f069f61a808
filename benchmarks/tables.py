"""Markdown tables of a comparison."""

import math

from pipeline.compare import text
from pipeline.compare.statistics import UNITS, Comparison, Ratio
from trainer_module.schedule.strategy import ACTIONS


def markdown(comparison: Comparison, title: str, command: str) -> str:
    """Returns the tables of a comparison for a document.

    Args:
        comparison: The runs.
        title: Heading.
        command: Command that repeats the comparison.
    """
    judged = text.verdict(comparison)
    seeds = len(comparison.seeds)
    spread = f"Mean ± standard deviation over {seeds} seeds." if seeds > 1 else "One seed."
    runs = [
        [
            trial.strategy,
            str(trial.seed),
            *(text.number(trial.cost(unit)) for unit in UNITS),
            f"{trial.best_value:.4f} (epoch {trial.best.epoch})",
            f"{trial.test_score:.4f}",
            trial.history.stop_reason,
        ]
        for trial in comparison.ordered
    ]
    decisions = [
        [
            trial.strategy,
            str(trial.seed),
            str(record.epoch),
            f"{record.updates:,}",
            f"{trial.seconds(record):.1f}",
            ACTIONS.get(record.action, record.action),
            record.reason,
        ]
        for trial in comparison.ordered
        for record in trial.history.decisions
    ]
    ratios = [
        [total.strategy, *(_ratio(total.ratios[unit]) for unit in UNITS)]
        for total in comparison.totals[1:]
    ]
    strategy, *columns = text.totals_head(comparison)
    parts = [
        f"# {_cell(title)}",
        f"**{judged.headline}.**",
        "\n".join(f"- {sentence}" for sentence in judged.sentences),
        judged.caution,
        f"## Totals\n\n{spread} {text.SECONDS}",
        _table([strategy, *columns], list(map(text.totals_row, comparison.totals))),
        f"Relative to {comparison.strategies[0]}; in brackets the range seed by seed.",
        _table([strategy, *UNITS], ratios),
        "## Runs",
        _table([strategy, "seed", *columns, "stopped"], runs),
        "## Decisions",
        _table([strategy, "seed", "epoch", "update", "seconds", "what", "why"], decisions),
        f"## Repeat\n\n    {command}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _ratio(relative: Ratio) -> str:
    """Returns a ratio with its range by seed."""
    if relative.low == relative.high or math.isnan(relative.value):
        return text.part(relative.value)
    return f"{text.part(relative.value)} ({relative.low:.2f} to {relative.high:.2f})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(content: str) -> str:
    return " ".join(content.replace("|", "\\|").split())
