"""Results of an Evaluator as plain values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from components import gate
from components.evaluation import interval
from components.evaluation.interval import Interval
from components.gate import Check

OVERALL = "all examples"
ACCURACY, CROSSENTROPY = "accuracy", "crossentropy"
OF_TWO = ("roc_auc", "pr_auc", "precision", "recall", "f1")
"""Metrics of two classes, the second one as positive."""
R2, MAE, RMSE = "r2", "mae", "rmse"
ENDS = {metric: (f"{metric}_low", f"{metric}_high") for metric in (R2, MAE)}
"""Metrics that are the ends of another one's 95 % interval."""
# With the names that Keras gives its metrics.
_ERRORS = {R2, MAE, RMSE, "mean_absolute_error", "mean_squared_error", "root_mean_squared_error"}
EXAMPLE_COUNT = "example_count"

# Of `components.evaluation.metrics`.
ABOVE_MAJORITY = "accuracy_above_majority"
WITHOUT_EXAMPLES = "classes_without_examples"
SHARED_ACCURACY = "accuracy_shared_classes"
SHARED_EXAMPLES = "examples_shared_classes"

_PREDICTED_NOTHING = -1
# Of the largest class, a rare one has at most a fifth; and it is much weaker by a tenth.
_RARE, _MUCH_WEAKER = 5, 0.1


@dataclass(frozen=True)
class SliceMetrics:
    """Metrics of one model on one slice of the evaluated split.

    Attributes:
        examples: Number of examples; None where the evaluation did not count them.
        values: Value of each metric, by its name in the EvalConfig.
        intervals: 95 % confidence intervals of those metrics that have one beside the accuracy.
    """

    examples: int | None
    values: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> float:
        return self.values[metric]

    def interval(self, metric: str) -> Interval | None:
        """Returns the 95 % confidence interval of a metric; None where it is not known."""
        value = self.values.get(metric, math.nan)
        if metric == ACCURACY and self.examples and 0 <= value <= 1:
            return interval.wilson(value, self.examples)
        return self.intervals.get(metric)


@dataclass(frozen=True)
class ConfusionMatrix:
    """Examples by actual and predicted class, the most probable one being the prediction.

    Attributes:
        classes: Class names in the order of the label indices; empty where they are not known.
        counts: Examples by (index of the actual class, index of the predicted one), without
            zeros. An index outside the classes stands for a label that is none of them.
    """

    classes: tuple[str, ...]
    counts: Mapping[tuple[int, int], float]

    @property
    def indices(self) -> tuple[int, ...]:
        """Every class's index, and those outside the classes that occur, in order."""
        counted = {index for pair in self.counts for index in pair}
        return tuple(sorted(counted | set(range(len(self.classes)))))

    def name(self, index: int) -> str:
        """Returns the class of an index."""
        if index == _PREDICTED_NOTHING:
            return "(none)"
        return class_name(index, self.classes)

    def totals(self) -> dict[int, float]:
        """Returns the number of examples of each class, by its index."""
        totals = dict.fromkeys(self.indices, 0.0)
        for (actual, _), count in self.counts.items():
            totals[actual] += count
        return totals

    def confusions(self) -> tuple[tuple[int, int, float], ...]:
        """Returns (actual, predicted, examples) of each mistake, the most frequent first."""
        wrong = [(a, p, n) for (a, p), n in self.counts.items() if a != p]
        return tuple(sorted(wrong, key=lambda item: (-item[2], item[0], item[1])))

    def most_confused(self, limit: int) -> tuple[int, ...]:
        """Returns the classes of the most frequent mistakes, in their order, then others."""
        pairs = (
            index for actual, predicted, _ in self.confusions() for index in (actual, predicted)
        )
        ranked = dict.fromkeys((*pairs, *self.indices))
        return tuple(sorted(list(ranked)[:limit]))


