"""What the Evaluator measures, and the gates a model must pass to be pushed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import schemas
from components.evaluation.results import ACCURACY, CROSSENTROPY
from trainer_module.config import Features, ImageFeatures
from trainer_module.util.checks import require

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto import config_pb2

LABEL_INDEX = "label_xf"
# Metrics come as float32, where 0.9 is 0.89999998: a value right at its bound must pass.
ROUNDING = 1e-6


@dataclass(frozen=True)
class GateConfig:
    """What data and model must reach for the model to be blessed and pushed.

    Attributes:
        min_accuracy: Accuracy over all test examples (0 to 1) a model must reach; if not given,
            the lower end of its 95 % Wilson interval must reach the share of the largest class.
        min_class_accuracy: Accuracy (0 to 1) it must reach in every single class; 0 for no
            such gate.
        min_class_examples: Test examples that every class must have, since an accuracy measured
            on three is no evidence; 0 for no such gate.
        max_accuracy_drop: By how much (0 to 1) its accuracy may lie below that of the last
            blessed model, measured on the same test examples; ignored where there is none yet.
        allow_class_change: Let the model take the place of one of images that knows other classes;
            the drop is then measured on the test examples of the classes that both know.
        max_drift: Distance (0 to 1) that the training data of any feature may have moved since
            the last blessed model, less the sampling error: the L-infinity distance of categorical,
            the Kolmogorov-Smirnov distance of numeric features; measured but not bounded if not
            given.
        max_skew: Distance (0 to 1), measured alike, between training and test data.
        max_latency: Milliseconds that 99 of 100 requests for one example may take, in a process of
            their own on this machine; no such gate if not given.
        max_model_mib: Size of the exported model in MiB; no such gate if not given.
    """

    min_accuracy: float | None = None
    min_class_accuracy: float = 0.0
    min_class_examples: int = 0
    max_accuracy_drop: float = 0.01
    allow_class_change: bool = False
    max_drift: float | None = None
    max_skew: float | None = None
    max_latency: float | None = None
    max_model_mib: float | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, example in (
            ("min_accuracy", 0.9),
            ("min_class_accuracy", 0.5),
            ("max_accuracy_drop", 0.01),
            ("max_drift", 0.2),
            ("max_skew", 0.2),
        ):
            value = getattr(self, name)
            require(
                value is None or 0 <= value <= 1,
                f"{name} must be a share from 0 to 1",
                value,
                f"Try --{name.replace('_', '-')} {example}.",
            )
        for name, example in (("max_latency", 50), ("max_model_mib", 100)):
            value = getattr(self, name)
            require(
                value is None or 0 < value < math.inf,
                f"{name} must be a finite number above 0",
                value,
                f"Try --{name.replace('_', '-')} {example}.",
            )
        require(
            self.min_class_examples >= 0,
            "min_class_examples must be at least 0",
            self.min_class_examples,
            "Try --min-class-examples 10.",
        )


def slice_feature(features: Features) -> str:
    """The feature whose values split the test examples by class.

    Pictures carry the class name itself; a table's label may be derived (a ratio of two columns,
    say), so that only its index, which the model's transformation computes, tells the class.
    """
    return schemas.LABEL if isinstance(features, ImageFeatures) else LABEL_INDEX


def eval_config(
    features: Features, gates: GateConfig, classes: Sequence[str]
) -> "config_pb2.EvalConfig":
    """The TFMA configuration for both kinds of data.

    The exported model's `transform_labels` signature yields the label's index, so that the
    integer metrics work whatever the raw label is. A MetricConfig's plain `threshold` holds in
    every slice, where a single weak class would fail a good model; so each bound names its slice.

    Args:
        features: How raw examples become tensors.
        gates: Bounds.
        classes: Class names in the order of the label indices.
    """
    from tensorflow_model_analysis.proto import config_pb2

    from components.evaluation import metrics

    overall = [config_pb2.SlicingSpec()]
    per_class = [config_pb2.SlicingSpec(feature_keys=[slice_feature(features)])]

    def at_least(bound: float) -> "config_pb2.GenericValueThreshold":
        return config_pb2.GenericValueThreshold(lower_bound={"value": bound - ROUNDING})

    def on(
        slices: "list[config_pb2.SlicingSpec]", **threshold: Any
    ) -> "config_pb2.PerSliceMetricThreshold":
        return config_pb2.PerSliceMetricThreshold(
            slicing_specs=slices, threshold=config_pb2.MetricThreshold(**threshold)
        )

    drop = config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.HIGHER_IS_BETTER,
        absolute={"value": -gates.max_accuracy_drop - ROUNDING},
    )
    accuracy, examples, more = [], [], []
    crossentropy = config_pb2.MetricConfig(
        class_name="SparseCategoricalCrossentropy", config=f'{{"name": "{CROSSENTROPY}"}}'
    )
    change = {"change_threshold": drop}
    if gates.allow_class_change:
        # Labels that the baseline does not know would be an error of Keras's metric.
        crossentropy = metrics.config(metrics.KnownCrossentropy)
        shared = metrics.config(metrics.SharedAccuracy)
        shared.per_slice_thresholds.append(on(overall, **change))
        more.append(shared)
        change = {}
    if gates.min_accuracy is None:
        majority = metrics.config(metrics.AccuracyAboveMajority)
        majority.per_slice_thresholds.append(on(overall, value_threshold=at_least(0.0)))
        more.append(majority)
        if change:
            accuracy.append(on(overall, **change))
    else:
        reached = at_least(gates.min_accuracy)
        accuracy.append(on(overall, value_threshold=reached, **change))
    if gates.min_class_accuracy > 0:
        accuracy.append(on(per_class, value_threshold=at_least(gates.min_class_accuracy)))
    if gates.min_class_examples > 0:
        examples.append(on(per_class, value_threshold=at_least(gates.min_class_examples)))
    if gates.min_class_accuracy > 0 or gates.min_class_examples > 0:
        # TFMA has no slice of a class without examples, and validates the slices that there are.
        missing = metrics.config(metrics.ClassesWithoutExamples, classes=len(classes))
        none = config_pb2.GenericValueThreshold(upper_bound={"value": 0.0})
        missing.per_slice_thresholds.append(on(overall, value_threshold=none))
        more.append(missing)
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default",
                preprocessing_function_names=["transform_labels"],
                label_key=LABEL_INDEX,
                prediction_key="probabilities",
            )
        ],
        slicing_specs=overall + per_class,
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(
                        class_name="ExampleCount", per_slice_thresholds=examples
                    ),
                    config_pb2.MetricConfig(
                        class_name="SparseCategoricalAccuracy",
                        config=f'{{"name": "{ACCURACY}"}}',
                        per_slice_thresholds=accuracy,
                    ),
                    crossentropy,
                    config_pb2.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
                    *more,
                ]
            )
        ],
    )
