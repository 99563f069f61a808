"""The compiled digits pipeline, run task by task as a cluster would, without one."""

import json
import subprocess
import sys

import cluster
import pytest

from pipeline import digits
from runs import ROOT

reason = cluster.available()
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
    digits.write_digits(folder / "volume" / "data" / "digits")
    return file


@pytest.fixture(scope="module")
def machines(folder, app):
    return cluster.Cluster(folder, app, {"plateau-workspace": folder / "volume"})


@pytest.fixture(scope="module")
def first(machines, compiled):
    return machines.run(compiled)


@pytest.fixture(scope="module")
def second(machines, compiled, first):
    """Another schedule, and the Trainer's pod is sent away after its third epoch."""
    return machines.run(compiled, {"patience": 2}, preempt={"Trainer": "epoch  3"})


def pushed(folder):
    return sorted(p.name for p in (folder / "volume/pushed/digits").glob("[0-9]*"))


def test_the_first_run_pushes_a_model(first, folder):
    failed = {name: task.log[-2000:] for name, task in first.tasks.items() if task.statuses[-1]}
    assert not failed
    assert len(first.tasks) == 13
    assert first.tasks["LatestBlessed"].outputs["model"]["metadata"]["absent"] == 1
    assert len(pushed(folder)) == 1
    assert (
        first.tasks["Pusher"].outputs["pushed_model"]["metadata"]["pushed_version"]
        == pushed(folder)[0]
    )


def test_what_tasks_say_about_their_artifacts_reaches_the_next(first):
    examples = first.tasks["ImageExampleGen"].outputs["examples"]
    assert json.loads(examples["metadata"]["split_names"]) == ["train", "eval", "test"]
    assert examples["uri"].startswith("minio://")
    assert first.tasks["Trainer"].outputs["training_history"]["metadata"]["stop_reason"]


def test_the_report_is_a_page_for_kubeflows_user_interface(first):
    assert first.tasks["TrainingReport"].outputs["report"]["uri"].endswith("/report.html")
    assert "</html>" in first.stored("TrainingReport", "report").read_text()


def test_the_second_run_has_the_first_model_as_its_baseline(second, folder):
    assert second.succeeded, {n: t.log[-2000:] for n, t in second.tasks.items() if t.statuses[-1]}
    assert second.tasks["LatestBlessed"].outputs["model"]["metadata"]["absent"] == 0
    found = second.tasks["Evaluator"].outputs["blessing"]["metadata"]
    assert found["baseline_model"] == (second.tasks["LatestBlessed"].outputs["model"]["uri"])
    assert len(pushed(folder)) == 2


def test_a_pod_that_is_sent_away_leaves_in_time_and_its_successor_goes_on(second):
    trainer = second.tasks["Trainer"]
    assert trainer.statuses == [cluster.PREEMPTED, 0]
    epochs = [line.split()[1] for line in trainer.log.splitlines() if line.startswith("    epoch")]
    assert sorted(set(map(int, epochs))) == list(range(1, int(epochs[-1]) + 1))
    assert epochs.count("1") == 1


def test_a_model_that_fails_its_gate_is_not_pushed(machines, compiled, second, folder):
    before = pushed(folder)
    run = machines.run(compiled, {"max_epochs": 1})
    assert run.succeeded
    assert run.tasks["Evaluator"].outputs["blessing"]["metadata"]["blessed"] == 0
    assert pushed(folder) == before
