import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runners import lock

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from collections.abc import Iterator
from pathlib import Path
from pipeline.runners import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_second_run_is_refused_and_told_by_whom(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    for _ in range(2):  # the first attempt must not disturb what the second is told
        with (
            pytest.raises(lock.OutputBusyError, match=rf"process {holder.pid} .*`output`"),
            lock.hold(tmp_path),
        ):
            pass


def test_lock_of_a_killed_run_is_free(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock.hold(tmp_path):
        assert (tmp_path / ".lock-holder").read_text() == str(os.getpid())


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(ValueError, match=rf"`output` must be a folder .*got '{output}'"),
            lock.hold(output),
        ):
            pass


def test_lock_is_free_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), lock.hold(tmp_path / "new"):
            raise KeyError
