import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, r2_score
from threadpoolctl import threadpool_limits

from benchmarks import boosting
from pipeline.data import inference
from trainer_module.config import TableFeatures

FEATURES = TableFeatures(numeric=("x",), categorical=("c", "doors"), label="y")


def table(rows: int, colours: str) -> pd.DataFrame:
    random = np.random.default_rng(rows)
    frame = pd.DataFrame(
        {
            "x": random.normal(size=rows),
            "c": random.choice(list(colours), rows),
            "doors": random.integers(2, 5, rows),
        }
    )
    frame["y"] = np.where((frame["x"] > 0) ^ (frame["c"] == "r") ^ (frame["doors"] > 3), "b", "a")
    frame.loc[::7, "x"] = np.nan
    frame.loc[::11, "c"] = None
    return frame


def records(frame: pd.DataFrame) -> list[bytes]:
    made = []
    for row in frame.to_dict("records"):
        example = tf.train.Example()
        for name, value in row.items():
            feature = example.features.feature[name]
            if isinstance(value, str):
                feature.bytes_list.value.append(value.encode())
            elif isinstance(value, int):
                feature.int64_list.value.append(value)
            elif value is not None and np.isfinite(value):
                feature.float_list.value.append(value)
        made.append(example.SerializeToString())
    return made


# The threads of OpenMP would wait for each other at each of thousands of small steps.
@threadpool_limits.wrap(limits=1)
def test_boosting_sees_what_a_data_frame_of_the_same_columns_would_show_it():
    """Missing values and categories that training has not seen, too."""
    train, test = table(600, "rgb"), table(200, "rgbw")
    predicted = boosting.boost(records(train), records(test), FEATURES, "accuracy")
    for name in FEATURES.categorical:
        kind = pd.CategoricalDtype(list(dict.fromkeys(train[name].dropna())))
        train[name], test[name] = train[name].astype(kind), test[name].astype(kind)
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    model.fit(train[list(FEATURES.inputs)].astype({"x": "float32"}), train["y"])
    expected = model.predict(test[list(FEATURES.inputs)].astype({"x": "float32"}))
    np.testing.assert_array_equal(predicted, expected)
    assert 0.8 < np.mean(predicted == test["y"]) < 1


@pytest.mark.parametrize(("metric", "peer"), [("accuracy", accuracy_score), ("R²", r2_score)])
def test_the_mean_skill_is_the_metric_of_scikit_learn(metric, peer):
    labels, predicted = np.random.default_rng(0).integers(0, 3, (2, 50))
    assert boosting.skill(predicted, labels, metric).mean() == pytest.approx(
        peer(labels, predicted)
    )


def test_a_table_is_dealt_again_by_other_names_of_its_columns(tmp_path):
    file = tmp_path / "my.csv"
    table(100, "rgb").to_csv(file, index=False)
    again = boosting.deal(file, "y", 2)
    assert boosting.deal(file, "y", 0) == file
    pd.testing.assert_frame_equal(
        pd.read_csv(again),
        pd.read_csv(file).rename(columns={n: f"{n} 2" for n in ("x", "c", "doors")}),
    )
    first, second = (inference.infer(each, "y") for each in (file, again))
    assert [each.use for each in second.columns] == [each.use for each in first.columns]


def test_several_splits_count_each_example_and_take_the_mean_of_the_rest():
    one = boosting.Outcome("R²", 80, np.ones(3), np.zeros(3), (30.0, 1.0), 40.0)
    two = boosting.Outcome("R²", 90, np.zeros(1), np.zeros(1), (20.0, 0.0), 30.0)
    mean = boosting.Outcome.mean([one, two])
    assert mean.cells[:7] == ["2", "85", "4", "R²", "0.7500", "0.0000", "+0.7500 ± 0.2165"]
    assert mean.cells[-3:] == ["25", "35", "0.5"]


def test_the_page_says_how_certain_a_difference_is(hardware):
    own, boosted = np.array([1.0] * 9 + [0.0]), np.array([1.0] * 8 + [0.0] * 2)
    outcome = boosting.Outcome("accuracy", 80, own, boosted, (31.0, 0.5), 40.0)
    text = boosting.page({"iris": outcome.cells}, hardware)
    cells = "1 | 80 | 10 | accuracy | 0.9000 | 0.8000 | +0.1000 ± 0.0949 | yes | 31 | 40 | 0.5"
    assert f"| iris | {cells} |" in text
    assert "python -m benchmarks.boosting" in text
    worse = boosting.Outcome("accuracy", 80, boosted, own, (31.0, 0.5), 40.0)
    assert "| **no** |" in boosting.page({"iris": worse.cells}, hardware)
