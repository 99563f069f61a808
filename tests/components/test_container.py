import json
from pathlib import Path
from typing import Any

import pytest

from components import container as task
from components.artifacts import ABSENT


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


def made(**artifacts: dict[str, Any]) -> dict[str, Any]:
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
def test_artifacts_lie_where_the_launcher_puts_them(uri: str, path: str) -> None:
    given = invocation({"model": artifact(uri)}, {"blessing": artifact(uri)})
    local = task.staged(given)
    assert uris(local["inputs"]) == {"model": path}
    assert uris(local["outputs"]) == {"blessing": path}
    assert uris(given["inputs"]) == {"model": uri}


def test_what_is_absent_is_no_input() -> None:
    given = invocation(
        {"model": artifact("/m"), "baseline_model": artifact("/b", **{ABSENT: 1.0})}, {}
    )
    assert uris(task.without_absent(given)["inputs"]) == {"model": "/m"}


def test_what_is_not_absent_stays() -> None:
    given = invocation({"baseline_model": artifact("/b", **{ABSENT: 0.0})}, {})
    assert task.without_absent(given) == given


def test_an_input_has_the_type_that_the_component_declares() -> None:
    given = invocation({"model": {"uri": "/m", "type": {"instanceSchema": ""}}}, {})
    spec = {"artifacts": {"model": {"artifactType": {"instanceSchema": "title: tfx.Model"}}}}
    (typed,) = task.typed(given, spec)["inputs"]["artifacts"]["model"]["artifacts"]
    assert typed["type"] == {"instanceSchema": "title: tfx.Model"}
    with pytest.raises(ValueError, match=r"'model' must be in .*use_pipeline_spec_2_1=True"):
        task.typed(given, {})


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
    assert task.on_dataflow(args) is on_dataflow


def test_a_component_that_reads_files_has_a_driver() -> None:
    assert task.has_driver({"parameters": {"input_base": {}, "input_config": {}, "other": {}}})
    assert not task.has_driver({"parameters": {"input_base": {}}})
    assert not task.has_driver({})


def test_the_drivers_properties_reach_the_executor() -> None:
    given = invocation({}, {"examples": artifact("/e", split_names="[]")})
    driven = made(examples=artifact("/e", span=3.0))
    merged = task.with_driven(given, driven)
    assert merged["outputs"]["artifacts"]["examples"]["artifacts"][0]["metadata"] == {
        "split_names": "[]",
        "span": 3.0,
    }


def test_outputs_are_told_under_their_first_uris() -> None:
    given = invocation({"model": artifact("gs://b/model")}, {"blessing": artifact("gs://b/out")})
    result = task.unstaged(
        made(blessing=artifact("/gcs/b/out", current_model="/gcs/b/model", blessed=1.0)),
        given,
        lambda folder: None,
    )
    assert uris(result) == {"blessing": "gs://b/out"}
    assert result["artifacts"]["blessing"]["artifacts"][0]["metadata"] == {
        "current_model": "gs://b/model",
        "blessed": 1.0,
    }


def test_a_page_is_told_as_the_file() -> None:
    page, other = artifact("minio://b/page", "system.HTML"), artifact("minio://b/other")
    result = task.unstaged(
        made(report=artifact("/minio/b/page"), other=artifact("/minio/b/other")),
        invocation({}, {"report": page, "other": other}),
        lambda folder: f"of-{Path(folder).name}.html",
    )
    assert uris(result) == {
        "report": "minio://b/page/of-page.html",
        "other": "minio://b/other",
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
            "components.latest_blessed.executor.Executor",
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
