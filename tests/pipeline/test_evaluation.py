import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trainer_module.util import environment

environment.prepare()

import apache_beam as beam  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_model_analysis as tfma  # noqa: E402
from scipy.stats import binomtest  # noqa: E402
from sklearn.calibration import calibration_curve  # noqa: E402
from sklearn.metrics import (  # noqa: E402
    average_precision_score,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
)
from tfx_bsl.public.tfxio import TFExampleBeamRecord  # noqa: E402

from components.evaluation.results import OF_TWO, Evaluation, read  # noqa: E402
from pipeline import evaluation  # noqa: E402
from pipeline.config import OF_ANY, OF_CLASSES, OF_NUMBERS, GateConfig  # noqa: E402
from trainer_module.config import Features, ImageFeatures, TableFeatures  # noqa: E402
from trainer_module.preprocessing import class_index  # noqa: E402

pytestmark = pytest.mark.component

CLASSES = ("cat", "dog")
IMAGES = ImageFeatures()
TABLE = TableFeatures(numeric=("guess",))


NUMBERS = TableFeatures(numeric=("guess",), task="regression")


class Adding(tf.Module):
    """Predicts the example's feature `guess` plus a number; the label is the feature `label`."""

    def __init__(self, added: float = 0.0) -> None:
        super().__init__()
        self._added = tf.Variable(added)

    def _feature(self, records: tf.Tensor, name: str) -> tf.Tensor:
        spec = {name: tf.io.FixedLenFeature([1], tf.float32)}
        return tf.io.parse_example(records, spec)[name]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"prediction": self._feature(records, "guess") + self._added}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def transform(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"label_xf": self._feature(records, "label")}


