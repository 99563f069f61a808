"""A fresh Python process with a time limit, its output kept."""

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
    """The variables of a process that shares the machine and says why it dies.

    Args:
        inherited: The variables of this one.
    """
    found = [str(_ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(found),
        "PYTHONFAULTHANDLER": "1",
        # TensorFlow would take all the memory of a GPU that others use, too.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run(arguments: Sequence[str], folder: Path, timeout_s: float) -> Ending:
    """Run Python to its end, or to the time limit.

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
    return Ending(how, _tail(folder / "stderr"))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _tail(file: Path) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        return stream.read().decode(errors="replace").strip()
