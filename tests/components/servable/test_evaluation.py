import json
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import json_format
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2

from components.servable import evaluation
from components.servable.prediction import Evaluation
from components.servable.verdict import Evaluated

SPEC = {
    "signature_name": "serving_default",
    "label_key": "label_xf",
    "prediction_key": "probabilities",
    "preprocessing_function_names": ["transform_labels"],
}


ERRORS = ("MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError")


def write(
    folder: Path,
    specs: list[dict[str, Any]],
    metrics: list[tuple[str, str, str, float]],
    metrics_specs: list[config_pb2.MetricsSpec] | None = None,
) -> str:
    """An evaluation as TFMA writes it; metrics are slice, model, name, value."""
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(**spec) for spec in specs], metrics_specs=metrics_specs
    )
    run = config_pb2.EvalRun(eval_config=config, version="0.47.1")
    (folder / "eval_config.json").write_text(json_format.MessageToJson(run))
    with tf.io.TFRecordWriter(str(folder / "metrics-00000-of-00001.tfrecord")) as writer:
        for where, model, name, value in metrics:
            proto = metrics_for_slice_pb2.MetricsForSlice()
            if where:
                key = proto.slice_key.single_slice_keys.add()
                key.column, key.bytes_value = "label", where.encode()
            item = proto.metric_keys_and_values.add()
            item.key.name, item.key.model_name = name, model
            item.key.is_diff = name.endswith("_diff")
            item.value.double_value.value = value
            writer.write(proto.SerializeToString())
    return str(folder)


def test_the_candidate_over_all_examples(tmp_path: Path) -> None:
    metrics = [
        ("cat", "candidate", "accuracy", 0.1),
        ("", "baseline", "accuracy", 0.2),
        ("", "candidate", "accuracy_diff", 0.3),
        ("", "candidate", "accuracy", 0.75),
        ("", "candidate", "crossentropy", 0.5),
        ("", "candidate", "example_count", 40.0),
    ]
    specs = [{**SPEC, "name": "candidate"}, {**SPEC, "name": "baseline", "is_baseline": True}]
    assert evaluation.read(write(tmp_path, specs, metrics)) == (
        Evaluated(0.75, 0.5, 40),
        Evaluation("serving_default", "probabilities", "label_xf", ("transform_labels",)),
    )


def test_a_model_alone_has_no_name(tmp_path: Path) -> None:
    specs = [{"label_key": "label"}]
    found = evaluation.read(write(tmp_path, specs, [("", "", "accuracy", 0.75)]))
    assert found == (Evaluated(0.75), Evaluation("serving_default", "", "label", ()))


@pytest.mark.parametrize(
    "metric",
    [
        getattr(module.metrics, name)(**given)
        for module in (keras, tf_keras)
        for name in dir(module.metrics)
        if name in ERRORS or (name.endswith(("Accuracy", "Crossentropy")) and "TopK" not in name)
        if name != "Accuracy"
        for given in ({}, {"name": "mine"})
    ],
    ids=lambda metric: f"{type(metric).__name__} {metric.name}",
)
def test_the_metrics_of_keras_are_known(tmp_path: Path, metric: Any) -> None:
    config = json.dumps({"name": metric.name} if metric.name == "mine" else {})
    given = config_pb2.MetricConfig(class_name=type(metric).__name__, config=config)
    specs = [config_pb2.MetricsSpec(metrics=[config_pb2.MetricConfig(class_name="AUC"), given])]
    values = [("", "", "auc", 0.9), ("", "", metric.name, 0.75)]
    found, asked = evaluation.read(write(tmp_path, [{"label_key": "label"}], values, specs))
    assert asked is not None
    assert asked.regression == (type(metric).__name__ in ERRORS)
    if asked.regression:
        assert [*found.errors.values()] == [0.75]
        return
    assert 0.75 in (found.accuracy, found.crossentropy)
    assert asked.binary == type(metric).__name__.startswith("Binary")


def test_parameters_of_metrics(tmp_path: Path) -> None:
    metrics = [
        config_pb2.MetricConfig(class_name="BinaryAccuracy", config='"threshold": 0.3'),
        config_pb2.MetricConfig(class_name="BinaryCrossentropy", config='{"from_logits": true}'),
    ]
    values = [("", "", "binary_accuracy", 0.75), ("", "", "binary_crossentropy", 0.5)]
    specs = [config_pb2.MetricsSpec(metrics=metrics)]
    _, asked = evaluation.read(write(tmp_path, [{"label_key": "label"}], values, specs))
    assert asked is not None
    assert (asked.threshold, asked.from_logits) == (0.3, True)


@pytest.mark.parametrize(
    ("specs", "metrics", "why"),
    [
        ([SPEC], [("", "", "auc", 0.9)], "no accuracy, cross-entropy or error of Keras"),
        ([{}], [("", "", "accuracy", 0.9)], "names no single label"),
        ([{**SPEC, "example_weight_key": "w"}], [("", "", "accuracy", 0.9)], "weights"),
    ],
)
def test_nothing_to_compare_with(tmp_path: Path, specs: Any, metrics: Any, why: str) -> None:
    evaluated, asked = evaluation.read(write(tmp_path, specs, metrics))
    assert why in evaluated.why_not
    assert asked is None
