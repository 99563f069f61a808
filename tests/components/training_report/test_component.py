import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from ml_metadata.metadata_store import metadata_store
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tensorflow_model_analysis.proto import config_pb2
from tfx import v1 as tfx

import schemas
from components import artifacts
from components.drift_gate.drift import distance
from components.servable import verdict as servable
from components.training_report.component import TrainingReport
from components.training_report.executor import TEST, ArtifactError, Executor
from pipeline.metadata import runs
from schemas.images import image_schema_text
from trainer_module import history
from trainer_module.history import History

pytestmark = pytest.mark.component

CLASSES = ("cat", "dog")
SPLITS = ("train", "test")
STANDARD = tfx.types.standard_artifacts
KINDS = {
    "history": artifacts.TrainingHistory,
    "evaluation": STANDARD.ModelEvaluation,
    "blessing": STANDARD.ModelBlessing,
    "statistics": STANDARD.ExampleStatistics,
    "schema": STANDARD.Schema,
    "anomalies": STANDARD.ExampleAnomalies,
    "model": STANDARD.Model,
    "examples": STANDARD.Examples,
    "infra_blessing": STANDARD.InfraBlessing,
    "drift": artifacts.DataDrift,
}
REQUIRED = ("evaluation", "blessing", "statistics", "schema")
WITH_SPLITS = ("statistics", "anomalies", "examples")
PARAMETERS = {
    "classes": json.dumps(CLASSES),
    "split": "test",
    "label": "label",
    "title": "animals",
    "command": "plateau run --data animals",
    "fingerprint": "0123abcd",
    "rounding": 1e-6,
    "look_at": 100,
}


