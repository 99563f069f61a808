from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.training_report import residuals
from components.training_report.mistakes import UnfitModelError


def record(**features: float) -> bytes:
    made = tf.train.Example()
    for name, value in features.items():
        made.features.feature[name].float_list.value.append(value)
    return bytes(made.SerializeToString())


class Halving:
    """Predicts half of the feature x."""

    def __init__(self, *, transforms: bool) -> None:
        self._transforms = transforms
        self.asked: list[bytes] = []

    def numbers(self, records: Sequence[bytes]) -> Any:
        self.asked += records
        return self._feature(records, "x") / 2

    def labels(self, records: Sequence[bytes]) -> Any:
        return self._feature(records, "y") if self._transforms else None

    def _feature(self, records: Sequence[bytes], name: str) -> Any:
        parsed = [tf.train.Example.FromString(each).features.feature for each in records]
        return np.array([each[name].float_list.value[0] for each in parsed])


RECORDS = [record(x=2.0 * n, y=n + 0.5 * (n % 7)) for n in range(100)]


@pytest.mark.parametrize("transforms", [True, False])
def test_the_largest_errors_come_first(transforms: bool) -> None:
    found = residuals.find(RECORDS, Halving(transforms=transforms), label="y", shown=3)
    assert [each.error for each in found.shown] == [-3.0] * 3
    assert [each.name for each in found.shown] == ["example 7", "example 14", "example 21"]
    assert found.shown[0].columns == {"x": "12", "y": "9"}
    assert found.points[:2] == ((0.0, 0.0), (1.5, 1.0)) and len(found.points) == 100


def test_a_sample_is_spread_over_all_examples() -> None:
    model = Halving(transforms=True)
    found = residuals.find(RECORDS, model, label="y", total=100, look_at=40)
    assert (found.every, model.asked) == (3, RECORDS[::3])


def test_a_label_that_is_no_number() -> None:
    with pytest.raises(UnfitModelError, match="'z' is not one number in each example"):
        residuals.find(RECORDS, Halving(transforms=False), label="z")
