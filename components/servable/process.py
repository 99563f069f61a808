"""A Python process of its own with a time limit, whose output is kept."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.servable.verdict import Ending

_TAIL_BYTES = 4000
_ROOT = Path(__file__).parents[2]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of a process that shares the machine and says why it dies."""
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), inherited.get("PYTHONPATH")])),
        "PYTHONFAULTHANDLER": "1",
        # TensorFlow would take all the memory of a GPU that others use, too.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run(arguments: Sequence[str], folder: Path, timeout_s: float) -> Ending:
    """Runs Python to its end, or to the time limit.

    Args:
        arguments: After the interpreter's name.
        folder: Working directory; its files "stdout" and "stderr" take the output.
        timeout_s: Seconds after which the process and its children are killed.
    """
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            how = _ending(process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            how = f"no end after {timeout_s:g} s"
        finally:
            # Whatever happens, an interrupt too, nothing of it stays behind.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    tail = (folder / "stderr").read_bytes()[-_TAIL_BYTES:]
    return Ending(how, tail.decode(errors="replace").strip())


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
