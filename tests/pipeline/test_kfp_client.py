"""What is compiled by the kfp of TFX, in the hands of the newest kfp client."""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_server import KfpServer
from rich.console import Console

from pipeline import submit

pytestmark = pytest.mark.component

PYTHON = Path(__file__).parents[2] / ".venv-kfp" / "bin" / "python"
CLIENT = """
import json, sys
import kfp
from kfp import components

host, file, parameters = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
loaded = components.load_component_from_file(file)
client = kfp.Client(host=host)
pipeline = client.upload_pipeline(file)
version = client.upload_pipeline_version(file, "second", pipeline_id=pipeline.pipeline_id)
experiment = client.create_experiment("newest")
by_version = client.run_pipeline(
    experiment.experiment_id, "by version", params=parameters,
    pipeline_id=pipeline.pipeline_id, version_id=version.pipeline_version_id,
)
by_file = client.create_run_from_pipeline_package(
    file, arguments=parameters, run_name="by file", experiment_id=experiment.experiment_id
)
ended = client.wait_for_run_completion(by_file.run_id, timeout=60, sleep_duration=0.01)
print("result", json.dumps({
    "client": kfp.__version__,
    "name": loaded.name,
    "inputs": {name: spec.type for name, spec in loaded.component_spec.inputs.items()},
    "runs": [by_version.run_id, by_file.run_id],
    "state": ended.state,
}))
"""


@pytest.fixture
def server() -> Iterator[KfpServer]:
    with KfpServer() as server:
        yield server


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TFX pipeline with a runtime parameter and a mounted volume."""
    from tfx.components import CsvExampleGen, StatisticsGen
    from tfx.orchestration.data_types import RuntimeParameter
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as runner
    from tfx.orchestration.pipeline import Pipeline

    folder = tmp_path_factory.mktemp("compiled")
    examples = CsvExampleGen(input_base=RuntimeParameter("data", str))
    statistics = StatisticsGen(examples.outputs["examples"])
    config = runner.KubeflowV2DagRunnerConfig(
        default_image="example.invalid/plateau:1", use_pipeline_spec_2_1=True
    )
    runner.KubeflowV2DagRunner(config, str(folder), "small.json").run(
        Pipeline("small", "/workspace/root", components=[examples, statistics]), write_out=True
    )
    spec = json.loads((folder / "small.json").read_text())["pipelineSpec"]
    # TFX writes no defaults.
    spec["root"]["inputDefinitions"]["parameters"]["data"]["defaultValue"] = "/data"
    mount = {"pvcMount": [{"mountPath": "/workspace", "constant": "plateau"}]}
    platforms = {"kubernetes": {"deploymentSpec": {"executors": {"StatisticsGen_executor": mount}}}}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump_all([spec, {"platforms": platforms}]))
    return path


def test_a_tfx_pipeline_is_submitted_as_it_is(package: Path, server: KfpServer) -> None:
    config = submit.SubmitConfig(package, server.url, wait=True)
    done = submit.submit(config, Console(file=io.StringIO()), {}, sleep=lambda _: None)
    assert done.ok
    (upload,) = server.asked("POST", "pipelines/upload_version")
    assert upload.upload == package.read_bytes()
    (run,) = server.runs.values()
    assert run["runtime_config"]["parameters"] == {"data": "/data"}


def test_the_newest_client_loads_uploads_and_runs_it(
    package: Path, server: KfpServer, tmp_path: Path
) -> None:
    if not PYTHON.is_file():
        pytest.skip("needs the newest kfp client: make .venv-kfp/.installed")
    # The client reads settings from the home folder and from KF_PIPELINES variables.
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    parameters = {"data": "/workspace/data"}
    done = subprocess.run(
        [PYTHON, "-c", CLIENT, server.url, package, json.dumps(parameters)],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.rpartition("result ")[2])
    assert result["client"] != "2.5.0"
    assert result["name"] == "small"
    assert result["inputs"] == {"data": "String"}
    assert result["state"] == "SUCCEEDED"
    assert list(server.runs) == result["runs"]
    for request in server.asked("POST", "pipelines/upload(_version)?"):
        assert request.upload == package.read_bytes()
    by_version, by_file = server.runs.values()
    for run in (by_version, by_file):
        assert run["runtime_config"]["parameters"] == parameters
    spec, platforms = yaml.safe_load_all(package.read_text())
    sent = by_file["pipeline_spec"]
    assert sent["platform_spec"] == platforms
    assert set(sent["pipeline_spec"]["root"]["dag"]["tasks"]) == set(spec["root"]["dag"]["tasks"])
    assert sent["pipeline_spec"]["deploymentSpec"] == spec["deploymentSpec"]
