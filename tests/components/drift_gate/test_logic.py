import numpy as np
import pandas as pd
import pytest

from trainer_module import environment

environment.prepare()

import tensorflow_data_validation as tfdv  # noqa: E402
from tensorflow_metadata.proto.v0 import schema_pb2  # noqa: E402

from components.drift_gate import logic  # noqa: E402
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


@pytest.fixture(scope="module")
def schema():
    schema = schema_pb2.Schema()
    for name in ("label", "name"):
        schema.feature.add(name=name, type=schema_pb2.BYTES)
    schema.feature.add(name="fare", type=schema_pb2.FLOAT)
    return schema


def test_equal_data_has_not_moved_and_names_are_no_distribution(schema):
    same = statistics(60, 40)
    found = logic.distances(
        schema, same, baseline=same, other_split=same, max_drift=1e-6, max_skew=1e-6
    )
    assert {(d.metric, d.subject) for d in found} == {
        (kind, feature) for kind in ("drift", "skew") for feature in ("label", "fare")
    }
    assert all(d.value == pytest.approx(0, abs=1e-6) and d.passed for d in found)


def test_a_share_that_moves_is_its_difference(schema):
    found = logic.distances(
        schema, statistics(60, 40), baseline=statistics(90, 10), other_split=None, max_drift=0.2
    )
    (label,) = (d for d in found if d.subject == "label")
    assert label.value == pytest.approx(0.3)
    assert (label.metric, label.threshold, label.passed) == ("drift", 0.2, False)
    with pytest.raises(GateError, match=r"drift of label is 0\.3000, must be <= 0\.2000"):
        logic.check(found)


def test_numbers_that_move(schema):
    found = logic.distances(
        schema,
        statistics(50, 50),
        baseline=None,
        other_split=statistics(50, 50, fare=30.0),
        max_skew=0.9,
    )
    assert [d.metric for d in found] == ["skew", "skew"]
    fare = found[0]
    assert fare.subject == "fare"
    assert fare.value > 0.95
    with pytest.raises(GateError, match="skew of fare"):
        logic.check(found)


def test_without_a_bound_everything_passes(schema):
    found = logic.distances(
        schema, statistics(50, 50), baseline=statistics(5, 95, fare=99), other_split=None
    )
    assert max(d.value for d in found) > 0.9
    logic.check(found)
