"""Statistics of finished runs: curves, and totals of each strategy with their spread.  Pure."""

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
    """One finished run of one strategy."""

    strategy: str
    seed: int
    history: History
    """The training run, of one epoch at least."""
    test_score: float
    """Share (0 to 1) of the test split that its best weights classify correctly."""
    run: str = ""
    """Id of the pipeline run that it was read from."""

    @property
    def best(self) -> EpochRecord:
        """The epoch whose weights were exported."""
        return self.history.best or self.history.epochs[-1]

    @property
    def best_value(self) -> float:
        """The best value of the monitored metric."""
        return self.best.metrics.get(self.history.monitor, math.nan)

    @property
    def decided_before_best(self) -> bool:
        """Whether the schedule had acted by its best epoch."""
        decisions = self.history.decisions
        return bool(decisions) and decisions[0].epoch < self.best.epoch

    def axis(self, unit: Unit) -> tuple[float, ...]:
        """Returns epochs, updates or seconds of training at the end of each epoch."""
        of: Mapping[Unit, Any] = {
            "epochs": lambda record: record.epoch,
            "updates": lambda record: record.updates,
            "seconds": self.seconds,
        }
        return tuple(map(of[unit], self.history.epochs))

    def seconds(self, record: EpochRecord) -> float:
        """Returns seconds of training from the end of the first epoch to that of another.

        The first epoch is the same work for every strategy, and most of it builds graphs.
        """
        return record.seconds - self.history.epochs[0].seconds

    def cost(self, unit: Unit) -> float:
        """Returns epochs, updates or seconds of the whole run."""
        return self.axis(unit)[-1]


class Spread(NamedTuple):
    """One number from each seed, in their order."""

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
    """A cost relative to the first strategy's."""

    value: float
    """Ratio of the means."""
    low: float
    """Smallest ratio between the runs of one seed."""
    high: float
    """Largest ratio between the runs of one seed."""

    @property
    def clear(self) -> bool:
        """Whether the seeds agree on which of the two costs more; not where a ratio is unknown."""
        return self.low >= 1 or self.high <= 1


class Difference(NamedTuple):
    """Difference of a strategy's metric on the test split from that of the first."""

    value: float
    """Difference of the means, positive where the strategy is better."""
    deviations: float | None
    """The same in pooled standard deviations; None where they are 0 or not known."""
    by_chance: bool | None
    """Whether it is below twice its standard error, so that the seeds may have made it; None of a
    single seed."""


@dataclass(frozen=True)
class Total:
    """Costs and accuracy of a strategy, to where each run stopped."""

    strategy: str
    costs: Mapping[Unit, Spread]
    """Seconds are without the first epoch."""
    ratios: Mapping[Unit, Ratio]
    best: Spread
    """Best value of the monitored metric."""
    test_score: Spread
    difference: Difference


@dataclass(frozen=True)
class Curve:
    """A metric of a strategy, averaged over its seeds.

    Between the ends of two epochs a run's metric is interpolated. Runs end at different times; from
    where the first of them has ended, the mean is of those that are left.
    """

    strategy: str
    x: tuple[float, ...]
    """Epochs, updates or seconds, rising."""
    mean: tuple[float, ...]
    deviation: tuple[float | None, ...]
    """Standard deviation of the sample; None where a single run is left."""
    runs: tuple[int, ...]
    """Number of runs that the mean is of."""


