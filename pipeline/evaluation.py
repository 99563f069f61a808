"""Configuration of TFMA's Evaluator, with the gates as thresholds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schemas
from components import gate
from components.evaluation.results import ENDS, MAE, OF_TWO, R2, RMSE
from components.servable import verdict as servable
from trainer_module.config import Features, ImageFeatures, is_regression

from .config import GateConfig

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto import config_pb2

TRANSFORMED_LABEL = "label_xf"
# Metrics come as float32, where 0.9 is 0.89999998: a value right at its bound must pass.
ROUNDING = 1e-6
_BINARY = ("AUC", "AUCPrecisionRecall", "Precision", "Recall", "F1Score")


def slice_feature(features: Features) -> str:
    """Returns the feature whose values split the test examples by class.

    Images carry the class name itself; a table's label may be derived (a ratio of two columns,
    say), so that only its index, which the model's transformation computes, tells the class.
    """
    return schemas.LABEL if isinstance(features, ImageFeatures) else TRANSFORMED_LABEL


def eval_config(
    features: Features, gates: GateConfig, classes: Sequence[str]
) -> "config_pb2.EvalConfig":
    """Returns the TFMA configuration of a run."""
    if is_regression(features):
        return _of_regression(gates)
    return _of_classes(features, gates, classes)


def _of_classes(
    features: Features, gates: GateConfig, classes: Sequence[str]
) -> "config_pb2.EvalConfig":
    """Returns the TFMA configuration of a classifier.

    The exported model's `transform_labels` signature yields the label's index, so that the
    integer metrics work whatever the raw label is. A MetricConfig's plain `threshold` holds in
    every slice, where a single weak class would fail a good model; so each bound names its slice.
    """
    from tensorflow_model_analysis.proto import config_pb2

    from components.evaluation import metrics

    overall = [config_pb2.SlicingSpec()]
    per_class = [config_pb2.SlicingSpec(feature_keys=[slice_feature(features)])]

    drop = _drop(gates.max_accuracy_drop)
    accuracy, examples, more = [], [], []
    change = {"change_threshold": drop}
    if gates.allow_class_change:
        shared = metrics.config(metrics.SharedAccuracy)
        shared.per_slice_thresholds.append(_on(overall, **change))
        more.append(shared)
        change = {}
    if gates.min_accuracy is None:
        majority = metrics.config(metrics.AccuracyAboveMajority)
        majority.per_slice_thresholds.append(_on(overall, value_threshold=_at_least(0.0)))
        more.append(majority)
        if change:
            accuracy.append(_on(overall, **change))
    else:
        reached = _at_least(gates.min_accuracy)
        accuracy.append(_on(overall, value_threshold=reached, **change))
    if gates.min_class_accuracy > 0:
        accuracy.append(_on(per_class, value_threshold=_at_least(gates.min_class_accuracy)))
    if gates.min_class_examples > 0:
        examples.append(_on(per_class, value_threshold=_at_least(gates.min_class_examples)))
    if gates.min_class_accuracy > 0 or gates.min_class_examples > 0:
        # TFMA has no slice of a class without examples, and validates the slices that there are.
        missing = metrics.config(metrics.ClassesWithoutExamples, classes=len(classes))
        none = config_pb2.GenericValueThreshold(upper_bound={"value": 0.0})
        missing.per_slice_thresholds.append(_on(overall, value_threshold=none))
        more.append(missing)
    measured = metrics.config(metrics.Accuracy)
    measured.per_slice_thresholds.extend(accuracy)
    return config_pb2.EvalConfig(
        model_specs=[_model("probabilities")],
        slicing_specs=overall + per_class,
        metrics_specs=[
            *([_of_two(gates)] if len(classes) == 2 else []),
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(
                        class_name="ExampleCount", per_slice_thresholds=examples
                    ),
                    measured,
                    metrics.config(metrics.Crossentropy),
                    config_pb2.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
                    *more,
                ]
            ),
        ],
    )


def _of_two(gates: GateConfig) -> "config_pb2.MetricsSpec":
    """Returns the metrics of two classes, the second one as positive."""
    from tensorflow_model_analysis.proto import config_pb2

    spec = config_pb2.MetricsSpec(
        binarize=config_pb2.BinarizationOptions(class_ids={"values": [1]}),
        metrics=[config_pb2.MetricConfig(class_name="CalibrationPlot")],
    )
    for name, metric in zip(OF_TWO, _BINARY, strict=True):
        config = config_pb2.MetricConfig(class_name=metric, config=json.dumps({"name": name}))
        bound = getattr(gates, f"min_{name}")
        if bound is not None:
            on_all = _on([config_pb2.SlicingSpec()], value_threshold=_at_least(bound))
            config.per_slice_thresholds.append(on_all)
        spec.metrics.append(config)
    return spec


def _of_regression(gates: GateConfig) -> "config_pb2.EvalConfig":
    """Returns the TFMA configuration of a regression, in the label's unit."""
    from tensorflow_model_analysis.proto import config_pb2

    from components.evaluation import errors, metrics

    overall = [config_pb2.SlicingSpec()]
    ours = {
        name: metrics.config(errors.RegressionMetric, name=name)
        for name in (R2, *ENDS[R2], *ENDS[MAE])
    }
    keras = {
        name: config_pb2.MetricConfig(class_name=metric, config=json.dumps({"name": name}))
        for name, metric in ((MAE, "MeanAbsoluteError"), (RMSE, "RootMeanSquaredError"))
    }

    def gate(metric: "config_pb2.MetricConfig", **threshold: Any) -> None:
        metric.per_slice_thresholds.append(_on(overall, **threshold))

    change = {"change_threshold": _drop(gates.max_r2_drop)}
    if gates.min_r2 is None:
        gate(ours[ENDS[R2][0]], value_threshold=_at_least(0.0))
        gate(ours[R2], **change)
    else:
        gate(ours[R2], value_threshold=_at_least(gates.min_r2), **change)
    if gates.max_mae is not None:
        bound = config_pb2.GenericValueThreshold(upper_bound={"value": gates.max_mae + ROUNDING})
        gate(keras[MAE], value_threshold=bound)
    count = config_pb2.MetricConfig(class_name="ExampleCount")
    return config_pb2.EvalConfig(
        model_specs=[_model("prediction")],
        slicing_specs=overall,
        metrics_specs=[
            config_pb2.MetricsSpec(metrics=[count, ours.pop(R2), *keras.values(), *ours.values()])
        ],
    )


