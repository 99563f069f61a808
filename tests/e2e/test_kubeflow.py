"""The compiled pipelines, run task by task as Kubeflow Pipelines runs them, without a cluster."""

import functools
import itertools
import subprocess
import sys

import cluster
import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline import presets
from pipeline.data import dataset, digits
from runs import ROOT

reason = cluster.unavailable()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(reason is not None, reason=str(reason)),
]
FLAGS = ("--image", "registry.example/plateau:1", "--volume", "plateau-workspace:/workspace")
S3 = "s3://bucket/plateau"
FROM_TRAINER = ("Trainer", "Evaluator", "Servable", "Pusher")
NODES = (
    *("--gpus", "1", "--toleration", "nvidia.com/gpu:NoSchedule", "--node-selector", "pool=gpu"),
    *("--image-pull-secret", "registry", "--task-cpus", "0.5", "--task-memory-gib", "2"),
)
"""What only the newest protocol buffers of Kubeflow know."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kubeflow")


@pytest.fixture(scope="module")
def compiled(folder):
    """Runs `plateau compile` with flags, and returns the file."""

    @functools.cache
    def run(*flags):
        file = folder / f"{flags[0]}-{len(list(folder.glob('*.yaml')))}.yaml"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pipeline.cli",
                "compile",
                *flags,
                *FLAGS,
                "--file",
                str(file),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return file

    return run


@pytest.fixture(scope="module")
def machines(folder, app):
    """Makes a cluster of a version, with a new block volume, which belongs to root."""
    made = []

    def make(name, version, prepared=True, **options):
        volume = folder / name / "volume"
        volume.mkdir(parents=True)
        claims = {"plateau-workspace": volume}
        machine = cluster.Cluster(folder / name, app, claims, version, **options)
        made.append(machine)
        if prepared:
            ready, log = machine.job(ROOT / "deploy/manifests/prepare.yaml", seconds=2)
            assert ready, log
        return machine, volume

    yield make
    for machine in made:
        machine.close()


def pushed(volume, name):
    return sorted(p.name for p in (volume / "pushed" / name).glob("[0-9]*"))


def epochs(log):
    return [int(line.split()[1]) for line in log.splitlines() if line.startswith("    epoch")]


def images(folder, classes, count, splits=("",)):
    """Writes images of one grey value a class."""
    noise = np.random.default_rng(0)
    for split in splits:
        for index, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = noise.normal(255 * (index % 7) / 6, 20, (12, 12)).clip(0, 255)
                path = folder / split / name / f"{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)


class TestDigits:
    """On the newest release, whose Argo retries only pods that vanish."""

    @pytest.fixture(scope="class")
    def file(self, compiled):
        return compiled("digits")

    @pytest.fixture(scope="class")
    def machine(self, machines):
        machine, volume = machines("digits", cluster.V2_17)
        digits.write_digits(volume / "data/digits")
        return machine

    @pytest.fixture(scope="class")
    def volume(self, machine):
        return machine.claims["plateau-workspace"]

    @pytest.fixture(scope="class")
    def first(self, machine, file):
        """All tasks; the pod of one vanishes."""
        lose = {"StatisticsGen": cluster.Loss("Starting executor", vanishes=True)}
        return machine.run(file, lose=lose)

    @pytest.fixture(scope="class")
    def evicted(self, machine, file, first):
        """Another schedule, whose Trainer is evicted after its third epoch."""
        lose = {"Trainer": cluster.Loss("epoch  3")}
        only = {"Trainer", "Evaluator"}
        return machine.run(file, {"patience": 2}, lose=lose, only=only, cached=first)

    @pytest.fixture(scope="class")
    def again(self, machine, file, first, evicted):
        """The same once more; the tasks before are as in the first run."""
        only = {"LatestBlessed", "DriftGate", *FROM_TRAINER}
        return machine.run(file, {"patience": 2}, only=only, cached=first)

    def test_the_first_run_pushes_a_model(self, first, volume):
        assert first.succeeded, first.failures
        assert len(first.tasks) == 13
        assert first.output("LatestBlessed", "model")["metadata"]["absent"] == 1
        (version,) = pushed(volume, "digits")
        assert first.output("Pusher", "pushed_model")["metadata"]["pushed_version"] == version

    def test_a_vanished_pod_is_replaced(self, first):
        assert [a.phase for a in first.tasks["StatisticsGen"].attempts] == ["Error", "Succeeded"]

    def test_artifacts_go_to_the_root_of_the_server(self, first):
        assert first.output("Trainer", "model")["uri"].startswith(cluster.DEFAULT_ROOT)

    def test_properties_of_artifacts_reach_later_tasks(self, first):
        examples = first.output("ImageExampleGen", "examples")["metadata"]
        assert examples["split_names"] == '["train","eval","test"]'.replace(",", ", ")
        assert first.output("Trainer", "training_history")["metadata"]["stop_reason"]

    def test_the_report_is_a_page_for_kubeflows_user_interface(self, first):
        assert first.output("TrainingReport", "report")["uri"].endswith("/report.html")
        assert "</html>" in first.stored("TrainingReport", "report").read_text()

    def test_an_evicted_trainer_fails_and_is_not_retried(self, evicted):
        (attempt,) = evicted.tasks["Trainer"].attempts
        assert (attempt.phase, attempt.status) == ("Failed", 143)
        assert "Evaluator" not in evicted.tasks

    def test_submitted_again_it_resumes_and_is_compared_with_the_first_model(self, again, volume):
        assert again.succeeded, again.failures
        assert epochs(again.tasks["Trainer"].log)[0] == 4
        baseline = again.output("LatestBlessed", "model")
        assert baseline["metadata"]["absent"] == 0
        blessing = again.output("Evaluator", "blessing")["metadata"]
        assert blessing["baseline_model"] == baseline["uri"]
        assert len(pushed(volume, "digits")) == 2


def test_four_thousand_classes_and_a_trainer_that_is_retried(machines, compiled):
    """On 2.14, whose Argo retries containers that fail, and knows no duration but the policy's."""
    machine, volume = machines("images", cluster.V2_14)
    names = [f"{index:04}-{'abcdefghijklmno'[index % 15 :]:z<15}" for index in range(4000)]
    images(volume / "data/images", names, 1, splits=("train", "val", "test"))
    small = ("--height", "8", "--width", "8", "--max-epochs", "4", "--min-class-examples", "0")
    file = compiled("images", "--data", str(volume / "data/images"), *NODES, *small)
    # These get the names of the classes; the others run in the release before and the one after.
    only = {"ImageExampleGen", "InlineSchemaGen", "Transform", "Trainer"}
    run = machine.run(file, lose={"Trainer": cluster.Loss("epoch 3")}, only=only)
    assert run.succeeded, run.failures
    assert [a.phase for a in run.tasks["Trainer"].attempts] == ["Failed", "Succeeded"]
    # The third epoch may have been lost before its checkpoint was complete.
    assert epochs(run.tasks["Trainer"].log)[:3] == [1, 2, 3]
    assert epochs(run.tasks["Trainer"].log)[3] in (3, 4)


