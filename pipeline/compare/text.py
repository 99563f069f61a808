"""A comparison in words: the verdict, and Markdown tables.  Pure."""

import math
from typing import Literal, NamedTuple

from trainer_module.schedule.strategy import ACTIONS

from .statistics import UNITS, Comparison, Ratio, Spread, Total

SECONDS = (
    "Seconds are of training alone and without the first epoch, which builds the graphs and is the "
    "same work for every strategy."
)


class Verdict(NamedTuple):
    """What a comparison says.

    Attributes:
        kind: good: a strategy took fewer updates than the first, and its accuracy is not worse;
            bad: it is worse; unknown: the runs cannot tell, or nothing was saved.
        headline: About the strategy that took the fewest updates.
        sentences: About each strategy but the first.
        caution: Why the accuracies say little about the strategies; empty where they do.
    """

    kind: Literal["good", "bad", "unknown"]
    headline: str
    sentences: tuple[str, ...]
    caution: str = ""


def verdict(comparison: Comparison) -> Verdict:
    """Put the totals in sentences."""
    first, *others = comparison.totals
    if not others:
        return Verdict("unknown", f"{first.strategy} alone: nothing to compare with", ())
    best = min(others, key=lambda total: total.ratios["updates"].value)
    kind, headline = _headline(best, first)
    caution = _caution(comparison)
    return Verdict(
        "unknown" if kind == "good" and caution else kind,
        headline,
        tuple(_sentence(total, first, len(comparison.seeds)) for total in others),
        caution,
    )


def _headline(best: Total, first: Total) -> tuple[Literal["good", "bad", "unknown"], str]:
    updates, seconds = best.ratios["updates"], best.ratios["seconds"]
    if updates.value >= 1 or not updates.clear:
        return "unknown", f"No strategy clearly took fewer updates than {first.strategy}"
    joined = "but" if seconds.clear and seconds.value > 1 else "and"
    headline = (
        f"{best.strategy} took {updates.value:.2f} of {first.strategy}'s updates "
        f"{joined} {_parts(seconds)} of its seconds"
    )
    change = best.difference
    if change.by_chance is None:
        return "unknown", f"{headline}, with one seed"
    if change.by_chance:
        return "good", f"{headline}, with accuracies that the seeds cannot tell apart"
    if change.value > 0:
        return "good", f"{headline}, and is more accurate"
    return "bad", f"{headline}, but is less accurate"


def _caution(comparison: Comparison) -> str:
    """Whether the weights that were kept are older than the first decision of their schedule."""
    runs = len(comparison.trials)
    early = sum(not trial.decided_before_best for trial in comparison.trials)
    if 2 * early <= runs:
        return ""
    which = "every run" if early == runs else f"{early} of {runs} runs"
    return (
        f"In {which} the best epoch came before the first decision had any effect, so accuracy "
        "says little about the strategies here: compare where it still rises when they act."
    )


def _sentence(total: Total, first: Total, seeds: int) -> str:
    return (
        f"{total.strategy} reached {total.test_accuracy.mean:.4f} test accuracy with "
        f"{_parts(total.ratios['updates'])} of {first.strategy}'s updates and "
        f"{_parts(total.ratios['seconds'])} of its seconds; {_accuracies(total, first, seeds)}."
    )


def _parts(found: Ratio) -> str:
    """A ratio; with its range, where the seeds do not agree on its direction."""
    if found.clear or math.isnan(found.value):
        return part(found.value)
    return f"{part(found.value)} ({found.low:.2f} to {found.high:.2f} by seed)"


def _accuracies(total: Total, first: Total, seeds: int) -> str:
    change = total.difference
    if abs(change.value) < 5e-5:
        return f"{first.strategy} reached the same"
    differ = f"{first.strategy} reached {first.test_accuracy.mean:.4f}"
    if change.by_chance is None:
        return f"{differ}, and one seed cannot tell that difference from chance"
    if change.deviations is None:
        return f"{differ}, with every one of {seeds} seeds alike"
    apart = f"{differ}, {change.deviations:.1f} standard deviations apart"
    if change.by_chance:
        return f"{apart}, which {seeds} seeds cannot tell from chance"
    return f"{apart}, more than twice the standard error of {seeds} seeds"


def number(value: float) -> str:
    """A cost, to four digits or the unit."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def part(value: float) -> str:
    """A ratio without its range."""
    return "an unknown part" if math.isnan(value) else f"{value:.2f}"


def cost(spread: Spread) -> str:
    """A cost with its spread."""
    if spread.deviation is None:
        return number(spread.mean)
    return f"{number(spread.mean)} ± {number(spread.deviation)}"


def share(spread: Spread) -> str:
    """A metric with its spread."""
    if spread.deviation is None:
        return f"{spread.mean:.4f}"
    return f"{spread.mean:.4f} ± {spread.deviation:.4f}"


def ratio(found: Ratio) -> str:
    """A ratio with its range by seed."""
    if found.low == found.high or math.isnan(found.value):
        return part(found.value)
    return f"{part(found.value)} ({found.low:.2f} to {found.high:.2f})"


def markdown(comparison: Comparison, title: str, command: str) -> str:
    """The tables of a comparison for a document.

    Args:
        comparison: The runs.
        title: Heading.
        command: Command that repeats the comparison.
    """
    found = verdict(comparison)
    seeds = len(comparison.seeds)
    first = comparison.strategies[0]
    totals = _table(
        ["strategy", *UNITS, f"best {comparison.monitor}", "test accuracy"],
        [
            [
                total.strategy,
                *(cost(total.costs[unit]) for unit in UNITS),
                share(total.best),
                share(total.test_accuracy),
            ]
            for total in comparison.totals
        ],
    )
    ratios = _table(
        ["strategy", *UNITS],
        [
            [total.strategy, *(ratio(total.ratios[unit]) for unit in UNITS)]
            for total in comparison.totals[1:]
        ],
    )
    runs = _table(
        ["strategy", "seed", *UNITS, f"best {comparison.monitor}", "test accuracy", "stopped"],
        [
            [
                trial.strategy,
                str(trial.seed),
                *(number(trial.cost(unit)) for unit in UNITS),
                f"{trial.best_value:.4f} (epoch {trial.best.epoch})",
                f"{trial.test_accuracy:.4f}",
                trial.history.stop_reason,
            ]
            for strategy in comparison.strategies
            for trial in comparison.of(strategy)
        ],
    )
    decisions = _table(
        ["strategy", "seed", "epoch", "update", "seconds", "what", "why"],
        [
            [
                trial.strategy,
                str(trial.seed),
                str(record.epoch),
                f"{record.updates:,}",
                f"{trial.seconds(record):.1f}",
                ACTIONS.get(record.action, record.action),
                record.reason,
            ]
            for strategy in comparison.strategies
            for trial in comparison.of(strategy)
            for record in trial.history.decisions
        ],
    )
    spread = f"Mean ± standard deviation over {seeds} seeds." if seeds > 1 else "One seed."
    return "\n".join(
        [
            f"# {_cell(title)}",
            "",
            f"**{found.headline}.**",
            "",
            *(f"- {sentence}" for sentence in found.sentences),
            "",
            *([found.caution, ""] if found.caution else []),
            f"## Totals\n\n{spread} {SECONDS}",
            "",
            totals,
            "",
            f"In parts of {first}'s; in brackets the range seed by seed.",
            "",
            ratios,
            "",
            f"## Runs\n\n{runs}",
            "",
            f"## Decisions\n\n{decisions}",
            "",
            f"## Repeat\n\n    {command}",
            "",
        ]
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
