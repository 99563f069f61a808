from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from components.evaluation import results
from components.evaluation.results import ConfusionMatrix, Evaluation, SliceMetrics

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto import config_pb2

CLASSES = ("cat", "dog")
# 8 cats, all recognised, and 2 dogs, one taken for a cat: 0.9 overall, 1.0 and 0.5 by class.
ACTUAL = [0] * 8 + [1, 1]
PREDICTED = [0] * 8 + [1, 0]


def test_a_class_is_named_by_itself_or_by_its_index() -> None:
    assert results.class_name("dog", CLASSES) == "dog"
    assert results.class_name(1, CLASSES) == "dog"
    assert results.class_name(-1, CLASSES) == "unknown (-1)"
    assert results.class_name(2, CLASSES) == "unknown (2)"
    assert results.class_name(2, ()) == "2"


def test_confusions_are_ranked_and_the_diagonal_is_none() -> None:
    matrix = ConfusionMatrix(tuple("abcd"), {(0, 0): 9, (0, 1): 1, (2, 3): 5, (3, 3): 4})
    assert matrix.confusions() == ((2, 3, 5), (0, 1, 1))
    assert matrix.most_confused(2) == (2, 3)
    assert matrix.most_confused(3) == (0, 2, 3)
    assert matrix.most_confused(9) == (0, 1, 2, 3)
    assert matrix.totals() == {0: 10, 1: 0, 2: 5, 3: 4}


def test_predictions_and_labels_outside_the_classes_have_rows_of_their_own() -> None:
    matrix = ConfusionMatrix(CLASSES, {(0, -1): 1, (7, 1): 2})
    assert [matrix.name(index) for index in matrix.indices] == [
        "(none)",
        "cat",
        "dog",
        "unknown (7)",
    ]


@pytest.mark.component
def test_an_empty_folder_is_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold .* got .*Run the Evaluator again"):
        results.read(str(tmp_path))


def config(
    *,
    baseline: bool = False,
    by: str = "animal",
    accuracy: Sequence[Any] = (),
    count: Sequence[Any] = (),
) -> "config_pb2.EvalConfig":
    """An EvalConfig over two columns of predictions, with thresholds (slicing spec, threshold)."""
    from tensorflow_model_analysis.proto import config_pb2

    def specs(thresholds: Sequence[Any]) -> list[Any]:
        return [
            config_pb2.PerSliceMetricThreshold(slicing_specs=[spec], threshold=threshold)
            for spec, threshold in thresholds
        ]

    models = [config_pb2.ModelSpec(name="candidate", label_key="label_xf", prediction_key="new")]
    if baseline:
        models.append(
            config_pb2.ModelSpec(
                name="baseline", label_key="label_xf", prediction_key="old", is_baseline=True
            )
        )
    names = [model.name for model in models]
    return config_pb2.EvalConfig(
        model_specs=models,
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[by])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                model_names=names,
                metrics=[
                    config_pb2.MetricConfig(
                        class_name="ExampleCount", per_slice_thresholds=specs(count)
                    ),
                    config_pb2.MetricConfig(
                        class_name="SparseCategoricalAccuracy",
                        config='{"name": "accuracy"}',
                        per_slice_thresholds=specs(accuracy),
                    ),
                    config_pb2.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
                ],
            )
        ],
    )


def evaluate(folder: Path, config: "config_pb2.EvalConfig") -> Evaluation:
    """Have TFMA evaluate predictions that are given, as the Evaluator would."""
    import pandas as pd
    import tensorflow_model_analysis as tfma

    def scores(classes: Sequence[int]) -> list[list[float]]:
        return [[0.9, 0.1] if index == 0 else [0.1, 0.9] for index in classes]

    frame = pd.DataFrame(
        {
            "label_xf": ACTUAL,
            "animal": [CLASSES[index] for index in ACTUAL],
            "label": [CLASSES[index] for index in ACTUAL],
            "new": scores(PREDICTED),
        }
    )
    tfma.analyze_raw_data(frame, config, output_path=str(folder))
    return results.read(str(folder), CLASSES)


def at_least(bound: float) -> Any:
    from tensorflow_model_analysis.proto import config_pb2

    return config_pb2.MetricThreshold(
        value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": bound})
    )


