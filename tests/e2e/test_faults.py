"""Killed, robbed, locked out, run twice, set back in time; test_torture.py is the long form."""

import shutil
import signal

import pytest
from faults import (
    ARGS,
    Clock,
    Run,
    again,
    assert_consistent,
    assert_pushed_whole,
    assert_same_model,
    kill,
    lose,
    read_only,
    small_disk,
)

from runs import interrupt, plateau
from trainer_module.util.preemption import EXIT_STATUS

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return again(tmp_path_factory.mktemp("unbroken") / "run")


def test_ended_while_it_trains_and_killed_while_it_pushes_it_comes_to_the_same_model(
    unbroken, tmp_path
):
    output = tmp_path / "run"
    strikes = [
        ("epoch 1", signal.SIGTERM, EXIT_STATUS),
        ("resuming after epoch", signal.SIGKILL, -signal.SIGKILL),
    ]
    for after, number, status in strikes:
        assert interrupt(*ARGS, output=output, after=after, number=number) == status
        assert not (output / "pushed").exists()
    assert kill(output, "Pusher", 0.01) is not None
    assert_pushed_whole(output, unbroken.pushed[0])
    done = again(output)
    assert done.component("Transform") == "cached"
    assert len(done.pushed) == 1
    assert_same_model(done.pushed[0], unbroken.pushed[0])
    assert_consistent(output, unbroken.output)


def test_a_second_run_is_refused_and_the_first_makes_again_what_was_deleted(unbroken):
    lose(unbroken.output, "DriftGate", "drift", shutil.rmtree)
    (served,) = unbroken.pushed
    shutil.rmtree(served)
    first = Run(unbroken.output)
    first.reach("ImageExampleGen")
    first.send(signal.SIGSTOP)
    refused = plateau(*ARGS, output=unbroken.output)
    first.send(signal.SIGCONT)
    assert refused.status == 1
    assert "only one run at a time" in refused.err
    done = first.end()
    assert done.status == 0, done.out + done.err
    assert done.component("Trainer") == "cached"
    assert done.component("DriftGate") == "run"
    assert done.component("Pusher") == "run"
    assert len(done.pushed) == 1
    assert_consistent(unbroken.output, unbroken.output)


def test_the_clock_may_be_set_back_before_a_run_and_within_it(unbroken, tmp_path):
    (served,) = unbroken.pushed
    # All that is there, files and records, is of the day after tomorrow.
    clock = Clock(tmp_path / "clock", "-2d")
    run = Run(unbroken.output, "--seed", 1, clock=clock)
    assert run.reach("Trainer")
    clock.set("-3d")
    done = run.end()
    assert done.status == 0, done.out + done.err
    assert done.component("StatisticsGen") == done.component("Transform") == "cached"
    assert done.component("Trainer") == done.component("Pusher") == "run"
    assert [int(path.name) for path in done.pushed] == [int(served.name), int(served.name) + 1]
    assert_consistent(unbroken.output, unbroken.output)
    # With the true clock again, all of it is taken from the cache, and nothing is pushed.
    done = Run(unbroken.output, "--seed", 1).end()
    assert done.component("Trainer") == "cached"
    assert len(done.pushed) == 2


def test_a_folder_that_is_read_only_is_told_before_work_begins(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        read_only(disk, True)
        done = plateau(*ARGS, output=disk / "run")
        read_only(disk, False)
        assert not list(disk.iterdir())
    assert done.status == 1
    assert done.out == ""
    assert "must be a folder that can be written to" in done.err
    assert "Read-only file system" in done.err
    assert "Traceback" not in done.err
