"""Measurements in a process of their own."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.settings import ROOT
from trainer_module.util.checks import require

_SAMPLE_SECONDS = 0.05


def flags(config: object) -> list[str]:
    """The fields of a config as flags of a command line."""
    return [
        part
        for name, value in vars(config).items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


def run(module: str, arguments: list[str], what: str, cwd: Path = ROOT) -> str:
    """Runs a module, and returns what it prints.

    Args:
        module: Its dotted name.
        arguments: What follows it on the command line.
        what: What runs, for the error.
        cwd: Working directory.

    Raises:
        ValueError: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    require(
        done.returncode == 0,
        f"{what} must succeed",
        f"exit status {done.returncode}",
        f"Its last output:\n{(done.stdout + done.stderr)[-2000:]}",
    )
    return done.stdout


def memory_mib(field: str) -> float:
    """Memory of this process by a field of /proc/self/status, in MiB.

    VmHWM is the peak of the resident memory. Linux hands `ru_maxrss` on through exec, so that a
    child would report its parent's peak; VmHWM belongs to the process image.
    """
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields[field].split()[0]) / 1024


@contextmanager
def sampled(field: str) -> Iterator[list[float]]:
    """Collects samples of `memory_mib` until the end of the context."""
    samples = [0.0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            samples.append(memory_mib(field))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