@pytest.mark.component
@pytest.mark.parametrize("by", ["label", "label_xf"])
def test_classes_are_sliced_by_name_or_by_index(tmp_path: Path, by: str) -> None:
    found = evaluate(tmp_path, config(by=by))
    assert found.candidate == SliceMetrics(10, {"accuracy": pytest.approx(0.9)})
    assert [(name, each.examples, each["accuracy"]) for name, each in found.classes] == [
        ("dog", 2, 0.5),
        ("cat", 8, 1.0),
    ]
    assert found.matrix == ConfusionMatrix(CLASSES, {(0, 0): 8, (1, 1): 1, (1, 0): 1})
    assert (found.baseline, found.gates, found.problems, found.unseen) == (None, (), (), ())
    if by == "label":
        assert results.read(str(tmp_path), ("cat", "bird", "dog")).unseen == ("bird",)


# Values by slice, model and metric, for tests that need only TFMA's rules and not its counting.
Values = dict[tuple[Any, ...], dict[str, dict[str, float]]]

OVERALL: Values = {
    (): {
        "candidate": {"accuracy": 0.9, "example_count": 10},
        "baseline": {"accuracy": 0.4, "example_count": 10},
    }
}
BY_CLASS: Values = {
    **OVERALL,
    (("label", b"cat"),): {
        "candidate": {"accuracy": 1.0, "example_count": 8},
        "baseline": {"accuracy": 0.5, "example_count": 8},
    },
    (("label", b"dog"),): {
        "candidate": {"accuracy": 0.5, "example_count": 2},
        "baseline": {"accuracy": 0.0, "example_count": 2},
    },
}


def judge(config: "config_pb2.EvalConfig", values: Values, **options: Any) -> Evaluation:
    """Have TFMA's validator judge values that are given."""
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.evaluators import metrics_validator
    from tensorflow_model_analysis.metrics.metric_types import MetricKey
    from tensorflow_model_analysis.slicer import slicer_lib

    metrics = []
    validation = tfma.proto.validation_result_pb2.ValidationResult(validation_ok=True)
    names = [spec.name for spec in config.model_specs]
    for key, models in values.items():
        found = {
            MetricKey(name, model_name=model, example_weighted=False): value
            for model in names
            for name, value in models[model].items()
        }
        if "baseline" in names:
            found |= {
                MetricKey(name, model_name="candidate", example_weighted=False, is_diff=True): value
                - models["baseline"][name]
                for name, value in models["candidate"].items()
            }
        judged = metrics_validator.validate_metrics((key, found), config)
        metrics_validator.merge_details(validation, judged)
        validation.metric_validations_per_slice.extend(judged.metric_validations_per_slice)
        proto = tfma.proto.metrics_for_slice_pb2.MetricsForSlice(
            slice_key=slicer_lib.serialize_slice_key(key)
        )
        for metric, value in found.items():
            item = proto.metric_keys_and_values.add(key=metric.to_proto())
            item.value.double_value.value = value
        metrics.append(proto)
    validation.missing_slices.extend(
        metrics_validator.get_missing_slices(validation.validation_details.slicing_details, config)
    )
    from components.evaluation import reader

    return reader.summarise(config, metrics, validation, (), CLASSES, **options)


@pytest.mark.component
def test_overall_is_of_one_model_and_of_no_slice() -> None:
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.slicer import slicer_lib

    protos = []
    for key, models in BY_CLASS.items():
        proto = tfma.proto.metrics_for_slice_pb2.MetricsForSlice(
            slice_key=slicer_lib.serialize_slice_key(key)
        )
        for model, values in models.items():
            for name, value in values.items():
                item = proto.metric_keys_and_values.add()
                item.key.name, item.key.model_name = name, model
                item.value.double_value.value = value
        protos.append(proto)
    from components.evaluation import reader

    assert reader.overall(protos, "candidate") == SliceMetrics(10, {"accuracy": 0.9})
    assert reader.overall(protos, "baseline") == SliceMetrics(10, {"accuracy": 0.4})
    assert reader.overall(protos[1:], "candidate") is None
    assert reader.overall(protos, "another") is None