class Doggish(tf.Module):
    """Takes everything for a dog."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.tile([[0.125, 0.875]], [tf.shape(records)[0], 1])}


def write_evaluation(folder: Path, accuracy: str = "accuracy") -> None:
    """What the Evaluator writes about a model that takes two cats and two dogs for dogs."""
    lower = config_pb2.GenericValueThreshold(lower_bound={"value": 0.75 - 1e-6})
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key="index", prediction_key="scores")],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["label"])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name="ExampleCount"),
                    config_pb2.MetricConfig(
                        class_name="SparseCategoricalAccuracy",
                        config=json.dumps({"name": accuracy}),
                        per_slice_thresholds=[
                            config_pb2.PerSliceMetricThreshold(
                                slicing_specs=[config_pb2.SlicingSpec()],
                                threshold=config_pb2.MetricThreshold(value_threshold=lower),
                            )
                        ],
                    ),
                    config_pb2.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
                ]
            )
        ],
    )
    actual = [0, 0, 1, 1]
    frame = pd.DataFrame(
        {
            "index": actual,
            "label": [CLASSES[index] for index in actual],
            "scores": [[0.125, 0.875]] * 4,
        }
    )
    tfma.analyze_raw_data(frame, config, output_path=str(folder))


def write_examples(file: Path, encoded: Callable[[int, int], bytes]) -> None:
    file.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for place in range(4):
            example = tf.train.Example()
            label = CLASSES[place % 2]
            for name, value in (
                (schemas.IMAGE, encoded(8, place)),
                (schemas.LABEL, label.encode()),
                (schemas.FILE_NAME, f"test/{label}/<i>{place}.png".encode()),
            ):
                example.features.feature[name].bytes_list.value.append(value)
            writer.write(example.SerializeToString())


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    trained: Callable[..., History],
    encoded: Callable[[int, int], bytes],
) -> Path:
    """A folder for each artifact of a finished run, built by hand where that is the same."""
    root = tmp_path_factory.mktemp("finished")
    for name in KINDS:
        (root / name).mkdir()
    history.write(trained(4), root / "history" / history.FILE_NAME)
    write_evaluation(root / "evaluation")
    (root / "blessing/NOT_BLESSED").touch()
    (root / "infra_blessing/INFRA_NOT_BLESSED").touch()
    killed = servable.judge(
        [], servable.Ending("signal SIGKILL"), 1.25, servable.Limits(), servable.Evaluated()
    )
    result = servable.result(killed, [], "test", 1.25)
    (root / "infra_blessing/servable.json").write_text(json.dumps(dataclasses.asdict(result)))
    moved = distance("drift", "<i>fare</i>", 0.25, 0.3)
    (root / "drift/drift.json").write_text(json.dumps([dataclasses.asdict(moved)]))
    (root / "schema/schema.pbtxt").write_text(image_schema_text(CLASSES), encoding="utf-8")
    for split in SPLITS:
        found = statistics_pb2.DatasetFeatureStatisticsList()
        dataset = found.datasets.add(num_examples=4)
        label = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.STRING)
        label.path.step.append(schemas.LABEL)
        label.string_stats.unique = 2
        for name in CLASSES:
            label.string_stats.rank_histogram.buckets.add(label=name, sample_count=2)
        for kind, file, proto in (
            ("statistics", "FeatureStats.pb", found),
            ("anomalies", "SchemaDiff.pb", anomalies_pb2.Anomalies()),
        ):
            (root / kind / f"Split-{split}").mkdir()
            (root / kind / f"Split-{split}" / file).write_bytes(proto.SerializeToString())
    write_examples(root / "examples/Split-test/data_tfrecord-00000-of-00001.gz", encoded)
    module = Doggish()
    tf.saved_model.save(
        module,
        str(root / "model/Format-Serving"),
        signatures={"serving_default": module.serve},
    )
    return root


def given(root: Path, *names: str) -> dict[str, list[Any]]:
    inputs = {}
    for name in names:
        artifact = KINDS[name]()
        artifact.uri = str(root / name)
        if name in WITH_SPLITS:
            artifact.split_names = json.dumps(SPLITS)
        if name == "examples":
            artifact.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
        inputs[name] = [artifact]
    return inputs


def run(folder: Path, inputs: dict[str, list[Any]], **parameters: Any) -> str:
    text, _ = run_for_artifact(folder, inputs, **parameters)
    return text


def run_for_artifact(
    folder: Path, inputs: dict[str, list[Any]], **parameters: Any
) -> tuple[str, artifacts.HtmlReport]:
    output = artifacts.HtmlReport()
    output.uri = str(folder / "report")
    Executor().Do(inputs, {"report": [output]}, PARAMETERS | parameters)
    (written,) = (folder / "report").iterdir()
    assert written.name == "report.html"
    return written.read_text(), output


def test_a_page_with_everything(finished: Path, tmp_path: Path) -> None:
    text = run(tmp_path, given(finished, *KINDS))
    for words in (
        "Not blessed",
        "accuracy, all examples is <strong>0.5000</strong>, must be at least 0.7500",
        "It is not servable either: 1 check of serving failed.",
        "Serving, process: <strong>signal SIGKILL before it began</strong>",
        "It takes 1.25 MiB on disk.",
        "&lt;i&gt;fare&lt;/i&gt;",
        "Of the 4 examples of the split test that the model was asked about, 2 are classified",
        "test/cat/&lt;i&gt;0.png",
        "Every split follows the schema.",
        "plateau run --data animals",
        "0123abcd",
        "tensorflow-model-analysis",
    ):
        assert words in text, words
    assert text.count('<img src="data:image/png;base64,') == 2


def test_what_is_not_given_is_told(finished: Path, tmp_path: Path) -> None:
    text = run(tmp_path, given(finished, *REQUIRED))
    assert "the report was given no model and no examples" in text
    assert "was given no ExampleAnomalies" in text
    assert "was given no DataDrift" in text
    assert "no InfraBlessing" in text
    again = run(tmp_path, given(finished, *REQUIRED, "examples"))
    assert "the report was given no model, and it needs both" in again


@pytest.mark.parametrize("written", [True, False])
def test_behind_the_trainer_of_tfx(finished: Path, tmp_path: Path, written: bool) -> None:
    inputs = given(finished, *REQUIRED)
    run_of_fit = STANDARD.ModelRun()
    run_of_fit.uri = str(finished / ("history" if written else "blessing"))
    text = run(tmp_path, {**inputs, "model_run": [run_of_fit]})
    assert ("The report was given no history" in text) is not written
    assert ("All 4 epochs as a table" in text) is written


def test_the_verdict_of_another_component_on_serving(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "other")
    (tmp_path / "other/infra_blessing/servable.json").unlink()
    (tmp_path / "other/infra_blessing/INFRA_NOT_BLESSED").rename(
        tmp_path / "other/infra_blessing/INFRA_BLESSED"
    )
    text = run(tmp_path, given(tmp_path / "other", *KINDS))
    assert "The model can be served." in text
    assert "the InfraBlessing holds no servable.json" in text


def test_the_accuracy_is_a_property_of_the_report(finished: Path, tmp_path: Path) -> None:
    assert f"{TEST}accuracy" == runs.TEST_ACCURACY and f"{TEST}r2" == runs.TEST_R2
    _, report = run_for_artifact(tmp_path, given(finished, *REQUIRED))
    assert report.get_float_custom_property(runs.TEST_ACCURACY) == 0.5


def test_without_an_accuracy_there_is_no_property(finished: Path, tmp_path: Path) -> None:
    evaluation = tmp_path / "other/evaluation"
    shutil.copytree(finished, tmp_path / "other")
    shutil.rmtree(evaluation)
    write_evaluation(evaluation, accuracy="share_right")
    _, report = run_for_artifact(tmp_path, given(tmp_path / "other", *REQUIRED))
    assert not report.has_custom_property(runs.TEST_ACCURACY)


def test_examples_of_another_form_are_told(finished: Path, tmp_path: Path) -> None:
    inputs = given(finished, *KINDS)
    inputs["examples"][0].set_string_custom_property("payload_format", "FORMAT_PROTO")
    assert "the examples are FORMAT_PROTO" in run(tmp_path, inputs)


@pytest.mark.parametrize(
    ("name", "file", "remedy"),
    [
        ("history", "history.jsonl", "Run the Trainer again"),
        ("evaluation", "eval_config.json", "Run the Evaluator again"),
        ("statistics", "Split-train/FeatureStats.pb", "Run StatisticsGen again"),
        ("schema", "schema.pbtxt", "Give it a schema.pbtxt"),
        ("anomalies", "Split-test/SchemaDiff.pb", "Run ExampleValidator again"),
        ("model", "Format-Serving/saved_model.pb", "Run the Trainer again"),
        ("drift", "drift.json", "Run DriftGate again"),
        ("examples", "Split-test/data_tfrecord-00000-of-00001.gz", "Name one of its splits"),
    ],
)
def test_a_broken_input_is_named_with_a_remedy(
    finished: Path, tmp_path: Path, name: str, file: str, remedy: str
) -> None:
    shutil.copytree(finished, tmp_path / "broken")
    (tmp_path / "broken" / name / file).unlink()
    with pytest.raises(ArtifactError, match=f"input '{name}' must be a readable .*{remedy}"):
        run(tmp_path, given(tmp_path / "broken", *KINDS))
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("name", "file", "remedy"),
    [
        ("drift", "drift.json", "Run DriftGate again"),
        ("infra_blessing", "servable.json", "Run Servable again"),
    ],
)
def test_a_damaged_input_is_named_with_a_remedy(
    finished: Path, tmp_path: Path, name: str, file: str, remedy: str
) -> None:
    shutil.copytree(finished, tmp_path / "broken")
    (tmp_path / "broken" / name / file).write_text('{"version": 7}')
    with pytest.raises(ArtifactError, match=f"input '{name}' must be a readable .*{remedy}"):
        run(tmp_path, given(tmp_path / "broken", *KINDS))


def test_a_split_that_is_not_there_is_named(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"input 'examples' .*Name one of its splits as split"):
        run(tmp_path, given(finished, *KINDS), split="validation")


def test_an_old_report_is_replaced(finished: Path, tmp_path: Path) -> None:
    run(tmp_path, given(finished, *REQUIRED), title="first")
    assert "second" in run(tmp_path, given(finished, *REQUIRED), title="second")


def importers(root: Path, *names: str) -> dict[str, Any]:
    """A node for each artifact, as another project's pipeline might have."""
    nodes = {}
    for name in names:
        properties = {"split_names": json.dumps(SPLITS)} if name in WITH_SPLITS else {}
        nodes[name] = tfx.dsl.Importer(
            source_uri=str(root / name), artifact_type=KINDS[name], properties=properties
        ).with_id(name)
    return nodes