class AtThreshold(NamedTuple):
    """Metrics of two classes where the second is predicted from a probability on.

    Attributes:
        threshold: The least probability.
        precision: Share of the examples predicted as the class that are of it.
        recall: Share of the examples of the class that are predicted as it.
        f1: Their harmonic mean.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Calibration:
    """Calibration of the probabilities of the second of two classes.

    Attributes:
        name: The class.
        points: (mean probability, share of examples that are of the class, examples) of each bin of
            examples with similar probabilities, rising.
        thresholds: What other thresholds than 0.5 would give, rising; as far as an example would be
            predicted as the class.
    """

    name: str
    points: tuple[tuple[float, float, float], ...]
    thresholds: tuple[AtThreshold, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Results of the Evaluator.

    Attributes:
        candidate: The trained model over all examples.
        baseline: The last blessed model on the same examples; None where there was none.
        classes: The trained model in each class, the worst first.
        gates: Every bound, overall ones first.
        problems: What failed the model beyond the gates, such as a metric that is missing.
        baseline_classes: The baseline in each class, by class.
        slices: The trained model in every other slice, by its name, such as "hour = 8".
        matrix: Confusion matrix of the trained model; None where it was not asked for.
        calibration: Calibration of the trained model; None where it was not asked for.
        ranked_by: Metric that says which class is worst.
        higher_is_better: Whether more of that metric is better.
        unseen: Classes of which no example was evaluated.
    """

    candidate: SliceMetrics
    baseline: SliceMetrics | None
    classes: tuple[tuple[str, SliceMetrics], ...]
    gates: tuple[Check, ...]
    problems: tuple[str, ...] = ()
    baseline_classes: Mapping[str, SliceMetrics] = field(default_factory=dict)
    slices: tuple[tuple[str, SliceMetrics], ...] = ()
    matrix: ConfusionMatrix | None = None
    calibration: Calibration | None = None
    ranked_by: str = "accuracy"
    higher_is_better: bool = True
    unseen: tuple[str, ...] = ()

    @property
    def headline(self) -> str | None:
        """The metric that a model is known by: accuracy, or R2; None where there is neither."""
        return next((name for name in (ACCURACY, R2) if name in self.candidate.values), None)

    @property
    def is_regression(self) -> bool:
        """Whether the model predicts numbers: errors are measured, and no accuracy."""
        return self.headline != ACCURACY and bool(_ERRORS & set(self.candidate.values))

    @property
    def chance(self) -> float:
        """Accuracy that a uniformly random answer has in each class; NaN without two classes."""
        classes = len(self.classes) + len(self.unseen)
        return 1 / classes if classes > 1 else math.nan

    @property
    def at_chance(self) -> tuple[tuple[str, SliceMetrics], ...]:
        """The classes in which the trained model is at or below chance."""
        return tuple(
            (name, metrics)
            for name, metrics in self.classes
            if metrics.values.get(ACCURACY, math.inf) <= self.chance
        )

    @property
    def neglected(self) -> tuple[tuple[str, SliceMetrics], ...]:
        """Rare classes in which the trained model is much weaker than over all examples."""
        counts = [metrics.examples or 0 for _, metrics in self.classes]
        overall = self.candidate.values.get(ACCURACY, math.nan)
        return tuple(
            (name, metrics)
            for name, metrics in self.classes
            if (metrics.examples or 0) * _RARE <= max(counts)
            and metrics.values.get(ACCURACY, math.inf) <= overall - _MUCH_WEAKER
        )

    @property
    def failed(self) -> tuple[Check, ...]:
        """The gates that were not passed."""
        return gate.failed(self.gates)


def class_name(value: str | int, classes: Sequence[str]) -> str:
    """Returns the class that a slice's value or a label index stands for.

    Args:
        value: A class name, or the index of a label.
        classes: Class names in the order of the label indices; empty where they are not known.
    """
    if isinstance(value, str):
        return value
    if not classes:
        return str(value)
    return classes[value] if 0 <= value < len(classes) else f"unknown ({value})"


def read(folder: str, classes: Sequence[str] = (), *, rounding: float = 0.0) -> Evaluation:
    """Reads what an Evaluator wrote.

    Args:
        folder: Folder or URI of a ModelEvaluation.
        classes: Class names in the order of the label indices.
        rounding: By how much each bound was made looser to allow for rounding; it is taken back.

    Raises:
        UserError: The folder holds no evaluation.
    """
    # TFMA takes seconds to import.
    from components.evaluation import reader

    return reader.read(folder, classes, rounding)
