"""Several replicas and several workers train as one process does."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.e2e
PROGRAM = Path(__file__).parents[1] / "program.py"


def run(*programs):
    """Runs processes side by side, given the environment and the arguments of each.

    Returns what each has printed, by the name of the run.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        for environment, args in programs
    ]
    outputs = [process.communicate(timeout=600) for process in processes]
    for process, (_, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err[-4000:]
    parts = [re.split(r"^run (.*)\n", out, flags=re.M) for out, _ in outputs]
    return [dict(zip(part[1::2], part[2::2], strict=True)) for part in parts]


def read(folder, name, worker=0):
    return json.loads((folder / f"{name}.{worker}.json").read_text())


def two_workers():
    sockets = [socket.socket() for _ in range(2)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    workers = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    for free in sockets:
        free.close()
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}}
            )
        }
        for i in range(2)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def saved(folder, strategy):
    out, checkpoints = folder / f"{strategy} saved", folder / f"{strategy} checkpoints"
    return [out, "--strategy", strategy, "--checkpoints", checkpoints]


@pytest.fixture(scope="module")
def devices(folder):
    """Runs on one device and on two, in one process."""
    one, two = folder / "single", folder / "mirrored"
    both = [folder / "recorded", "--strategy", "both"]
    runs = [one, "+", two, "--strategy", "mirrored", "+", *both, "+", *saved(folder, "mirrored")]
    return run(({}, runs))


@pytest.fixture(scope="module")
def workers(folder):
    """Runs of two workers, one after the other in one pair of processes.

    What they measure and how much memory they have differs.
    """
    runs = [folder / "workers", "--strategy", "workers", "+", *saved(folder, "workers")]
    own = [("0.7", "1000"), ("1.0", "10")]
    measured = [folder / "measured", "--strategy", "workers", "--measure"]
    limited = [folder / "limited", "--strategy", "workers", "--limit"]
    return run(
        *(
            (environment, [*runs, "+", *measured, growth, "+", *limited, limit])
            for environment, (growth, limit) in zip(two_workers(), own, strict=True)
        )
    )


@pytest.fixture(scope="module")
def single(folder, devices):
    return read(folder, "single")


def assert_same(result, single):
    for mine, its in zip(result["weights"], single["weights"], strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-3, atol=1e-5)
    for mine, its in zip(result["epochs"], single["epochs"], strict=True):
        for field in ("batch_size", "updates", "examples", "action", "learning_rate"):
            assert mine[field] == its[field]
    assert result["traces"]["train_steps"] == 1
    assert max(result["traces"].values()) == 1


def test_the_batch_grows_in_the_single_run(single):
    assert {record["batch_size"] for record in single["epochs"]} == {16, 64}


def test_two_devices_train_as_one(folder, single):
    assert_same(read(folder, "mirrored"), single)


def test_two_workers_train_as_one_and_only_the_chief_writes(folder, single, workers):
    chief, other = workers
    result = read(folder, "workers")
    assert result["weights"] == read(folder, "workers", 1)["weights"]
    assert_same(result, single)
    assert "epoch 1" in chief["workers"]
    assert not any("epoch" in line for line in other.values())


@pytest.mark.parametrize("strategy", ["mirrored", "workers"])
def test_batch_statistics_are_evaluated_as_they_are_kept_and_a_resumed_run_is_the_same(
    folder, request, strategy
):
    request.getfixturevalue("devices" if strategy == "mirrored" else "workers")
    name, processes = f"{strategy} saved", 1 if strategy == "mirrored" else 2

    def results():
        first, *others = [read(folder, name, i) for i in range(processes)]
        assert all(other["weights"] == first["weights"] for other in others)
        return first

    unbroken = results()
    assert unbroken["kept"] == pytest.approx(unbroken["best"]["val_loss"], rel=1e-5)
    # As if it had been killed in the last epoch.
    max((folder / f"{strategy} checkpoints").glob("epoch-*.npz")).unlink()
    environments = two_workers() if strategy == "workers" else ({},)
    chief, *_ = run(*((environment, saved(folder, strategy)) for environment in environments))
    resumed = results()
    assert chief[name].startswith(f"start {len(unbroken['epochs']) - 1}\n")
    del unbroken["traces"], resumed["traces"]
    assert resumed == unbroken


def test_two_devices_record_what_one_does(folder, devices):
    """Keras metrics, sample weights, penalties, sparse gradients and averages of the weights."""
    one, two = read(folder, "recorded")
    for single, mirrored in zip(one, two, strict=True):
        assert mirrored == pytest.approx(single, rel=1e-4)


def test_what_does_not_fit_in_the_memory_of_one_worker_is_cut_by_all(folder, single, workers):
    # Of 64 examples a worker has 32, which the program cuts in pieces of 24 at most.
    lines = workers[0]["limited"].splitlines()
    assert [line for line in lines if line.startswith("note batch")] == [
        f"note batch 64 does not fit in memory: accumulating gradients over micro-batches of {size}"
        for size in (12, 6)
    ]
    result = read(folder, "limited")
    assert result["weights"] == read(folder, "limited", 1)["weights"]
    assert_same(result, single)


def test_measurements_of_the_chief_hold_for_all(folder, workers):
    """By its clock the larger batch, which is timed last, is faster; by the other's it is not."""
    results = [read(folder, "measured", i) for i in range(2)]
    assert "found by a range test" in workers[0]["measured"]
    assert results[0]["weights"] == results[1]["weights"]
    assert results[0]["epochs"] == results[1]["epochs"]
    assert {record["batch_size"] for record in results[0]["epochs"]} == {16, 64}
