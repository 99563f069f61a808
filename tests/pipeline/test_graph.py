import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from trainer_module.util import environment

environment.prepare()

from components.plateau_trainer import parameters as logic  # noqa: E402
from pipeline import graph, presets  # noqa: E402
from pipeline.config import RunConfig  # noqa: E402
from pipeline.data.dataset import Dataset, TrainingSize  # noqa: E402
from pipeline.runners import local  # noqa: E402
from schemas.images import image_schema_text  # noqa: E402

SIZE = TrainingSize(100, 100, "a test")
SCHEMA = image_schema_text(("0", "1"))
PATHS = graph.PipelinePaths(data="/d", artifacts="/a", pushed="/p")


def run_config(name: str = "digits", **schedule: Any) -> RunConfig:
    config = presets.get(name).build()
    return dataclasses.replace(
        config,
        classes=config.classes or ("0", "1"),
        schedule=dataclasses.replace(config.schedule, **schedule),
    )


def nodes(config: RunConfig) -> dict[str, Any]:
    """The compiled nodes by id."""
    data = Dataset(Path("/data"), Path("/data"), config.classes, SCHEMA, SIZE)
    ir = local.compile_pipeline(config, data, Path("/out"))
    return {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}


def parameters(node: Any) -> dict[str, Any]:
    """The parameters of a compiled node by name."""
    return {
        name: getattr(value.field_value, value.field_value.WhichOneof("value"))
        for name, value in node.parameters.parameters.items()
    }


def producers(node: Any) -> set[str]:
    return {
        channel.producer_node_query.id
        for spec in node.inputs.inputs.values()
        for channel in spec.channels
    }


@pytest.mark.parametrize(
    ("preset", "example_gen"), [("digits", "ImageExampleGen"), ("taxi", "CsvExampleGen")]
)
def test_flow(preset: str, example_gen: str) -> None:
    found = nodes(run_config(preset))
    assert producers(found["StatisticsGen"]) == {example_gen}
    assert producers(found["ExampleValidator"]) == {"StatisticsGen", "InlineSchemaGen"}
    assert producers(found["AnomalyGate"]) >= {"ExampleValidator", "StatisticsGen"}
    assert producers(found["Transform"]) == {example_gen, "InlineSchemaGen"}
    assert producers(found["Trainer"]) == {example_gen, "Transform", "InlineSchemaGen"}
    assert producers(found["Evaluator"]) == {example_gen, "Trainer", "LatestBlessedModel"}
    assert producers(found["Servable"]) == {example_gen, "Trainer", "Evaluator"}
    assert producers(found["Pusher"]) == {"Trainer", "Evaluator", "Servable"}
    assert producers(found["TrainingReport"]) >= {"Trainer", "Evaluator", "Servable", "DriftGate"}


def test_rows_without_a_label_are_left_out_where_that_is_asked_for() -> None:
    config = dataclasses.replace(run_config("taxi"), on_missing_label="skip")
    node = nodes(config)["CsvExampleGen"]
    assert parameters(node)["labels"] == '["tips", "fare"]'
    plain = parameters(nodes(run_config("taxi"))["CsvExampleGen"])
    assert parameters(node).items() >= plain.items()


def test_nothing_is_trained_before_the_gate_has_passed() -> None:
    found = nodes(run_config())
    for gate in ("AnomalyGate", "DriftGate"):
        assert gate in found["Transform"].upstream_nodes
        assert list(found).index(gate) < list(found).index("Transform")


def test_a_value_reaches_the_trainer_as_it_was_given() -> None:
    config = run_config(max_epochs=17)
    given = parameters(nodes(config)["Trainer"])
    assert logic.assemble(given["train_config"], given) == config.train_config()
    assert given["max_epochs"] == 17


def test_schedule_changes_the_trainer_and_leaves_transform_cached() -> None:
    before, after = nodes(run_config(max_epochs=17)), nodes(run_config(max_epochs=18))
    assert before["Transform"].parameters == after["Transform"].parameters
    assert before["Trainer"].parameters != after["Trainer"].parameters


def test_code_changes_both(monkeypatch: pytest.MonkeyPatch) -> None:
    before = nodes(run_config())
    monkeypatch.setattr(graph.fingerprint, "of_sources", lambda model: "other code")
    after = nodes(run_config())
    for name in ("Transform", "Trainer"):
        assert before[name].parameters != after[name].parameters


def test_each_split_has_one_use() -> None:
    found = nodes(run_config())
    trainer = parameters(found["Trainer"])
    assert json.loads(trainer["train_args"])["splits"] == ["train"]
    assert json.loads(trainer["eval_args"])["splits"] == ["eval"]
    assert json.loads(parameters(found["Evaluator"])["example_splits"]) == ["test"]


def test_warm_start_begins_with_the_last_blessed_model() -> None:
    config = dataclasses.replace(run_config(), warm_start=True)
    assert "LatestBlessedModel" in producers(nodes(config)["Trainer"])


def test_the_tuner_is_there_when_it_is_asked_for() -> None:
    assert "Tuner" not in nodes(run_config())
    found = nodes(dataclasses.replace(run_config(), tune=5))
    assert "Tuner" in producers(found["Trainer"])
    assert json.loads(parameters(found["Tuner"])["custom_config"])["trials"] == 5


def test_table_is_split_8_1_1() -> None:
    given = parameters(nodes(run_config("taxi"))["CsvExampleGen"])
    output = json.loads(given["output_config"])
    assert output["split_config"]["splits"] == [
        {"name": "train", "hash_buckets": 8},
        {"name": "eval", "hash_buckets": 1},
        {"name": "test", "hash_buckets": 1},
    ]


def test_two_pipelines_share_no_component() -> None:
    config = run_config()
    first, second = (graph.create_pipeline(config, PATHS, SCHEMA) for _ in range(2))
    assert not {id(c) for c in first.components} & {id(c) for c in second.components}


def test_all_runs_in_an_output_folder_share_the_baseline(tmp_path: Path) -> None:
    store = tmp_path / "metadata.sqlite"
    one = run_config()
    other = dataclasses.replace(one, name="images", classes=("0", "2"))
    assert graph.pipeline_name(one, store) == graph.pipeline_name(other, store)


def test_pipeline_name_suits_kubeflow() -> None:
    for name in presets.PRESETS:
        config = presets.get(name).build()
        assert len(graph.pipeline_name(config)) < 64
        assert graph.pipeline_name(config).replace("-", "").isalnum()


def test_classes_must_be_known() -> None:
    config = presets.get("digits").build()
    with pytest.raises(ValueError, match="at least two classes"):
        graph.create_pipeline(config, PATHS, SCHEMA)
