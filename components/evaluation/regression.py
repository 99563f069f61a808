"""R2 and the mean absolute error of a regression, from sums over its examples.  Pure.

R2, the coefficient of determination, is 1 - (sum of squared errors) / (sum of squares of labels
around their mean): the share of the labels' variance that the model explains. It is 0 for the mean
of the labels as constant answer.
"""

import math
import operator
from typing import NamedTuple


class Sums(NamedTuple):
    """Sums over examples; those of parts add up to those of the whole."""

    examples: float = 0.0
    labels: float = 0.0
    squares: float = 0.0
    """Of the labels."""
    absolute: float = 0.0
    """Of the errors."""
    squared: float = 0.0
    """Of the errors."""

    def add(self, label: float, number: float) -> "Sums":
        """Returns the sums with one more example, of which `number` is predicted."""
        error = number - label
        # Squares by ** would be an error where they are infinite.
        terms = 1.0, label, label * label, abs(error), error * error
        return Sums(*map(operator.add, self, terms))

    def r2(self) -> float:
        """Returns R2; -infinity where all labels are equal, which leaves nothing to explain."""
        spread = self.squares - self.labels * self.labels / self.examples if self.examples else 0.0
        return 1 - self.squared / spread if spread > 0 else -math.inf

    def mae(self) -> float:
        """Returns the mean absolute error; NaN without examples."""
        return self.absolute / self.examples if self.examples else math.nan
