"""Confidence intervals of accuracies, of their differences, and by the jackknife.  Pure."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

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


def jackknife(
    whole: "npt.NDArray[Any]", without: "npt.NDArray[Any]"
) -> tuple["npt.NDArray[Any]", "npt.NDArray[Any]"]:
    """Returns the ends of the jackknife's intervals (Efron & Tibshirani 1993, ch. 11).

    They are infinite where a single group decides whether there is an estimate.

    Args:
        whole: Estimates from all examples, [M].
        without: The same without each of the groups of examples, [groups, M].
    """
    # No command's help should wait for NumPy.
    import numpy as np
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    groups = len(without)
    margin = np.full_like(whole, np.inf)
    known = np.isfinite(without).all(axis=0) & np.isfinite(whole) & (groups > 1)
    chosen = without[:, known]
    squares = ((chosen - chosen.mean(axis=0)) ** 2).sum(axis=0)
    margin[known] = stdtrit(groups - 1, (1 + LEVEL) / 2) * np.sqrt((groups - 1) / groups * squares)
    centre = np.where(known, whole, 0.0)
    return centre - margin, centre + margin