@dataclass(frozen=True)
class Comparison:
    """Runs of several strategies from the same seeds on the same data."""

    trials: tuple[Trial, ...]
    """One for each strategy and seed."""

    def __post_init__(self) -> None:
        """Checks that every strategy has every seed, once, and that one metric was monitored."""
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
            "the runs of a comparison must monitor one metric",
            monitors,
            "Set the same `monitor` for all.",
        )
        require(
            all(trial.history.epochs for trial in self.trials),
            "every run of a comparison must have finished an epoch",
            [len(trial.history.epochs) for trial in self.trials],
            "Repeat the command.",
        )

    @cached_property
    def strategies(self) -> tuple[str, ...]:
        """The strategies in order; the others are compared with the first."""
        return tuple(dict.fromkeys(trial.strategy for trial in self.trials))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(sorted({trial.seed for trial in self.trials}))

    @property
    def monitor(self) -> str:
        """The metric that the schedule monitored."""
        return self.trials[0].history.monitor

    @property
    def measure(self) -> str:
        """The metric on the test split: accuracy, or r2 of a regression."""
        return "r2" if "target" in self.trials[0].history.config else "accuracy"

    def of(self, strategy: str) -> tuple[Trial, ...]:
        """Returns the runs of a strategy, in the order of the seeds."""
        trials = [trial for trial in self.trials if trial.strategy == strategy]
        return tuple(sorted(trials, key=lambda trial: trial.seed))

    @cached_property
    def ordered(self) -> tuple[Trial, ...]:
        """The runs strategy by strategy, in the order of the seeds."""
        return tuple(trial for strategy in self.strategies for trial in self.of(strategy))

    @cached_property
    def totals(self) -> tuple[Total, ...]:
        """The total of each strategy, in order."""
        return tuple(self._total(strategy) for strategy in self.strategies)

    def _total(self, strategy: str) -> Total:
        trials, first = self.of(strategy), self.of(self.strategies[0])
        accuracy = Spread(tuple(trial.test_score for trial in trials))
        costs = {unit: Spread(tuple(t.cost(unit) for t in trials)) for unit in UNITS}
        return Total(
            strategy=strategy,
            costs=costs,
            ratios={
                unit: ratio(cost.values, [trial.cost(unit) for trial in first])
                for unit, cost in costs.items()
            },
            best=Spread(tuple(trial.best_value for trial in trials)),
            test_score=accuracy,
            difference=difference(accuracy, Spread(tuple(t.test_score for t in first))),
        )

    def curves(self, unit: Unit) -> tuple[Curve, ...]:
        """Returns the monitored metric over a cost, strategy by strategy."""

        def points(trial: Trial) -> tuple[Sequence[float], Sequence[float]]:
            values = [each.metrics.get(self.monitor, math.nan) for each in trial.history.epochs]
            return trial.axis(unit), values

        return tuple(curve(name, list(map(points, self.of(name)))) for name in self.strategies)

    def to_dict(self) -> dict[str, Any]:
        """Returns every number as JSON values; those that are not finite as None."""
        plain: dict[str, Any] = _plain(
            {
                "format": FORMAT,
                "version": VERSION,
                "monitor": self.monitor,
                "strategies": self.strategies,
                "seeds": self.seeds,
                "totals": [_total_to_dict(total, self.measure) for total in self.totals],
                "runs": [
                    {
                        "strategy": trial.strategy,
                        "seed": trial.seed,
                        "run": trial.run,
                        f"test_{self.measure}": trial.test_score,
                        "stop_reason": trial.history.stop_reason,
                        "config": trial.history.config,
                        "epochs": [asdict(record) for record in trial.history.epochs],
                    }
                    for trial in self.trials
                ],
            }
        )
        return plain


def ratio(costs: Sequence[float], of_first: Sequence[float]) -> Ratio:
    """Returns costs relative to others, seed by seed; NaN if any of the others is 0."""
    if not all(of_first):
        return Ratio(math.nan, math.nan, math.nan)
    parts = [cost / other for cost, other in zip(costs, of_first, strict=True)]
    return Ratio(sum(costs) / sum(of_first), min(parts), max(parts))


def difference(accuracy: Spread, of_first: Spread) -> Difference:
    """Returns how far two sets of runs, one from each seed, lie apart.

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
    """Returns the average of runs that were measured at different places.

    Args:
        strategy: The strategy.
        runs: Of each run where it was measured, rising, and the values.
    """
    # No command's help should wait for NumPy.
    import numpy as np

    # Before the last of the first epochs has ended, some run has not been measured yet.
    start = max(x[0] for x, _ in runs)
    grid = np.unique(np.concatenate([np.asarray(x, float) for x, _ in runs]))
    means, deviations, counts = [], [], []
    for place in map(float, grid[grid >= start]):
        left = [float(np.interp(place, x, y)) for x, y in runs if place <= x[-1]]
        spread = Spread(tuple(left))
        means.append(spread.mean)
        # The deviation of NaN, which a metric may be, is no number either.
        deviations.append(spread.deviation if all(map(math.isfinite, left)) else None)
        counts.append(len(left))
    x = tuple(map(float, grid[grid >= start]))
    return Curve(strategy, x, tuple(means), tuple(deviations), tuple(counts))


def _total_to_dict(total: Total, measure: str) -> dict[str, Any]:
    spreads: dict[str, Spread] = {unit: total.costs[unit] for unit in UNITS}
    spreads |= {"best": total.best, f"test_{measure}": total.test_score}
    return {
        "strategy": total.strategy,
        **{
            name: {"mean": spread.mean, "deviation": spread.deviation, "values": spread.values}
            for name, spread in spreads.items()
        },
        "ratios": {unit: each._asdict() for unit, each in total.ratios.items()},
        f"test_{measure}_difference": total.difference._asdict(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