@pytest.mark.component
def test_gates_of_every_kind() -> None:
    from tensorflow_model_analysis.proto import config_pb2

    overall, by_class = config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["label"])
    threshold = config_pb2.MetricThreshold(
        value_threshold=config_pb2.GenericValueThreshold(
            lower_bound={"value": 0.9 - 1e-6}, upper_bound={"value": 0.85 + 1e-6}
        ),
        change_threshold=config_pb2.GenericChangeThreshold(
            direction=config_pb2.MetricDirection.HIGHER_IS_BETTER,
            absolute={"value": -0.02 - 1e-6},
            relative={"value": 2.0 - 1e-6},
        ),
    )
    found = judge(
        config(
            baseline=True,
            by="label",
            accuracy=[(overall, threshold), (by_class, at_least(0.6 - 1e-6))],
            count=[(by_class, at_least(3 - 1e-6))],
        ),
        BY_CLASS,
        rounding=1e-6,
    )
    shown = [(g.rule, round(g.value, 6), g.comparison, g.threshold, g.passed) for g in found.gates]
    assert sorted(shown) == [
        ("accuracy - baseline's", 0.5, ">=", -0.02, True),
        ("accuracy, all examples", 0.9, "<=", 0.85, False),
        ("accuracy, all examples", 0.9, ">=", 0.9, True),
        ("accuracy, change as a share of the baseline's", 1.25, ">=", 2.0, False),
        ("accuracy, class cat", 1.0, ">=", 0.6, True),
        ("accuracy, class dog", 0.5, ">=", 0.6, False),
        ("example_count, class cat", 8, ">=", 3, True),
        ("example_count, class dog", 2, ">=", 3, False),
    ]
    assert [gate.subject for gate in found.gates] == [None] * 4 + ["dog"] * 2 + ["cat"] * 2
    assert (found.candidate["accuracy"], found.candidate.examples) == (0.9, 10)
    assert found.baseline == SliceMetrics(10, {"accuracy": 0.4})
    assert found.baseline_classes["cat"] == SliceMetrics(8, {"accuracy": 0.5})
    assert [name for name, _ in found.classes] == ["dog", "cat"]


@pytest.mark.component
def test_other_slices_are_no_classes() -> None:
    slices = {(("hour", 8),): OVERALL[()], (("hour", 9), ("label", b"cat")): OVERALL[()]}
    found = judge(config(), {**OVERALL, **slices})
    assert found.classes == ()
    assert [name for name, _ in found.slices] == ["hour = 8", "hour = 9, label = cat"]


@pytest.mark.component
def test_what_is_missing_is_a_problem_and_not_a_gate() -> None:
    from tensorflow_model_analysis.proto import config_pb2

    nowhere = config_pb2.SlicingSpec(feature_values={"label": "bird"})
    found = judge(config(accuracy=[(nowhere, at_least(0.5))]), BY_CLASS)
    assert (found.gates, found.problems) == ((), ("no example in any slice by label = bird",))
    unmeasured = {key: {"candidate": {"example_count": 1.0}} for key in BY_CLASS}
    found = judge(config(accuracy=[(config_pb2.SlicingSpec(), at_least(0.5))]), unmeasured)
    assert found.gates == ()
    assert found.problems == (
        "accuracy on all examples, cat, dog: Metric not found.",
        "nothing was checked over all examples",
    )


@pytest.mark.component
def test_classes_are_ranked_by_the_bounded_metric() -> None:
    from tensorflow_model_analysis.proto import config_pb2

    few = config_pb2.MetricThreshold(
        value_threshold=config_pb2.GenericValueThreshold(upper_bound={"value": 0.99})
    )
    found = judge(config(accuracy=[(config_pb2.SlicingSpec(), few)]), BY_CLASS)
    assert (found.ranked_by, found.higher_is_better) == ("accuracy", False)
    assert [name for name, _ in found.classes] == ["cat", "dog"]


@pytest.mark.component
def test_slices_without_all_examples_are_refused() -> None:
    slices = {key: models for key, models in BY_CLASS.items() if key}
    with pytest.raises(ValueError, match="must evaluate all examples"):
        judge(config(), slices)
