import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from trainer_module.util import environment

environment.prepare()

import tensorflow_data_validation as tfdv  # noqa: E402
from tensorflow_data_validation.statistics import stats_impl  # noqa: E402
from tensorflow_metadata.proto.v0 import schema_pb2  # noqa: E402

from components.drift_gate import distances  # noqa: E402
from components.gate import GateError  # noqa: E402

pytestmark = pytest.mark.component


def statistics(cats, dogs, fare=10.0):
    """Statistics of so many cats and dogs, each with a name of its own and a fare around a mean."""
    count = cats + dogs
    frame = pd.DataFrame(
        {
            "label": ["cat"] * cats + ["dog"] * dogs,
            "name": [f"{i}.png" for i in range(count)],
            "fare": np.random.default_rng(0).normal(fare, 1.0, count),
        }
    )
    return tfdv.generate_statistics_from_dataframe(frame)


def statistics_of(batch):
    return stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions())


@pytest.fixture(scope="module")
def schema():
    schema = schema_pb2.Schema()
    for name in ("label", "name"):
        schema.feature.add(name=name, type=schema_pb2.BYTES)
    schema.feature.add(name="fare", type=schema_pb2.FLOAT)
    return schema


def test_equal_data_has_not_moved_and_names_are_no_distribution(schema):
    same = statistics(60, 40)
    found = distances.distances(
        schema, same, baseline=same, other_split=same, max_drift=1e-6, max_skew=1e-6
    )
    assert {(d.metric, d.subject) for d in found} == {
        (kind, feature) for kind in ("drift", "skew") for feature in ("label", "fare")
    }
    assert all(d.value == pytest.approx(0, abs=1e-6) and d.passed for d in found)


def test_a_share_that_moves_is_its_difference(schema):
    found = distances.distances(
        schema, statistics(60, 40), baseline=statistics(90, 10), other_split=None, max_drift=0.05
    )
    (label,) = (d for d in found if d.subject == "label")
    assert label.value == pytest.approx(0.3 - distances.sampling_error(100, 100))
    assert (label.metric, label.threshold, label.passed) == ("drift", 0.05, False)
    with pytest.raises(GateError, match=r"L-infinity distance 0\.3000 less the sampling"):
        distances.check(found)


def test_numbers_that_move(schema):
    found = distances.distances(
        schema,
        statistics(50, 50),
        baseline=None,
        other_split=statistics(50, 50, fare=30.0),
        max_skew=0.7,
    )
    assert [d.metric for d in found] == ["skew", "skew"]
    fare = found[0]
    assert fare.subject == "fare"
    assert fare.value > 0.8
    with pytest.raises(GateError, match="skew of fare"):
        distances.check(found)


def test_without_a_bound_everything_passes(schema):
    found = distances.distances(
        schema, statistics(50, 50), baseline=statistics(5, 95, fare=99), other_split=None
    )
    assert max(d.value for d in found) > 0.8
    distances.check(found)


def test_a_column_whose_type_changed_has_nothing_in_common(schema):
    words = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"fare": ["ten"] * 100}))
    (fare,) = distances.distances(schema, statistics(50, 50), baseline=words, other_split=None)
    assert fare.value == 1 - distances.sampling_error(100, 100)
    assert fare.note.startswith("values of another type")


@pytest.mark.parametrize("values", [None, [], [float("nan")]], ids=["missing", "empty", "NaN"])
def test_a_column_without_a_value_is_compared_with_nothing(schema, values):
    column = pa.array([values] * 100, pa.list_(pa.float32()))
    empty = statistics_of(pa.RecordBatch.from_arrays([column], ["fare"]))
    for one, other in ((empty, statistics(50, 50)), (statistics(50, 50), empty)):
        assert distances.distances(schema, one, baseline=other, other_split=None) == ()


def test_integers_that_are_categories_have_the_distance_of_categories():
    schema = schema_pb2.Schema()
    feature = schema.feature.add(name="code", type=schema_pb2.INT)
    feature.int_domain.is_categorical = True
    options = tfdv.StatsOptions(schema=schema)
    one, other = (
        tfdv.generate_statistics_from_dataframe(pd.DataFrame({"code": codes}), options)
        for codes in ([0] * 500 + [1] * 500, [0] * 200 + [1] * 500 + [2] * 300)
    )
    (code,) = distances.distances(schema, one, baseline=None, other_split=other)
    assert "L-infinity distance 0.3000" in code.note
