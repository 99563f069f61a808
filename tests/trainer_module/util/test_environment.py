import subprocess
import sys

import pytest

# As a worker of Beam is started, whose libraries warn of what they will need one day.
CODE = """
import subprocess, sys
from trainer_module.util import environment
environment.prepare(verbose=len(sys.argv) > 1)
child = "import warnings; warnings.warn('soon', FutureWarning); warnings.warn('now')"
sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
"""


@pytest.mark.parametrize("words", [[], ["verbose"]], ids=["quiet", "verbose"])
def test_warnings_of_libraries_in_other_processes_are_for_the_verbose(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    command = [sys.executable, "-c", CODE, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ("FutureWarning: soon" in done.stderr) == bool(words)
    assert "UserWarning: now" in done.stderr
