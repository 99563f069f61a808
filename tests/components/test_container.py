import copy
import json
from pathlib import Path
from typing import Any

import pytest

from components import container as task
from components.artifacts import ABSENT
from trainer_module.util.checks import UserError


def artifact(uri: str, title: str = "tfx.Model", **metadata: Any) -> dict[str, Any]:
    kind = {"instanceSchema": f"title: {title}\ntype: object\n"}
    return {"name": "runs/1", "type": kind, "uri": uri, "metadata": metadata}


def invocation(
    inputs: dict[str, dict[str, Any]], outputs: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    return {
        "inputs": {"artifacts": {k: {"artifacts": [a]} for k, a in inputs.items()}},
        "outputs": {
            "artifacts": {k: {"artifacts": [a]} for k, a in outputs.items()},
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",
        },
    }


def result(**artifacts: dict[str, Any]) -> dict[str, Any]:
    return {"artifacts": {key: {"artifacts": [value]} for key, value in artifacts.items()}}


def uris(side: dict[str, Any]) -> dict[str, str]:
    return {key: found["artifacts"][0]["uri"] for key, found in side["artifacts"].items()}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://bucket/a/b", "/minio/bucket/a/b"),
        ("s3://bucket/a", "/s3/bucket/a"),
        ("gs://bucket/a", "/gcs/bucket/a"),
        ("/workspace/a", "/workspace/a"),
    ],
)
def test_artifacts_lie_where_the_launcher_stages_them(uri: str, path: str) -> None:
    assert task.local_path(uri) == path


def test_only_what_is_absent_is_dropped_from_the_inputs() -> None:
    absent, present = artifact("/a", **{ABSENT: 1.0}), artifact("/b", **{ABSENT: 0.0})
    executor_input = invocation({"model": artifact("/m"), "base": absent, "baseline": present}, {})
    task.drop_absent_inputs(executor_input)
    assert uris(executor_input["inputs"]) == {"model": "/m", "baseline": "/b"}


def test_outputs_that_kubeflow_adds_are_dropped() -> None:
    logs, page = artifact("/logs", "system.Artifact"), artifact("/page", "system.HTML")
    executor_input = invocation(
        {}, {"model": artifact("/m"), "executor-logs": logs, "report": page}
    )
    task.drop_added_outputs(executor_input, {"system.HTML"})
    assert uris(executor_input["outputs"]) == {"model": "/m", "report": "/page"}


def test_an_input_has_the_type_that_the_component_declares() -> None:
    executor_input = invocation({"model": {"uri": "/m", "type": {"instanceSchema": ""}}}, {})
    with pytest.raises(UserError, match=r"'model' must be in .*use_pipeline_spec_2_1=True"):
        task.set_input_types(executor_input, {})
    spec = {"artifacts": {"model": {"artifactType": {"instanceSchema": "title: tfx.Model"}}}}
    task.set_input_types(executor_input, spec)
    (typed,) = executor_input["inputs"]["artifacts"]["model"]["artifacts"]
    assert typed["type"] == {"instanceSchema": "title: tfx.Model"}


@pytest.mark.parametrize(
    ("args", "on_dataflow"),
    [
        ([], False),
        (["--runner=DirectRunner"], False),
        (["--runner=DataflowRunner", "--project=p"], True),
        (["--runner", "DataflowRunner"], True),
        (["--runner=dataflow"], True),
        (["--runner=DataflowRunner", "--runner=DirectRunner"], False),
    ],
)
def test_dataflow_is_told_by_beams_own_options(args: list[str], on_dataflow: bool) -> None:
    assert task.runs_on_dataflow(args) is on_dataflow


def test_a_component_that_reads_files_has_a_driver() -> None:
    assert task.has_driver({"parameters": {"input_base": {}, "input_config": {}, "other": {}}})
    assert not task.has_driver({"parameters": {"input_base": {}}})
    assert not task.has_driver({})


def test_the_drivers_properties_reach_the_executor() -> None:
    executor_input = invocation({}, {"examples": artifact("/e", split_names="[]")})
    task.add_driver_properties(executor_input, result(examples=artifact("/e", span=3.0)))
    (examples,) = executor_input["outputs"]["artifacts"]["examples"]["artifacts"]
    assert examples["metadata"] == {"split_names": "[]", "span": 3.0}


def test_outputs_have_the_uris_of_the_object_store() -> None:
    executor_input = invocation(
        {"model": artifact("gs://b/model")}, {"blessing": artifact("gs://b/out")}
    )
    blessing = artifact("/gcs/b/out", current_model="/gcs/b/model", blessed=1.0)
    answer = result(blessing=blessing)
    task.restore_uris(answer, executor_input)
    assert uris(answer) == {"blessing": "gs://b/out"}
    assert blessing["metadata"] == {"current_model": "gs://b/model", "blessed": 1.0}


def test_the_uri_of_a_page_is_the_file(tmp_path: Path) -> None:
    outputs = {}
    for name, files in (("report", ["page.html"]), ("two", ["a.html", "b.html"]), ("none", [])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
        outputs[name] = artifact(str(tmp_path / name), "system.HTML")
    answer = result(**copy.deepcopy(outputs))
    task.restore_uris(answer, invocation({}, outputs))
    assert uris(answer) == {
        "report": f"{tmp_path}/report/page.html",
        "two": f"{tmp_path}/two",
        "none": f"{tmp_path}/none",
    }


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a": ' * 100_000])
def test_what_is_no_json_object_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        task.main(
            [f"--json_serialized_invocation_args={text}", "--executor_class_path", "a.Executor"]
        )
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "must be a JSON object" in told
    assert len(told) < 1000


@pytest.mark.component
def test_a_task_runs_from_its_command_line(tmp_path: Path) -> None:
    """TFX's entrypoint, a component of ours and an artifact type of ours, on local paths."""
    output_file = tmp_path / "told" / "output.json"
    given = {
        "inputs": {"parameterValues": {"pushed": str(tmp_path / "pushed")}, "artifacts": {}},
        "outputs": {
            "artifacts": {
                "model": {"artifacts": [artifact(str(tmp_path / "model"))]},
                "statistics": {
                    "artifacts": [artifact(str(tmp_path / "statistics"), "tfx.ExampleStatistics")]
                },
            },
            "outputFile": str(output_file),
        },
    }
    version = tmp_path / "pushed" / "7"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_text("graph")
    task.main(
        [
            "--executor_class_path",
            "components.latest_blessed.component.CopyLatest_Executor",
            "--json_serialized_invocation_args",
            json.dumps(given),
            "--json_serialized_inputs_spec_args",
            json.dumps({"parameters": {"pushed": {"parameterType": "STRING"}}}),
        ]
    )
    told = json.loads(output_file.read_text())
    metadata = {k: f["artifacts"][0]["metadata"][ABSENT] for k, f in told["artifacts"].items()}
    assert metadata == {"model": 0, "statistics": 1}
    assert (tmp_path / "model/Format-Serving/saved_model.pb").read_text() == "graph"
