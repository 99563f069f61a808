"""The compiled pipelines, run task by task as Kubeflow Pipelines runs them, without a cluster."""

import subprocess
import sys

import cluster
import pytest
import yaml

from pipeline import digits
from runs import ROOT

reason = cluster.unavailable()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(reason is not None, reason=str(reason)),
]
FLAGS = ("--image", "registry.example/plateau:1", "--volume", "plateau-workspace:/workspace")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kubeflow")


@pytest.fixture(scope="module")
def compiled(folder):
    """What `plateau compile` writes; the volume has the data where the tasks look for it."""
    file = folder / "digits.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "compile", "digits", *FLAGS, "--file", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return file


@pytest.fixture(scope="module")
def volume(folder, app):
    """A new block volume, which belongs to root, after the Job that prepares it, with data."""
    path = folder / "volume"
    path.mkdir()
    machine = cluster.Cluster(folder / "job", app, {"plateau-workspace": path}, cluster.V2_17)
    prepared, log = machine.job(ROOT / "deploy/manifests/prepare.yaml", seconds=2)
    machine.close()
    assert prepared, log
    digits.write_digits(path / "data/digits")
    return path


@pytest.fixture
def machines(app, tmp_path):
    """Makes a cluster of a version, with the volume."""
    made = []

    def make(version, **options):
        (tmp_path / "volume").mkdir()
        claims = {"plateau-workspace": tmp_path / "volume"}
        made.append(cluster.Cluster(tmp_path, app, claims, version, **options))
        return made[-1]

    yield make
    for machine in made:
        machine.close()


@pytest.mark.xfail(strict=True, reason="the output is handed to TFX")
@pytest.mark.parametrize("version", [cluster.V2_5, cluster.V2_14, cluster.V2_17])
def test_a_task_runs_beside_the_output_that_the_server_adds(machines, compiled, version):
    run = machines(version).run(compiled, only={"InlineSchemaGen"})
    assert run.succeeded, run.failures


@pytest.mark.xfail(strict=True, reason="the type is read from the input")
def test_a_task_runs_on_inputs_without_a_type(machines, compiled, tmp_path):
    machine = machines(cluster.V2_17, publish_logs=False)
    digits.write_digits(tmp_path / "volume/data/digits")
    run = machine.run(compiled, only={"ImageExampleGen", "StatisticsGen"})
    assert run.succeeded, run.failures


@pytest.mark.xfail(strict=True, reason="no Job prepares the volume")
def test_the_image_s_user_can_write_on_a_volume_that_the_job_has_prepared(volume):
    for name in ("data", "pushed", "checkpoints"):
        found = (volume / name).stat()
        assert (found.st_uid, oct(found.st_mode & 0o700)) == (cluster.USER, "0o700")


@pytest.mark.xfail(strict=True, reason="the retry policy has no maximum duration")
@pytest.mark.parametrize("version", [cluster.V2_14, cluster.V2_17])
def test_a_trainer_that_is_lost_is_tried_again(compiled, version):
    spec, _ = yaml.safe_load_all(compiled.read_text())
    policy = spec["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"]
    phase = {"OnFailure": "Failed", "OnError": "Error"}[version.policy]
    assert cluster.retried(version, policy, cluster.Attempt(phase, 143), 1, passed=3600)