class Echo(tf.Module):
    """Predicts the class that the example's feature `guess` names."""

    def __init__(self, shift: int = 0, classes: Sequence[str] = CLASSES) -> None:
        super().__init__()
        self._shift = tf.Variable(shift, dtype=tf.int64)
        self._classes = tuple(classes)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {"guess": tf.io.FixedLenFeature([], tf.int64)}
        number = len(self._classes)
        guess = (tf.io.parse_example(records, spec)["guess"] + self._shift) % number
        return {"probabilities": tf.one_hot(guess, number, on_value=0.9, off_value=0.1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def transform(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {"label": tf.io.FixedLenFeature([], tf.string)}
        label = tf.io.parse_example(records, spec)["label"]
        return {"label_xf": class_index(label, self._classes)[:, None]}


def model(folder: Path, shift: int = 0, classes: Sequence[str] = CLASSES) -> str:
    return saved(folder, Echo(shift, classes))


def saved(folder: Path, module: tf.Module) -> str:
    tf.saved_model.save(
        module,
        str(folder),
        signatures={"serving_default": module.serve, "transform_labels": module.transform},
    )
    return str(folder)


def example(label: str, guess: int) -> bytes:
    features = {
        "label": tf.train.Feature(bytes_list=tf.train.BytesList(value=[label.encode()])),
        "guess": tf.train.Feature(int64_list=tf.train.Int64List(value=[guess])),
    }
    record = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(record.SerializeToString())


# 8 cats, all recognised, and 2 dogs, one taken for a cat: 0.9 overall, 1.0 and 0.5 by class.
EXAMPLES = [example("cat", 0)] * 8 + [example("dog", 1), example("dog", 0)]


def evaluate(
    folder: Path,
    gates: GateConfig,
    features: Features = IMAGES,
    models: Sequence[str] = (),
    examples: Sequence[bytes] = tuple(EXAMPLES),
    classes: Sequence[str] = CLASSES,
) -> tuple[bool, Evaluation]:
    """Run TFMA as the Evaluator does; the second of `models` is the baseline."""
    models = models or [model(folder / "model")]
    config = tfma.utils.update_eval_config_with_defaults(
        evaluation.eval_config(features, gates, classes),
        has_baseline=len(models) == 2,
        rubber_stamp=True,
    )
    shared = [
        tfma.default_eval_shared_model(path, eval_config=config, model_name=spec.name)
        for path, spec in zip(models, config.model_specs, strict=True)
    ]
    source = TFExampleBeamRecord(
        physical_format="inmem",
        telemetry_descriptors=["test"],
        raw_record_column_name=tfma.ARROW_INPUT_COLUMN,
    ).BeamSource()
    with beam.Pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create(examples)
            | source
            | tfma.ExtractEvaluateAndWriteResults(
                eval_shared_model=shared if len(shared) > 1 else shared[0],
                eval_config=config,
                output_path=str(folder / "evaluation"),
            )
        )
    validation = tfma.load_validation_result(str(folder / "evaluation"))
    found = read(str(folder / "evaluation"), classes, rounding=evaluation.ROUNDING)
    return validation.validation_ok, found


@pytest.mark.parametrize("features", [IMAGES, TABLE], ids=["images", "table"])
def test_metrics_overall_and_by_class(tmp_path: Path, features: Features) -> None:
    ok, found = evaluate(tmp_path, GateConfig(min_accuracy=0.9), features)
    assert ok
    assert (found.candidate.examples, found.candidate["accuracy"]) == (10, pytest.approx(0.9))
    assert found.candidate["crossentropy"] == pytest.approx(
        0.325, abs=1e-3
    )  # -0.9 ln 0.9 - 0.1 ln 0.1
    assert [(name, m.examples, m["accuracy"]) for name, m in found.classes] == [
        ("dog", 2, 0.5),
        ("cat", 8, 1.0),
    ]
    assert found.baseline is None


def test_a_weak_class_fails_only_a_gate_of_its_own(tmp_path: Path) -> None:
    gates = GateConfig(min_accuracy=0.8, min_class_accuracy=0.6)
    ok, found = evaluate(tmp_path, gates)
    assert not ok
    failed = [gate for gate in found.gates if not gate.passed]
    assert [(gate.rule, gate.value, gate.threshold) for gate in failed] == [
        ("accuracy, class dog", 0.5, 0.6)
    ]
    assert not found.problems


def test_overall_gate_fails_just_above_the_value(tmp_path: Path) -> None:
    ok, found = evaluate(tmp_path, GateConfig(min_accuracy=0.901))
    assert not ok
    assert [gate.rule for gate in found.gates if not gate.passed] == ["accuracy, all examples"]


def test_a_drop_from_the_baseline_is_bounded(tmp_path: Path) -> None:
    good, bad = model(tmp_path / "good"), model(tmp_path / "bad", shift=1)
    gates = GateConfig(min_accuracy=0.0, max_accuracy_drop=0.79)
    ok, found = evaluate(tmp_path, gates, models=[bad, good])
    assert not ok
    assert found.baseline is not None
    assert found.baseline["accuracy"] == pytest.approx(0.9)
    assert found.candidate["accuracy"] == pytest.approx(0.1)
    (drop,) = [gate for gate in found.gates if not gate.passed]
    assert (drop.value, drop.threshold) == (pytest.approx(-0.8), -0.79)


def test_a_drop_of_exactly_the_tolerance_passes(tmp_path: Path) -> None:
    good, bad = model(tmp_path / "good"), model(tmp_path / "bad", shift=1)
    gates = GateConfig(min_accuracy=0.0, max_accuracy_drop=0.8)
    ok, found = evaluate(tmp_path, gates, models=[bad, good])
    assert ok
    assert all(gate.passed for gate in found.gates)


def test_confusion_matrix_is_there_for_the_report(tmp_path: Path) -> None:
    _, found = evaluate(tmp_path, GateConfig())
    assert found.matrix is not None
    assert found.matrix.counts == {(0, 0): 8, (1, 1): 1, (1, 0): 1}


def test_every_gate_for_models_changes_the_configuration() -> None:
    base = GateConfig(min_accuracy=0.5, min_class_accuracy=0.5, max_accuracy_drop=0.5)

    def texts(features: Features, names: Sequence[str]) -> set[str]:
        changed = [dataclasses.replace(base, **{name: 0.25}) for name in names]
        return {str(evaluation.eval_config(features, each, CLASSES)) for each in [base, *changed]}

    assert len(texts(IMAGES, OF_CLASSES)) == len(OF_CLASSES) + 1
    assert len(texts(NUMBERS, OF_NUMBERS)) == len(OF_NUMBERS) + 1
    assert len(texts(IMAGES, [*OF_NUMBERS, *OF_ANY])) == 1
    assert len(texts(NUMBERS, [*OF_CLASSES, *OF_ANY])) == 1


def test_a_class_with_too_few_examples_fails(tmp_path: Path) -> None:
    ok, found = evaluate(tmp_path, GateConfig(min_accuracy=0.0, min_class_examples=3))
    assert not ok
    (few,) = [gate for gate in found.gates if not gate.passed]
    assert "dog" in few.rule
    assert (few.value, few.threshold) == (2, 3)


@pytest.mark.parametrize(
    "gates", [{"min_class_examples": 1}, {"min_class_accuracy": 0.1}], ids=["examples", "accuracy"]
)
@pytest.mark.parametrize("features", [IMAGES, TABLE], ids=["images", "table"])
def test_a_class_without_an_example_fails_by_name(
    tmp_path: Path, features: Features, gates: dict[str, Any]
) -> None:
    ok, found = evaluate(
        tmp_path, GateConfig(min_accuracy=0.0, **gates), features, classes=("cat", "dog", "owl")
    )
    assert not ok
    (none,) = found.failed
    assert (none.subject, none.passed, found.unseen) == ("owl", False, ("owl",))
    assert "class owl" in none.rule


def test_no_class_gate_asks_for_an_example_of_each_class(tmp_path: Path) -> None:
    ok, found = evaluate(tmp_path, GateConfig(min_accuracy=0.0), classes=("cat", "dog", "owl"))
    assert ok and not found.failed


# (right, wrong) of cats and of dogs.
@pytest.mark.parametrize(
    ("cats", "dogs", "ok"),
    [
        # 0.55 with 9 % of the dogs: as good as a constant answer.
        ((50, 0), (4, 42), False),
        # Better than the largest class's 0.5, but within what 20 examples give by chance.
        ((8, 2), (5, 5), False),
        ((80, 20), (50, 50), True),
        # Worse than always saying cat, though nine of ten are right.
        ((86, 9), (4, 1), False),
        ((40, 0), (0, 0), False),
    ],
)
def test_by_default_a_model_must_beat_the_largest_class_beyond_chance(
    tmp_path: Path, cats: tuple[int, int], dogs: tuple[int, int], ok: bool
) -> None:
    examples = [
        *([example("cat", 0)] * cats[0] + [example("cat", 1)] * cats[1]),
        *([example("dog", 1)] * dogs[0] + [example("dog", 0)] * dogs[1]),
    ]
    right, total = cats[0] + dogs[0], len(examples)
    blessed, found = evaluate(tmp_path, GateConfig(), examples=examples)
    assert blessed is ok
    low = binomtest(right, total).proportion_ci(method="wilson").low
    (gate,) = found.gates
    assert gate.value == pytest.approx(low)
    assert gate.threshold == pytest.approx(max(sum(cats), sum(dogs)) / total, abs=1e-5)
    assert gate.passed is ok
    # What a gate alone needs is no column of a table.
    assert set(found.candidate.values) == {"accuracy", "crossentropy", *OF_TWO}


def test_the_default_gate_judges_the_candidate_beside_a_baseline(tmp_path: Path) -> None:
    good, bad = model(tmp_path / "good"), model(tmp_path / "bad", shift=1)
    examples = [example("cat", 0), example("dog", 1)] * 20
    for models in ([good, bad], [bad, good]):
        ok, found = evaluate(tmp_path, GateConfig(), models=models, examples=examples)
        drop, majority = found.gates
        assert ok is majority.passed is drop.passed is (models[0] == good)
        low = binomtest(40 if ok else 0, 40).proportion_ci(method="wilson").low
        assert (majority.value, majority.threshold) == (pytest.approx(low), pytest.approx(0.5))


def test_an_accuracy_has_an_interval_and_a_gate_says_whether_it_lies_within(tmp_path: Path) -> None:
    good, bad = model(tmp_path / "good"), model(tmp_path / "bad", shift=1)
    gates = GateConfig(min_accuracy=0.8, max_accuracy_drop=0.5)
    _, found = evaluate(tmp_path, gates, models=[good, bad])
    low, high = binomtest(9, 10).proportion_ci(method="wilson")
    assert found.candidate.interval("accuracy") == pytest.approx((low, high))
    reached, drop = found.gates
    assert reached.interval == pytest.approx((low, high))
    assert reached.passed and reached.beyond_interval is False
    assert drop.passed and drop.beyond_interval is True


def test_a_class_at_or_below_chance_is_told_without_a_gate(tmp_path: Path) -> None:
    _, found = evaluate(tmp_path, GateConfig(min_accuracy=0.0))
    assert [name for name, _ in found.at_chance] == ["dog"]
    assert found.chance == 0.5


CHANGE = GateConfig(min_accuracy=0.0, max_accuracy_drop=0.1, allow_class_change=True)


def test_with_other_classes_the_drop_is_that_on_the_classes_both_know(tmp_path: Path) -> None:
    # The candidate's classes are owl, dog, cat: owls it all knows, cats it takes for dogs. Of the
    # 18 cats and dogs the baseline knows all, and the owls it takes for cats.
    new = ("owl", "dog", "cat")
    candidate = model(tmp_path / "new", shift=1, classes=new)
    baseline = model(tmp_path / "old")
    examples = [example("cat", 0)] * 8 + [example("dog", 0)] * 2 + [example("owl", 2)] * 30
    ok, found = evaluate(
        tmp_path, CHANGE, models=[candidate, baseline], examples=examples, classes=new
    )
    assert not ok
    assert found.candidate["accuracy"] == pytest.approx(32 / 40)
    assert found.candidate["accuracy_shared_classes"] == pytest.approx(2 / 10)
    assert found.baseline is not None
    assert found.baseline["accuracy_shared_classes"] == pytest.approx(8 / 10)
    shared = {
        name: metrics.values.get("accuracy_shared_classes") for name, metrics in found.classes
    }
    assert shared == {"owl": None, "dog": pytest.approx(1.0), "cat": pytest.approx(0.0)}
    (drop,) = found.failed
    assert drop.rule == "accuracy_shared_classes - baseline's"
    assert (drop.value, drop.threshold) == (pytest.approx(-0.6), -0.1)
    assert drop.interval is not None
    # As Keras has it, of what the model knows: all labels of the candidate, ten of the baseline.
    right, wrong = -math.log(0.9), -math.log(0.1)
    assert found.candidate["crossentropy"] == pytest.approx((32 * right + 8 * wrong) / 40)
    assert found.baseline["crossentropy"] == pytest.approx((8 * right + 2 * wrong) / 10)


def test_the_same_classes_compare_as_ever_where_a_change_is_allowed(tmp_path: Path) -> None:
    good, bad = model(tmp_path / "good"), model(tmp_path / "bad", shift=1)
    for models in ([bad, good], [good, bad]):
        ok, found = evaluate(tmp_path, CHANGE, models=models)
        assert found.baseline is not None
        for metrics in (found.candidate, found.baseline):
            assert metrics["accuracy_shared_classes"] == pytest.approx(metrics["accuracy"])
        assert ok is (models[0] == good)


def test_without_a_class_that_both_know_nothing_is_compared_and_the_gate_says_so(
    tmp_path: Path,
) -> None:
    new = ("car", "bus")
    models = [model(tmp_path / "new", classes=new), model(tmp_path / "old")]
    examples = [example("car", 0)] * 8 + [example("bus", 1)] * 2
    ok, found = evaluate(tmp_path, CHANGE, models=models, examples=examples, classes=new)
    assert ok
    (_, drop) = found.gates
    assert "nothing was compared" in drop.note
    assert "accuracy_shared_classes" not in found.candidate.values


def test_without_a_baseline_a_change_of_classes_is_nothing(tmp_path: Path) -> None:
    ok, found = evaluate(tmp_path, CHANGE)
    assert ok
    assert found.candidate["crossentropy"] == pytest.approx(0.325, abs=1e-3)


@pytest.fixture(scope="module")
def numbers() -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[bytes]]:
    """Labels, guesses with noise, and examples of them."""
    random = np.random.default_rng(0)
    labels = random.normal(20, 5, 200).astype(np.float32)
    guesses = (labels + random.normal(0, 2, 200)).astype(np.float32)
    records = []
    for label, guess in zip(labels, guesses, strict=True):
        features = {
            name: tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
            for name, value in (("label", label), ("guess", guess))
        }
        record = tf.train.Example(features=tf.train.Features(feature=features))
        records.append(record.SerializeToString())
    return labels, guesses, records


@pytest.mark.parametrize(
    ("gates", "added", "failed"),
    [
        (GateConfig(), 0.0, []),
        # R2 is 0.04 below the baseline's.
        (GateConfig(), 1.0, ["r2 - baseline's"]),
        (GateConfig(max_r2_drop=0.1, min_r2=0.7, max_mae=2.0), 1.0, []),
        (GateConfig(max_r2_drop=9.0, min_r2=0.9), 0.0, ["r2, all examples"]),
        (GateConfig(max_mae=1.5), 0.0, ["mae, all examples"]),
        # Worse than the mean of the labels.
        (GateConfig(max_r2_drop=9.0), 5.0, ["lower end of the 95 % interval of r2"]),
    ],
    ids=["good", "drop", "given", "r2", "mae", "mean"],
)
def test_a_regression_is_measured_as_by_scikit_learn(
    tmp_path: Path, numbers: Any, gates: GateConfig, added: float, failed: list[str]
) -> None:
    labels, guesses, examples = numbers
    models = [saved(tmp_path / name, Adding(by)) for name, by in (("new", added), ("old", 0.0))]
    ok, found = evaluate(tmp_path, gates, NUMBERS, models, examples, classes=())
    for each, by in ((found.candidate, added), (found.baseline, 0.0)):
        assert each is not None and each.examples == 200
        assert list(each.values) == ["r2", "mae", "rmse"]
        assert each["r2"] == pytest.approx(r2_score(labels, guesses + by), abs=1e-5)
        assert each["mae"] == pytest.approx(mean_absolute_error(labels, guesses + by), abs=1e-5)
        squared = mean_squared_error(labels, guesses + by)
        assert each["rmse"] == pytest.approx(math.sqrt(squared), abs=1e-5)
        low, high = each.interval("r2") or (0, 0)
        assert 0.02 < high - low < 0.5 and low < each["r2"] < high
    assert [gate.rule for gate in found.failed] == failed
    assert ok == (not failed)
    assert found.is_regression and found.headline == "r2" and not found.problems


class Scoring(tf.Module):
    """Gives the second class the probability in the example's feature `guess`, in percent."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = {"guess": tf.io.FixedLenFeature([], tf.int64)}
        second = tf.cast(tf.io.parse_example(records, spec)["guess"], tf.float32) / 100
        return {"probabilities": tf.stack([1 - second, second], axis=1)}

    transform = Echo.transform
    _classes = CLASSES


def test_accuracy_and_crossentropy_are_those_of_keras(tmp_path: Path) -> None:
    """Also of a model that is sure, and wrong."""
    percent = np.array([0, 0, 100, 100, 51, 49, 30])
    dogs = np.array([0, 1, 1, 0, 1, 1, 0])
    examples = [example(CLASSES[dog], int(p)) for dog, p in zip(dogs, percent, strict=True)]
    models = [saved(tmp_path / "model", Scoring())]
    _, found = evaluate(tmp_path, GateConfig(min_accuracy=0), models=models, examples=examples)
    probabilities = np.stack([100 - percent, percent], axis=1) / 100
    for name, metric in (
        ("accuracy", keras.metrics.SparseCategoricalAccuracy()),
        ("crossentropy", keras.metrics.SparseCategoricalCrossentropy()),
    ):
        metric.update_state(dogs, probabilities)
        assert found.candidate[name] == pytest.approx(float(metric.result()), rel=1e-5)


def test_two_classes_are_measured_as_by_scikit_learn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    # None lies on the edge of a bin, or on a threshold.
    percent = 10 * random.integers(0, 10, 300) + random.choice([2, 3, 4, 6, 7, 8], 300)
    dogs = random.uniform(0, 100, 300) < percent
    examples = [example(CLASSES[int(dog)], int(p)) for dog, p in zip(dogs, percent, strict=True)]
    predicted = percent / 100 > 0.5
    expected = {
        "roc_auc": roc_auc_score(dogs, percent),
        "pr_auc": average_precision_score(dogs, percent),
        "precision": precision_score(dogs, predicted),
        "recall": recall_score(dogs, predicted),
        "f1": f1_score(dogs, predicted),
    }
    gates = GateConfig(
        min_accuracy=0.5,
        **{f"min_{name}": value - 0.01 for name, value in expected.items() if name != "f1"},
        min_f1=expected["f1"] + 0.01,
    )
    models = [saved(tmp_path / "model", Scoring())]
    ok, found = evaluate(tmp_path, gates, models=models, examples=examples)
    measured = {name: found.candidate[name] for name in expected}
    assert measured == pytest.approx(expected, abs=5e-3)
    assert not ok and [gate.rule for gate in found.failed] == ["f1, all examples"]
    # Among the examples of one class alone they mean nothing.
    assert all(set(m.values) == {"accuracy", "crossentropy"} for _, m in found.classes)
    assert found.ranked_by == "accuracy"
    assert list(found.candidate.values)[:2] == ["accuracy", "crossentropy"]
    assert found.calibration is not None and found.calibration.name == "dog"
    shares, probabilities = calibration_curve(dogs, percent / 100, n_bins=10)
    points = found.calibration.points
    assert [p for p, _, _ in points] == pytest.approx(list(probabilities), abs=1e-4)
    assert [s for _, s, _ in points] == pytest.approx(list(shares), abs=1e-4)
    assert sum(number for *_, number in points) == 300
    for threshold, *values in found.calibration.thresholds:
        taken = percent >= round(100 * threshold)
        expected = [score(dogs, taken) for score in (precision_score, recall_score, f1_score)]
        assert values == pytest.approx(expected)
    last = found.calibration.thresholds[-1].threshold
    assert last == max(percent) // 5 * 5 / 100
