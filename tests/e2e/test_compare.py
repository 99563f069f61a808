"""Two strategies and two seeds on digits: trained once, found again, and told truly."""

import json
import re

import pytest

from pipeline.metadata import store
from runs import plateau

pytestmark = pytest.mark.e2e

# Nothing improves that much, so the schedule acts after the second epoch.
FLAGS = (
    *("--seeds", 2, "--max-epochs", 3, "--patience", 1, "--min-delta", 0.5),
    *("--monitor", "val_accuracy", "--mode", "max"),
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    output = tmp_path_factory.mktemp("compare") / "out"
    return compare(output)


def compare(output):
    strategies = "--strategies", "lr_decay", "batch_increase"
    return plateau("compare", "digits", *FLAGS, *strategies, output=output)


def result(done):
    return json.loads((done.output / "comparison" / "comparison.json").read_text())


def test_every_strategy_is_trained_with_every_seed_and_nothing_is_pushed(compared):
    assert compared.status == 0, compared.out + compared.err
    found = result(compared)
    assert [(run["strategy"], run["seed"]) for run in found["runs"]] == [
        ("lr_decay", 0),
        ("lr_decay", 1),
        ("batch_increase", 0),
        ("batch_increase", 1),
    ]
    assert not compared.pushed
    assert "run 4 of 4" in compared.out
    for noise in ("WARNING", "Traceback", "tensorflow/core"):
        assert noise not in compared.out + compared.err


def test_runs_of_a_seed_are_alike_until_the_schedule_acts(compared):
    """Also that one run in the process leaves nothing behind for the next."""
    runs = {(run["strategy"], run["seed"]): run["epochs"] for run in result(compared)["runs"]}
    for seed in (0, 1):
        decay, grow = runs["lr_decay", seed], runs["batch_increase", seed]
        assert [epoch["action"] for epoch in decay] == ["none", "lr_decay", "stop"]
        for epoch in (0, 1):
            assert decay[epoch]["metrics"] == grow[epoch]["metrics"]
        assert decay[2]["metrics"] != grow[2]["metrics"]
        assert grow[2]["batch_size"] > decay[2]["batch_size"]
        assert grow[2]["updates"] < decay[2]["updates"]
    assert runs["lr_decay", 0][0]["metrics"] != runs["lr_decay", 1][0]["metrics"]


def test_test_accuracy_is_what_the_evaluator_wrote(compared):
    records = store.read(store.file_of(compared.output))
    evaluators = [e for e in records.executions.values() if e.component == "Evaluator"]
    assert len(evaluators) == 4
    from components.evaluation import results

    measured = [
        results.read(dict(each.outputs)["evaluation"].uri).candidate["accuracy"]
        for each in evaluators
    ]
    found = [run["test_accuracy"] for run in result(compared)["runs"]]
    assert sorted(found) == sorted(measured)


def test_the_same_command_trains_and_evaluates_nothing_again(compared):
    again = compare(compared.output)
    assert again.status == 0, again.out + again.err
    assert len(re.findall(r"✓ Trainer cached", again.out)) == 4
    assert "Evaluator" not in again.out
    before, after = result(compared), result(again)
    # The pipeline runs are others.
    for run in before["runs"] + after["runs"]:
        assert run.pop("run")
    assert before == after
