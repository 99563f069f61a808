"""Confidence intervals of accuracies and of their differences.  Pure."""

import math

LEVEL = 0.95

Interval = tuple[float, float]


def wilson(accuracy: float, examples: int) -> Interval:
    """Returns the Wilson score interval (Wilson 1927) of an accuracy.

    Args:
        accuracy: Share of examples classified correctly.
        examples: Number of examples, at least one.
    """
    # Importing scipy.stats takes half a second.
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    right = round(accuracy * examples)
    ends = binomtest(right, examples).proportion_ci(LEVEL, method="wilson")
    return float(ends.low), float(ends.high)


def difference(candidate: float, baseline: float, examples: int) -> Interval:
    """Returns Newcombe's hybrid score interval (1998, method 10) of a difference of accuracies.

    It takes the two for independent. Measured on the same examples they are correlated, mostly
    positively, so that the interval is rather too wide than too narrow.

    Args:
        candidate: Accuracy from which the other one is subtracted.
        baseline: The other accuracy.
        examples: Number of examples of each, at least one.
    """
    low, high = wilson(candidate, examples)
    low_of_baseline, high_of_baseline = wilson(baseline, examples)
    change = candidate - baseline
    return (
        change - math.hypot(candidate - low, high_of_baseline - baseline),
        change + math.hypot(high - candidate, baseline - low_of_baseline),
    )
