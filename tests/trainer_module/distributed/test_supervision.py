"""A training process that holds Python's lock, as TensorFlow does, and what still ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer_module.util.preemption import EXIT_STATUS

PROGRAM = """
import ctypes, os, socket, sys, time
from trainer_module.distributed.cluster import Place
from trainer_module.distributed import supervision
from trainer_module.util.preemption import Preempted, leaving_on_sigterm
from trainer_module.distributed.rendezvous import Connection, Party

supervision.GRACE_SECONDS = 0.5
server = socket.create_server(("127.0.0.1", 0))
here, there = socket.create_connection(server.getsockname()), server.accept()[0]
place = Place("NAME", {"worker 0": ("a", 1), "worker 1": ("b", 2)})
another = next(name for name in place.addresses if name != place.name)
other = Connection(there)

def train():
    with leaving_on_sigterm():
        print("ready", os.getpid(), flush=True)
        EVENT

print("status", supervision.supervise(Party(place, {another: Connection(here)}), train))
print([message["status"] for message in other.receive()])
"""
# Unlike CDLL, PyDLL keeps the lock during a call.
STUCK = "ctypes.PyDLL(None).sleep(1000)"


def start(event: str, name: str = "worker 0") -> tuple[subprocess.Popen, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("EVENT", event).replace("NAME", name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    word, pid = process.stdout.readline().split()
    assert word == "ready"
    return process, int(pid)


def finish(process: subprocess.Popen) -> tuple[str, str]:
    # `communicate` would lose what `readline` has read ahead.
    out, err = process.stdout.read(), process.stderr.read()
    process.wait()
    return out, err


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ("return 0", 0),
        ("return 2", 2),
        ("raise Preempted", EXIT_STATUS),
        ("raise RuntimeError('no')", 2),
        ("os.kill(os.getpid(), 9)", 137),
        ("other.send(status=2, reason='because'); " + STUCK, 2),
        ("other.send(status=0); other.socket.shutdown(2); time.sleep(1); return 0", 0),
        ("other.socket.shutdown(2); " + STUCK, EXIT_STATUS),
    ],
)
def test_the_status_says_what_happened(event, status):
    process, _ = start(event)
    out, err = finish(process)
    assert out.splitlines()[0] == f"status {status}", err
    if "because" in event:
        assert err == "error: because\n"
    if event.startswith("other.socket.shutdown"):
        assert "worker 1 (b:2) is gone" in err
    elif "other" not in event:
        assert out.splitlines()[1] == f"[{status}]"


@pytest.mark.parametrize(
    ("message", "status"),
    [("status=0", 0), ("status=143, reason='out of disk'", EXIT_STATUS)],
)
def test_a_worker_that_has_trained_ends_as_the_chief_does(message, status):
    wait = "time.sleep(0.5); other.send(" + message + ")"
    event = f"\n        if not os.fork():\n            {wait}; os._exit(0)\n        return 0"
    process, _ = start(event, "worker 1")
    out, err = finish(process)
    assert out.splitlines() == [f"status {status}", f"[0, {status}]"], err
    assert ("out of disk" in err) == (status != 0)


def test_a_worker_that_has_trained_obeys_sigterm():
    process, _ = start("return 0", "worker 1")
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    out, err = finish(process)
    assert out.splitlines() == ["status 0", "[0, 0]"], err


def test_sigterm_ends_a_process_that_holds_the_lock():
    process, _ = start(STUCK)
    process.send_signal(signal.SIGTERM)
    out, err = finish(process)
    assert out.splitlines() == [f"status {EXIT_STATUS}", f"[{EXIT_STATUS}]"], err


def test_who_trains_does_not_outlive_who_watches():
    process, child = start(STUCK)
    process.kill()
    process.wait()
    for _ in range(1000):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        # One that nobody has waited for yet.
        if "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the training process runs on")