def test_a_table_with_a_root_of_its_own_and_a_model_below_its_gate(machines, compiled):
    """On 2.5, the oldest release that is supported."""
    machine, volume = machines("taxi", cluster.V2_5)
    (volume / "data/taxi").mkdir()
    source = dataset.resolve(presets.get("taxi").build(), volume).folder / "data.csv"
    with source.open() as rows:
        some = "".join(itertools.islice(rows, 2001))
    (volume / "data/taxi/data.csv").write_text(some)
    strict = ("--root", S3, "--max-epochs", "2", "--min-class-accuracy", "0", "--min-accuracy", "1")
    # All but the gates on statistics and the report, which every run has alike.
    path = {"CsvExampleGen", "StatisticsGen", "InlineSchemaGen", "Transform", "LatestBlessed"}
    path |= set(FROM_TRAINER)
    run = machine.run(compiled("taxi", *strict), pipeline_root=S3, only=path)
    assert run.succeeded, run.failures
    assert path == set(run.tasks)
    assert run.output("Trainer", "model")["uri"].startswith(S3)
    assert run.output("Evaluator", "blessing")["metadata"]["blessed"] == 0
    assert run.output("Servable", "blessing")["metadata"]["blessed"] == 1
    assert not pushed(volume, "taxi")


def test_the_image_runs_as_a_user_without_a_name_or_a_home(machines):
    """As OpenShift runs it."""
    machine, _ = machines("nobody", cluster.V2_17, prepared=False)
    code = "import getpass, pathlib; pathlib.Path.home().joinpath('a').touch(); getpass.getuser()"
    status, log = machine.execute(["python", "-c", code])
    assert status == 0, log


def test_a_volume_that_nobody_prepared_is_named_by_the_first_task(machines, compiled):
    machine, volume = machines("unprepared", cluster.V2_17, prepared=False)
    assert volume.stat().st_mode & 0o022 == 0
    run = machine.run(compiled("digits"), only={"LatestBlessed"})
    assert not run.succeeded
    log = run.tasks["LatestBlessed"].log
    assert "/workspace/pushed/digits must be accessible for the container's user (uid 10001)" in log
    assert "deploy/manifests/prepare.yaml" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("version", [cluster.V2_5, cluster.V2_14, cluster.V2_17])
def test_the_retry_policy_holds_on_every_release(compiled, version):
    spec, _ = yaml.safe_load_all(compiled("digits").read_text())
    policy = spec["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"]
    phase = {"OnFailure": "Failed", "OnError": "Error"}[version.policy]
    lost = cluster.Attempt(phase, 143)
    week = 7 * 24 * 3600
    assert all(cluster.retried(version, policy, lost, n, passed=week) for n in (1, 2, 3))
    assert not cluster.retried(version, policy, lost, 4, passed=week)
