"""What `plateau compile` writes, in the hands of the newest kfp client."""

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

from pipeline import presets
from pipeline.runners import kubeflow, submit

pytestmark = pytest.mark.component

PYTHON = Path(__file__).parents[3] / ".venv-kfp" / "bin" / "python"
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
    """What `plateau compile digits` writes."""
    path = tmp_path_factory.mktemp("compiled") / "digits.yaml"
    config = kubeflow.CompileConfig(
        presets.get("digits").build(),
        image="example.invalid/plateau:1",
        volume="plateau-workspace:/workspace",
        gpus=1,
        file=path,
    )
    kubeflow.run(config)
    return path


@pytest.fixture(scope="module")
def defaults(package: Path) -> dict[str, Any]:
    """The values that a run has if nobody gives others."""
    spec = next(yaml.safe_load_all(package.read_text()))
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    return {name: parameter["defaultValue"] for name, parameter in parameters.items()}


def test_what_was_compiled_is_submitted_as_it_is(
    package: Path, server: KfpServer, defaults: dict[str, Any]
) -> None:
    config = submit.SubmitConfig(package, server.url, wait=True)
    done = submit.submit(config, Console(file=io.StringIO()), {}, sleep=lambda _: None)
    assert done.ok
    (upload,) = server.asked("POST", "pipelines/upload_version")
    assert upload.upload == package.read_bytes()
    (run,) = server.runs.values()
    assert run["runtime_config"]["parameters"] == defaults


def test_the_newest_client_loads_uploads_and_runs_it(
    package: Path, server: KfpServer, defaults: dict[str, Any], tmp_path: Path
) -> None:
    if not PYTHON.is_file():
        pytest.skip("needs the newest kfp client: make .venv-kfp/.installed")
    # The client reads settings from the home folder and from KF_PIPELINES variables.
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    parameters = {**defaults, "data": "/workspace/other", "patience": 2}
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
    assert result["name"] == "plateau-digits"
    assert result["inputs"].keys() == defaults.keys()
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
