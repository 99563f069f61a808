import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.compose import TransformedTargetRegressor
from sklearn.preprocessing import StandardScaler

from trainer_module.target import Target

LABELS = st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=30)


@settings(deadline=None)
@given(LABELS, st.booleans())
@example([0.0, 1.1754943508222875e-38], False)
def test_the_label_comes_back(labels: list[float], is_log: bool) -> None:
    target = Target.of(np.array(labels, np.float32), is_log=is_log)
    z = target.standardised(tf.constant(labels))
    again = target.label(z).numpy()
    assert again == pytest.approx(labels, rel=1e-4, abs=1e-4 * (1 + max(labels)))


def test_the_scale_is_that_of_scikit_learn() -> None:
    labels = np.array([1.0, 2.0, 4.0, 100.0], np.float32)
    expected = StandardScaler().fit_transform(np.log1p(labels)[:, None])[:, 0]
    z = Target.of(labels, is_log=True).standardised(tf.constant(labels))
    assert z.numpy() == pytest.approx(expected, abs=1e-5)


def test_labels_that_are_all_equal() -> None:
    target = Target.of(np.array([3.0, 3.0]), is_log=False)
    assert target.label(target.standardised(tf.constant([3.0, 4.0]))).numpy().tolist() == [3, 4]


@pytest.mark.parametrize("is_log", [False, True])
def test_errors_in_both_units(is_log: bool) -> None:
    labels = np.array([1.0, 2.0, 4.0, 9.0])
    predicted = np.array([1.5, 2.0, 3.0, 12.0])
    target = Target.of(labels, is_log=is_log)
    outputs = target.standardised(tf.constant(predicted))[:, None]
    absolute = target.absolute_error(tf.constant(labels), outputs).numpy()
    assert absolute == pytest.approx(np.abs(labels - predicted), abs=1e-5)
    scale = TransformedTargetRegressor(transformer=StandardScaler(), func=None).transformer.fit(
        (np.log1p(labels) if is_log else labels)[:, None]
    )
    one, other = (
        scale.transform((np.log1p(y) if is_log else y)[:, None])[:, 0] for y in (labels, predicted)
    )
    squared = target.squared_error(tf.constant(labels), outputs).numpy()
    assert squared == pytest.approx((one - other) ** 2, abs=1e-5)
