import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from trainer_module.config import LoopConfig, TableFeatures, TrainConfig
from trainer_module.run_fn import _class_weight
from trainer_module.training.data import Split

FEATURES = TableFeatures(numeric=("x",))


def test_weights_are_those_of_scikit_learn() -> None:
    y = np.array([0] * 90 + [1] * 9 + [3] * 1)
    split = Split(np.zeros((100, 1)), y)
    loop = LoopConfig(class_weight="balanced")
    weights = _class_weight(TrainConfig(FEATURES, tuple("abcd"), loop=loop), split)
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=y)
    assert [weights[index] for index in (0, 1, 3)] == pytest.approx(expected)
    assert np.mean([weights[index] for index in y]) == pytest.approx(1)
    assert set(weights) == {0, 1, 2, 3}, "a class without examples must not stop a lookup"
    assert _class_weight(TrainConfig(FEATURES, ("a", "b")), split) is None


def test_numbers_have_no_classes() -> None:
    features = TableFeatures(numeric=("x",), task="regression")
    with pytest.raises(ValueError, match="`class_weight` is for classification"):
        TrainConfig(features, (), loop=LoopConfig(class_weight="balanced"))
