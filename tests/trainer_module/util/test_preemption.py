"""Killed and sent away: a run in a process of its own goes on as if nothing had happened."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer_module.util.preemption import EXIT_STATUS

pytestmark = pytest.mark.e2e
PROGRAM = Path(__file__).parents[1] / "program.py"


def start(out, *args):
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(out), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def result(out):
    values = json.loads(out.with_suffix(".0.json").read_text())
    # A process that only did the end has not traced what the beginning needed.
    del values["traces"]
    return values


def test_a_run_that_was_ended_goes_on_bit_for_bit(tmp_path):
    unbroken = tmp_path / "unbroken"
    finish(start(unbroken, "--checkpoints", tmp_path / "of unbroken"))
    args = (tmp_path / "out", "--checkpoints", tmp_path / "checkpoints")
    strikes = ((3, signal.SIGTERM, EXIT_STATUS), (6, signal.SIGKILL, -signal.SIGKILL))
    for epoch, number, expected in strikes:
        process = start(*args, "--slow", 0.5)
        for line in process.stdout:
            if line.startswith(f"epoch {epoch}"):
                process.send_signal(number)
                break
        process.communicate(timeout=60)
        assert process.returncode == expected
    _, begin, *_ = finish(start(*args)).splitlines()
    assert int(begin.split()[1]) >= 5
    assert result(tmp_path / "out") == result(unbroken)


BLOCKED = """
from trainer_module.util import environment
environment.prepare()
import tensorflow as tf
from trainer_module.util.preemption import leaving_on_sigterm

@tf.function
def endless(x):
    return tf.while_loop(lambda x: True, lambda x: tf.tanh(x @ x), [x])

with leaving_on_sigterm():
    print("ready", flush=True)
    endless(tf.ones([200, 200]))
"""


def test_leaves_even_while_a_step_is_running():
    process = subprocess.Popen([sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == EXIT_STATUS