def test_in_a_pipeline_of_somebody_else(finished: Path, tmp_path: Path) -> None:
    nodes = importers(finished, *KINDS)
    report = TrainingReport(
        **{name: node.outputs["result"] for name, node in nodes.items()},
        classes=CLASSES,
        split="test",
    )
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="other",
        pipeline_root=str(tmp_path),
        components=[*nodes.values(), report],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(tmp_path / "metadata.db")
        ),
    )
    tfx.orchestration.LocalDagRunner().run(pipeline)
    (page,) = tmp_path.glob("TrainingReport/report/*/report.html")
    assert "2 are classified wrong" in page.read_text()
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(
        str(tmp_path / "metadata.db")
    )
    store = metadata_store.MetadataStore(connection)
    (stored,) = store.get_artifacts_by_type(artifacts.HtmlReport.TYPE_NAME)
    assert stored.custom_properties[runs.TEST_ACCURACY].double_value == 0.5


@pytest.mark.parametrize("names", [REQUIRED, tuple(KINDS)], ids=["required", "all"])
def test_it_compiles_for_kubeflow(tmp_path: Path, names: tuple[str, ...]) -> None:
    nodes = importers(Path("/"), *names)
    report = TrainingReport(
        **{name: node.outputs["result"] for name, node in nodes.items()}, classes=CLASSES
    )
    pipeline = tfx.dsl.Pipeline("other", "root", components=[*nodes.values(), report])
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config, output_dir=str(tmp_path))
    tasks = runner.run(pipeline)["pipelineSpec"]["root"]["dag"]["tasks"]
    assert set(tasks["TrainingReport"]["inputs"]["artifacts"]) == set(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"look_at": 0}, "`look_at` must be at least 1"), ({"classes": "cat"}, "sequence of names")],
)
def test_nonsense_is_refused(arguments: dict[str, Any], message: str) -> None:
    nodes = importers(Path("/"), *REQUIRED)
    channels = {name: node.outputs["result"] for name, node in nodes.items()}
    with pytest.raises(ValueError, match=message):
        TrainingReport(**channels, **arguments)