def _model(prediction: str) -> "config_pb2.ModelSpec":
    from tensorflow_model_analysis.proto import config_pb2

    return config_pb2.ModelSpec(
        signature_name="serving_default",
        preprocessing_function_names=["transform_labels"],
        label_key=TRANSFORMED_LABEL,
        prediction_key=prediction,
    )


def _at_least(bound: float) -> "config_pb2.GenericValueThreshold":
    from tensorflow_model_analysis.proto import config_pb2

    return config_pb2.GenericValueThreshold(lower_bound={"value": bound - ROUNDING})


def _drop(most: float) -> "config_pb2.GenericChangeThreshold":
    from tensorflow_model_analysis.proto import config_pb2

    return config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.HIGHER_IS_BETTER,
        absolute={"value": -most - ROUNDING},
    )


def _on(
    slices: "list[config_pb2.SlicingSpec]", **threshold: Any
) -> "config_pb2.PerSliceMetricThreshold":
    from tensorflow_model_analysis.proto import config_pb2

    return config_pb2.PerSliceMetricThreshold(
        slicing_specs=slices, threshold=config_pb2.MetricThreshold(**threshold)
    )


def failed_checks(blessing: Path) -> tuple[str, ...]:
    """Returns the failed checks of an InfraBlessing's folder, in words."""
    checks = json.loads((blessing / servable.FILE_NAME).read_text())["checks"]
    return tuple(map(str, gate.failed(map(gate.parse, checks))))
