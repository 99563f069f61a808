"""`python -m MODULE` as a fork of a process in which TensorFlow and TFX are loaded.

Loading them takes longer than most of what a command does afterwards. The parent loads packages of
others only, so a child imports our sources as an interpreter of its own would. It has its own
arguments, folder, environment and streams, and ends as an interpreter does.
"""

import atexit
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# The first thread is the only one of Python's: those that OpenBLAS and jemalloc start end in the
# child, and both make them again.
PROGRAM = """
import gc, json, os, runpy, signal, sys

gc.disable()
import keras_tuner, plotly.graph_objects, plotly.subplots
import tensorflow_model_analysis, tensorflow_transform, tfx.components
from tfx.orchestration.local import local_dag_runner

gc.enable()
gc.freeze()
for line in sys.stdin:
    given = json.loads(line)
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    signal.alarm(given["timeout"])
    for number, (name, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (given["out"], os.O_WRONLY), (given["err"], os.O_WRONLY)]
    ):
        os.dup2(os.open(name, flags), number)
    os.chdir(given["folder"])
    os.environ.clear()
    os.environ.update(given["environment"])
    sys.path[:1] = [given["folder"], *given["environment"]["PYTHONPATH"].split(os.pathsep)]
    sys.argv = ["-m", *given["args"]]
    runpy.run_module(given["module"], run_name="__main__", alter_sys=True)
    sys.exit()
"""


@functools.cache
def _parent() -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tempfile.gettempdir(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(parent.communicate)
    return parent


def run(
    module: str,
    args: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout: int = 900,
) -> subprocess.CompletedProcess[str]:
    """Runs a module in a folder and environment; SIGALRM ends it after some seconds."""
    parent = _parent()
    assert parent.stdin is not None
    assert parent.stdout is not None
    with tempfile.TemporaryDirectory() as streams:
        out, err = Path(streams, "out"), Path(streams, "err")
        out.touch()
        err.touch()
        given = {
            "module": module,
            "args": args,
            "folder": str(folder),
            "environment": dict(environment),
            "out": str(out),
            "err": str(err),
            "timeout": timeout,
        }
        parent.stdin.write(f"{json.dumps(given)}\n")
        parent.stdin.flush()
        status = int(parent.stdout.readline())
        return subprocess.CompletedProcess(args, status, out.read_text(), err.read_text())
