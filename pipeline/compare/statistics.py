"""Finished runs of several strategies as curves and totals with their spread.  Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple, TypeAlias

from trainer_module.history import EpochRecord, History
from trainer_module.util.checks import require

Unit: TypeAlias = Literal["epochs", "updates", "seconds"]

UNITS: tuple[Unit, ...] = ("epochs", "updates", "seconds")
"""What training costs, and so what a curve may be drawn over."""

FORMAT, VERSION = "plateau-comparison", 1


@dataclass(frozen=True)
class Trial:
    """One finished run of one strategy.

    Attributes:
        strategy: The strategy.
        seed: Its seed.
        history: The training run, of one epoch at least.
        test_accuracy: Share (0 to 1) of the test split that its best weights classify correctly.
        run: Id of the pipeline run that it was read from.
    """

    strategy: str
    seed: int
    history: History
    test_accuracy: float
    run: str = ""

    @property
    def best(self) -> EpochRecord:
        """The epoch whose weights were exported."""
        return self.history.best or self.history.epochs[-1]

    @property
    def best_value(self) -> float:
        """The best value of the metric that steered the schedule."""
        return self.best.metrics.get(self.history.monitor, math.nan)

    @property
    def decided_before_best(self) -> bool:
        """Whether the schedule had done anything by its best epoch, and so had a part in it."""
        decisions = self.history.decisions
        return bool(decisions) and decisions[0].epoch < self.best.epoch

    def axis(self, unit: Unit) -> tuple[float, ...]:
        """Epochs, updates or seconds of training at the end of each epoch."""
        records = self.history.epochs
        if unit == "epochs":
            return tuple(record.epoch for record in records)
        if unit == "updates":
            return tuple(record.updates for record in records)
        return tuple(self.seconds(record) for record in records)

    def seconds(self, record: EpochRecord) -> float:
        """Seconds of training from the end of the first epoch to that of another.

        What comes before is the same work whatever the strategy, and most of it is the building of
        graphs.
        """
        return record.seconds - self.history.epochs[0].seconds

    def cost(self, unit: Unit) -> float:
        """Epochs, updates or seconds that the whole run took."""
        return self.axis(unit)[-1]


class Spread(NamedTuple):
    """One number from each seed.

    Attributes:
        values: The numbers, in the order of the seeds.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the sample (n - 1); None of a single value."""
        return stdev(self.values) if len(self.values) > 1 else None


class Ratio(NamedTuple):
    """A cost in parts of the first strategy's.

    Attributes:
        value: Ratio of the means.
        low: Smallest ratio between the runs of one seed.
        high: Largest ratio between the runs of one seed.
    """

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the seeds agree on which of the two costs more; not where a ratio is unknown."""
        return self.low >= 1 or self.high <= 1


class Difference(NamedTuple):
    """How far a strategy's test accuracy lies from that of the first.

    Attributes:
        value: Difference of the means, positive where the strategy is better.
        deviations: The same in pooled standard deviations; None where they are 0 or not known.
        by_chance: Whether it is below twice its standard error, so that the seeds may have made
            it; None of a single seed.
    """

    value: float
    deviations: float | None
    by_chance: bool | None


@dataclass(frozen=True)
class Total:
    """What a strategy came to.

    Attributes:
        strategy: The strategy.
        costs: Epochs, updates and seconds of training, to where each run stopped; seconds without
            the first epoch.
        ratios: The same in parts of the first strategy's.
        best: Best value of the metric that steered the schedule.
        test_accuracy: Share of the test split classified correctly.
        difference: Of the test accuracy, from the first strategy's.
    """

    strategy: str
    costs: Mapping[Unit, Spread]
    ratios: Mapping[Unit, Ratio]
    best: Spread
    test_accuracy: Spread
    difference: Difference


