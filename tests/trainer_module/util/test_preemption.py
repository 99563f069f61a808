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


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    finish(start(folder / "out", "--checkpoints", folder / "checkpoints"))
    return result(folder / "out")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_ended_goes_on_bit_for_bit(tmp_path, unbroken, number):
    args = (tmp_path / "out", "--checkpoints", tmp_path / "checkpoints")
    process = start(*args, "--slow", 0.5)
    for line in process.stdout:
        if line.startswith("epoch 3"):
            process.send_signal(number)
            break
    process.communicate(timeout=60)
    expected = EXIT_STATUS if number == signal.SIGTERM else -signal.SIGKILL
    assert process.returncode == expected
    out = finish(start(*args))
    assert int(out.splitlines()[0].split()[1]) >= 2
    assert result(tmp_path / "out") == unbroken


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
