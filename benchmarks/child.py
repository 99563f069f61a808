"""A module of the benchmarks in a process of its own."""

import subprocess
import sys

from benchmarks.settings import ROOT
from trainer_module.util.checks import require


def flags(config: object) -> list[str]:
    """The fields of a config as flags of a command line."""
    return [
        part
        for name, value in vars(config).items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


def last_line(module: str, arguments: list[str], what: str) -> str:
    """Run a module, and give the last line that it prints.

    Args:
        module: Its dotted name.
        arguments: What follows it on the command line.
        what: Who ran on what, for the error.

    Raises:
        ValueError: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    require(
        done.returncode == 0,
        f"{what} must end well",
        f"exit status {done.returncode}",
        f"It said last:\n{(done.stdout + done.stderr)[-2000:]}",
    )
    return done.stdout.splitlines()[-1]