@dataclass(frozen=True)
class Curve:
    """A metric of a strategy, averaged over its seeds.

    Between the ends of two epochs a run's metric is taken to change evenly. Runs end at different
    times; from where the first of them has ended, the mean is of those that are left.

    Attributes:
        strategy: The strategy.
        x: Epochs, updates or seconds, rising.
        mean: Mean over the runs.
        deviation: Standard deviation of the sample; None where a single run is left.
        runs: Runs that the mean is of.
    """

    strategy: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float | None, ...]
    runs: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs of several strategies from the same seeds on the same data.

    Attributes:
        trials: One for each strategy and seed.
    """

    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        """Check that every strategy has every seed, once, and that one metric steered them all."""
        pairs = [(trial.strategy, trial.seed) for trial in self.trials]
        whole = [(strategy, seed) for strategy in self.strategies for seed in self.seeds]
        require(
            bool(pairs) and sorted(pairs) == sorted(whole),
            "a comparison must hold one run of each strategy for each seed",
            pairs,
            "Repeat the command, which trains what is missing.",
        )
        monitors = sorted({trial.history.monitor for trial in self.trials})
        require(
            len(monitors) == 1,
            "the runs of a comparison must be steered by one metric",
            monitors,
            "Give them all the same --monitor.",
        )
        require(
            all(trial.history.epochs for trial in self.trials),
            "every run of a comparison must have finished an epoch",
            [len(trial.history.epochs) for trial in self.trials],
            "Repeat the command.",
        )

    @cached_property
    def strategies(self) -> tuple[str, ...]:
        """The strategies in order; the others are measured against the first."""
        return tuple(dict.fromkeys(trial.strategy for trial in self.trials))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(sorted({trial.seed for trial in self.trials}))

    @property
    def monitor(self) -> str:
        """The metric that steered the schedule."""
        return self.trials[0].history.monitor

    def of(self, strategy: str) -> tuple[Trial, ...]:
        """The runs of a strategy, in the order of the seeds."""
        found = [trial for trial in self.trials if trial.strategy == strategy]
        return tuple(sorted(found, key=lambda trial: trial.seed))

    @cached_property
    def totals(self) -> tuple[Total, ...]:
        """What each strategy came to, in order."""
        return tuple(self._total(strategy) for strategy in self.strategies)

    def _total(self, strategy: str) -> Total:
        trials, first = self.of(strategy), self.of(self.strategies[0])
        accuracy = Spread(tuple(trial.test_accuracy for trial in trials))
        return Total(
            strategy=strategy,
            costs={unit: Spread(tuple(t.cost(unit) for t in trials)) for unit in UNITS},
            ratios={
                unit: ratio([t.cost(unit) for t in trials], [t.cost(unit) for t in first])
                for unit in UNITS
            },
            best=Spread(tuple(trial.best_value for trial in trials)),
            test_accuracy=accuracy,
            difference=difference(accuracy, Spread(tuple(t.test_accuracy for t in first))),
        )

    def curves(self, unit: Unit) -> tuple[Curve, ...]:
        """The metric that steered the schedule over a cost, strategy by strategy."""
        return tuple(
            curve(
                strategy,
                [
                    (trial.axis(unit), [r.metrics.get(self.monitor, math.nan) for r in records])
                    for trial in self.of(strategy)
                    for records in [trial.history.epochs]
                ],
            )
            for strategy in self.strategies
        )

    def to_dict(self) -> dict[str, Any]:
        """Every number, as JSON values; those that are not finite as None."""
        found: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "monitor": self.monitor,
            "strategies": list(self.strategies),
            "seeds": list(self.seeds),
            "totals": [_total_to_dict(total) for total in self.totals],
            "curves": {unit: [asdict(found) for found in self.curves(unit)] for unit in UNITS},
            "runs": [
                {
                    "strategy": trial.strategy,
                    "seed": trial.seed,
                    "run": trial.run,
                    "test_accuracy": trial.test_accuracy,
                    "stop_reason": trial.history.stop_reason,
                    "config": trial.history.config,
                    "epochs": [asdict(record) for record in trial.history.epochs],
                }
                for trial in self.trials
            ],
        }
        plain: dict[str, Any] = _plain(found)
        return plain


def ratio(costs: Sequence[float], of_first: Sequence[float]) -> Ratio:
    """Costs in parts of others, seed by seed; NaN if any of the others is 0."""
    parts = [
        cost / other if other else math.nan for cost, other in zip(costs, of_first, strict=True)
    ]
    if any(map(math.isnan, parts)):
        return Ratio(math.nan, math.nan, math.nan)
    return Ratio(sum(costs) / sum(of_first), min(parts), max(parts))


def difference(accuracy: Spread, of_first: Spread) -> Difference:
    """How far two sets of runs, one from each seed, lie apart.

    The pooled variance of two sets of n is the mean s^2 of their variances, and the standard
    error of the difference of their means s sqrt(2 / n) (Student's two-sample statistic). Twice
    that is a rule of thumb, and with two or three seeds a mild one.
    """
    value = accuracy.mean - of_first.mean
    one, other = accuracy.deviation, of_first.deviation
    if one is None or other is None:
        return Difference(value, None, None)
    pooled = math.sqrt((one**2 + other**2) / 2)
    error = pooled * math.sqrt(2 / len(accuracy.values))
    # Equal numbers may differ in their last bit once averaged.
    by_chance = abs(value) <= max(2 * error, 1e-12)
    return Difference(value, abs(value) / pooled if pooled else None, by_chance)


def curve(strategy: str, runs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Curve:
    """Average runs that were measured at different places.

    Args:
        strategy: The strategy.
        runs: Of each run where it was measured, rising, and what.
    """
    # No command's help should wait for NumPy.
    import numpy as np

    # Before the last of the first epochs has ended, some run has not been measured yet.
    start = max(x[0] for x, _ in runs)
    grid = np.unique(np.concatenate([np.asarray(x, float) for x, _ in runs]))
    grid = grid[grid >= start]
    values = np.array([np.interp(grid, x, y, right=math.nan) for x, y in runs])
    going = np.array([grid <= x[-1] for x, _ in runs])
    counts = going.sum(axis=0)
    means, deviations = [], []
    for column, here in zip(values.T, going.T, strict=True):
        spread = Spread(tuple(float(value) for value in column[here]))
        means.append(spread.mean)
        # The deviation of NaN, which a metric may be, is no number either.
        finite = all(map(math.isfinite, spread.values))
        deviations.append(spread.deviation if finite else None)
    return Curve(
        strategy,
        tuple(map(float, grid)),
        tuple(means),
        tuple(deviations),
        tuple(map(int, counts)),
    )


def _total_to_dict(total: Total) -> dict[str, Any]:
    spreads: dict[str, Spread] = {unit: total.costs[unit] for unit in UNITS}
    spreads |= {"best": total.best, "test_accuracy": total.test_accuracy}
    return {
        "strategy": total.strategy,
        **{
            name: {"mean": spread.mean, "deviation": spread.deviation, "values": spread.values}
            for name, spread in spreads.items()
        },
        "ratios": {unit: found._asdict() for unit, found in total.ratios.items()},
        "test_accuracy_difference": total.difference._asdict(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
