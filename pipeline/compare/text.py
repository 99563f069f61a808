"""Words of a comparison: the verdict, and numbers.  Pure."""

import math
from typing import Literal, NamedTuple

from .statistics import UNITS, Comparison, Ratio, Spread, Total

SECONDS = (
    "Seconds are of training alone and without the first epoch, which builds the graphs and is the "
    "same work for every strategy."
)


class Verdict(NamedTuple):
    """Conclusion of a comparison.

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
    """Returns the totals in sentences."""
    first, *others = comparison.totals
    if not others:
        return Verdict("unknown", f"{first.strategy} alone: nothing to compare with", ())
    best = min(others, key=lambda total: total.ratios["updates"].value)
    kind, headline = _headline(best, first, comparison.measure)
    caution = _caution(comparison)
    return Verdict(
        "unknown" if kind == "good" and caution else kind,
        headline,
        tuple(_sentence(total, comparison) for total in others),
        caution,
    )


def _headline(
    best: Total, first: Total, measure: str
) -> tuple[Literal["good", "bad", "unknown"], str]:
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
        return "good", f"{headline}, with a test {measure} that the seeds cannot tell apart"
    if change.value > 0:
        return "good", f"{headline}, and is more accurate"
    return "bad", f"{headline}, but is less accurate"


def _caution(comparison: Comparison) -> str:
    """Returns a warning where the weights kept are older than the first decision."""
    runs = len(comparison.trials)
    early = sum(not trial.decided_before_best for trial in comparison.trials)
    if 2 * early <= runs:
        return ""
    which = "every run" if early == runs else f"{early} of {runs} runs"
    return (
        f"In {which} the best epoch came before the first decision had any effect, so the test "
        f"{comparison.measure} says little about the strategies here: compare where it still rises "
        "when they act."
    )


def _sentence(total: Total, comparison: Comparison) -> str:
    first, seeds = comparison.totals[0], len(comparison.seeds)
    return (
        f"{total.strategy} reached {total.test_score.mean:.4f} test {comparison.measure} with "
        f"{_parts(total.ratios['updates'])} of {first.strategy}'s updates and "
        f"{_parts(total.ratios['seconds'])} of its seconds; {_accuracies(total, first, seeds)}."
    )


def _parts(relative: Ratio) -> str:
    """Returns a ratio, with its range where the seeds do not agree on its direction."""
    if relative.clear or math.isnan(relative.value):
        return part(relative.value)
    return f"{part(relative.value)} ({relative.low:.2f} to {relative.high:.2f} by seed)"


def _accuracies(total: Total, first: Total, seeds: int) -> str:
    change = total.difference
    if abs(change.value) < 5e-5:
        return f"{first.strategy} reached the same"
    differ = f"{first.strategy} reached {first.test_score.mean:.4f}"
    if change.by_chance is None:
        return f"{differ}, and one seed cannot tell that difference from chance"
    if change.deviations is None:
        return f"{differ}, with every one of {seeds} seeds alike"
    apart = f"{differ}, {change.deviations:.1f} standard deviations apart"
    if change.by_chance:
        return f"{apart}, which {seeds} seeds cannot tell from chance"
    return f"{apart}, more than twice the standard error of {seeds} seeds"


def number(value: float) -> str:
    """Returns a cost to three digits or the unit."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def part(value: float) -> str:
    """Returns a ratio without its range."""
    return "an unknown part" if math.isnan(value) else f"{value:.2f}"


def cost(spread: Spread) -> str:
    """Returns a cost with its spread."""
    if spread.deviation is None:
        return number(spread.mean)
    return f"{number(spread.mean)} ± {number(spread.deviation)}"


def share(spread: Spread) -> str:
    """Returns a metric with its spread."""
    if spread.deviation is None:
        return f"{spread.mean:.4f}"
    return f"{spread.mean:.4f} ± {spread.deviation:.4f}"


def totals_head(comparison: Comparison) -> list[str]:
    """Returns the columns of the table of totals."""
    return ["strategy", *UNITS, f"best {comparison.monitor}", f"test {comparison.measure}"]


def totals_row(total: Total) -> list[str]:
    """Returns a row of the table of totals."""
    costs = [cost(total.costs[unit]) for unit in UNITS]
    return [total.strategy, *costs, share(total.best), share(total.test_score)]
