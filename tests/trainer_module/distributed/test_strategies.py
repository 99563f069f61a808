"""Several replicas and several workers train as one process does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.e2e
PROGRAM = Path(__file__).parents[1] / "program.py"


def run(out, *args, environments=({},), more=((), ())):
    """Run a process for each environment, with `args` and `more` of its own."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(out), *args, *its],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        for environment, its in zip(environments, more, strict=False)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err[-4000:]
    results = [json.loads(out.with_suffix(f".{i}.json").read_text()) for i in range(len(processes))]
    return results, [out for out, _ in outputs]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    (result,), _ = run(tmp_path_factory.mktemp("single") / "out")
    return result


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


def test_two_devices_train_as_one(tmp_path, single):
    (result,), _ = run(tmp_path / "out", "--strategy", "mirrored")
    assert_same(result, single)


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


def test_two_workers_train_as_one_and_only_the_chief_writes(tmp_path, single):
    results, (chief, other) = run(
        tmp_path / "out", "--strategy", "workers", environments=two_workers()
    )
    assert results[0]["weights"] == results[1]["weights"]
    assert_same(results[0], single)
    assert "epoch 1" in chief
    assert "epoch" not in other


@pytest.mark.parametrize("strategy", ["mirrored", "workers"])
def test_batch_statistics_are_evaluated_as_they_are_kept_and_a_resumed_run_is_the_same(
    tmp_path, strategy
):
    folder = tmp_path / "checkpoints"

    def train():
        environments = two_workers() if strategy == "workers" else ({},)
        args = ("--strategy", strategy, "--checkpoints", str(folder))
        results, outputs = run(tmp_path / "out", *args, environments=environments)
        assert all(result["weights"] == results[0]["weights"] for result in results)
        return results[0], outputs[0]

    unbroken, _ = train()
    assert unbroken["kept"] == pytest.approx(unbroken["best"]["val_loss"], rel=1e-5)
    # As if it had been killed in the last epoch.
    max(folder.glob("epoch-*.npz")).unlink()
    resumed, out = train()
    assert out.startswith(f"start {len(unbroken['epochs']) - 1}\n")
    del unbroken["traces"], resumed["traces"]
    assert resumed == unbroken


def test_two_devices_record_what_one_does():
    """Keras metrics, sample weights, penalties, sparse gradients and averages of the weights."""
    program = PROGRAM.with_name("two_devices.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    one, two = json.loads(done.stdout.splitlines()[-1])
    for single, mirrored in zip(one, two, strict=True):
        assert mirrored == pytest.approx(single, rel=1e-4)


def test_what_does_not_fit_in_the_memory_of_one_worker_is_cut_by_all(tmp_path, single):
    results, (chief, _) = run(
        tmp_path / "out",
        "--strategy",
        "workers",
        environments=two_workers(),
        more=(("--limit", "1000"), ("--limit", "10")),
    )
    # Of 64 examples a worker has 32, which the program cuts in pieces of 24 at most.
    assert [line for line in chief.splitlines() if line.startswith("note batch")] == [
        f"note batch 64 does not fit in memory: accumulating gradients over micro-batches of {size}"
        for size in (12, 6)
    ]
    assert results[0]["weights"] == results[1]["weights"]
    assert_same(results[0], single)


def test_measurements_of_the_chief_hold_for_all(tmp_path):
    """By its clock the larger batch, which is timed last, is faster; by the other's it is not."""
    results, (chief, _) = run(
        tmp_path / "out",
        "--strategy",
        "workers",
        environments=two_workers(),
        more=(("--measure", "0.7"), ("--measure", "1.0")),
    )
    assert "found by a range test" in chief
    assert results[0]["weights"] == results[1]["weights"]
    assert results[0]["epochs"] == results[1]["epochs"]
    assert {record["batch_size"] for record in results[0]["epochs"]} == {16, 64}
