import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from trainer_module.util import environment

environment.prepare()

import tensorflow_data_validation as tfdv  # noqa: E402
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2  # noqa: E402

from components.drift_gate import distances, quantiles  # noqa: E402

pytestmark = pytest.mark.component

Column = Callable[[np.random.Generator, int], npt.NDArray[np.generic]]

COLUMNS: Mapping[str, Column] = {
    "normal": lambda random, n: random.normal(size=n),
    "log_normal": lambda random, n: random.lognormal(0, 1.5, n),
    "pareto": lambda random, n: random.pareto(1.2, n),
    "cauchy": lambda random, n: random.standard_cauchy(n),
    "zero_inflated": lambda random, n: random.exponential(size=n) * (random.random(n) > 0.6),
    "counts": lambda random, n: random.poisson(1.5, n),
    "five_integers": lambda random, n: random.integers(0, 5, n),
    "rare_flag": lambda random, n: (random.random(n) < 0.03).astype(np.int64),
    "hours": lambda random, n: random.integers(0, 24, n),
    "powers_of_two": lambda random, n: 2.0 ** random.integers(0, 10, n),
    "whole_amounts": lambda random, n: np.round(random.lognormal(3, 1, n)),
}
BUCKET = 0.1
"""Share of one of StatisticsGen's ten quantile buckets."""


def statistics(frame: pd.DataFrame) -> statistics_pb2.DatasetFeatureStatisticsList:
    return tfdv.generate_statistics_from_dataframe(frame)


def read(values: npt.ArrayLike) -> quantiles.Quantiles:
    (feature,) = statistics(pd.DataFrame({"x": values})).datasets[0].features
    return quantiles.read(feature)


def tables(seed: int, rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of every kind of column, and another of the same distributions."""
    random = np.random.default_rng(seed)
    one, other = (
        pd.DataFrame({name: column(random, rows) for name, column in COLUMNS.items()})
        for _ in range(2)
    )
    return one, other


def certain(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """What DriftGate measures between two tables, by column."""
    schema = schema_pb2.Schema()
    for name, values in one.items():
        kind = schema_pb2.INT if values.dtype == np.int64 else schema_pb2.FLOAT
        schema.feature.add(name=name, type=kind)
    found = distances.distances(
        schema, statistics(one), baseline=statistics(other), other_split=None
    )
    return {check.subject or "": float(check.value) for check in found}


@pytest.mark.parametrize("rows", [500, 2_000, 20_000])
@pytest.mark.parametrize("seed", range(3))
def test_two_halves_of_one_table_are_alike_whatever_their_columns(rows: int, seed: int) -> None:
    found = certain(*tables(seed, rows))
    assert found.keys() == COLUMNS.keys()
    assert max(found.values()) < 0.05, found


@pytest.mark.parametrize("rows", [500, 5_000])
@pytest.mark.parametrize("seed", range(3))
def test_half_a_standard_deviation_is_seen(rows: int, seed: int) -> None:
    one, other = tables(seed, rows)
    # Of a Cauchy distribution there is none, and one flag of thirty hardly moves.
    steps = other.drop(columns=["cauchy", "rare_flag"]).std() / 2
    moved = other[steps.index] + [
        math.ceil(step) if other[name].dtype == np.int64 else step for name, step in steps.items()
    ]
    found = certain(one[steps.index], moved)
    assert min(found.values()) > 0.05, found


@pytest.mark.parametrize("rows", [500, 5_000])
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("name", COLUMNS)
def test_it_is_the_distance_of_the_values_but_for_two_buckets(
    name: str, shift: float, rows: int
) -> None:
    random = np.random.default_rng(rows)
    one, other = COLUMNS[name](random, rows), COLUMNS[name](random, rows) + shift
    actual = ks_2samp(one, other, method="asymp").statistic
    measured = quantiles.kolmogorov_smirnov(read(one), read(other))
    assert actual - 2 * BUCKET <= measured <= actual + 0.03
    assert quantiles.kolmogorov_smirnov(read(other), read(one)) == measured
    assert quantiles.kolmogorov_smirnov(read(one), read(one)) == 0


@pytest.mark.parametrize("low", [-np.inf, -1e300, 0.0])
@pytest.mark.parametrize("high", [np.inf, 1e300, 1.0])
def test_infinite_and_missing_values(low: float, high: float) -> None:
    random = np.random.default_rng(0)
    one, other = random.random(400), random.random(400)
    one[:60], one[-60:], one[60:90] = low, high, np.nan
    assert 0.1 < quantiles.kolmogorov_smirnov(read(one), read(other)) < 0.25


def test_statistics_without_quantiles_are_refused() -> None:
    (feature,) = statistics(pd.DataFrame({"x": [1.0, 2.0]})).datasets[0].features
    del feature.num_stats.histograms[:]
    with pytest.raises(ValueError, match="must hold a QUANTILES histogram, got 'none for x'"):
        quantiles.read(feature)
