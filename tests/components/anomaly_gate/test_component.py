from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx

import schemas
from components.anomaly_gate.component import AnomalyGate
from components.gate import GateError
from components.inline_schema_gen.component import InlineSchemaGen
from schemas.images import image_schema_text

pytestmark = pytest.mark.component


def write_split(folder: Path, labels: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / "data.tfrecord")) as writer:
        for i, label in enumerate(labels):
            example = tf.train.Example()
            values = {schemas.IMAGE: b"png", schemas.FILE_NAME: b"%d.png" % i}
            values |= {schemas.LABEL: label.encode()} if label else {}
            for name, value in values.items():
                example.features.feature[name].bytes_list.value.append(value)
            writer.write(example.SerializeToString())


@pytest.fixture
def run(tmp_path: Path) -> Callable[[], list[str]]:
    """Runs data, statistics, validator and gate; gives the states of its last executions."""
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(
        str(tmp_path / "metadata.db")
    )

    def states() -> list[str]:
        split = tfx.proto.Input.Split
        examples = tfx.components.ImportExampleGen(
            input_base=str(tmp_path / "data"),
            input_config=tfx.proto.Input(
                splits=[split(name=s, pattern=f"{s}/*") for s in ("train", "eval")]
            ),
        )
        statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
        imported = InlineSchemaGen(image_schema_text(["cat", "dog"]))
        found = {
            "statistics": statistics.outputs["statistics"],
            "schema": imported.outputs["schema"],
        }
        validator = tfx.components.ExampleValidator(**found)
        gate = AnomalyGate(anomalies=validator.outputs["anomalies"], **found)
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="gate",
            pipeline_root=str(tmp_path / "root"),
            components=[examples, statistics, imported, validator, gate],
            enable_cache=True,
            metadata_connection_config=connection,
        )
        tfx.orchestration.LocalDagRunner().run(pipeline)
        executions = sorted(MetadataStore(connection).get_executions(), key=lambda e: e.id)
        return [
            metadata_store_pb2.Execution.State.Name(e.last_known_state) for e in executions[-5:]
        ]

    return states


def test_the_gate_opens_is_cached_and_shuts(run: Callable[[], list[str]], tmp_path: Path) -> None:
    for split in ("train", "eval"):
        write_split(tmp_path / "data" / split, ["cat", "dog", "dog"])
    assert run() == ["COMPLETE"] * 5
    assert run() == ["CACHED"] * 5
    write_split(tmp_path / "data/eval", ["cat", "dgo", "dog", "dog"])
    with pytest.raises(GateError, match=r"split eval, feature label: .*dgo"):
        run()


def test_missing_labels_and_a_single_one(run: Callable[[], list[str]], tmp_path: Path) -> None:
    write_split(tmp_path / "data/train", ["cat", "", "dog"])
    write_split(tmp_path / "data/eval", ["cat", "cat"])
    with pytest.raises(GateError) as error:
        run()
    message = str(error.value)
    assert "got 2 problems" in message
    assert "split train, feature label" in message
    assert "split eval, feature label: every example has the same label" in message


def test_an_empty_split(run: Callable[[], list[str]], tmp_path: Path) -> None:
    write_split(tmp_path / "data/train", ["cat", "dog"])
    write_split(tmp_path / "data/eval", [])
    with pytest.raises(GateError, match="split eval: it has no examples"):
        run()


def test_it_compiles_for_kubeflow(tmp_path: Path) -> None:
    def given(kind: type, node: str) -> Any:
        importer = tfx.dsl.Importer(source_uri="uri", artifact_type=kind).with_id(node)
        nodes.append(importer)
        return importer.outputs["result"]

    nodes: list[Any] = []
    artifacts = tfx.types.standard_artifacts
    gate = AnomalyGate(
        anomalies=given(artifacts.ExampleAnomalies, "anomalies"),
        statistics=given(artifacts.ExampleStatistics, "statistics"),
        schema=given(artifacts.Schema, "schema"),
    )
    pipeline = tfx.dsl.Pipeline("gate", "root", components=[*nodes, gate])
    config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="image")
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config, output_dir=str(tmp_path))
    tasks = runner.run(pipeline)["pipelineSpec"]["root"]["dag"]["tasks"]
    assert set(tasks["AnomalyGate"]["inputs"]["artifacts"]) == {"anomalies", "statistics", "schema"}
