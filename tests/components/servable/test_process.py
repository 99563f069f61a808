import os
import time
from pathlib import Path

import pytest

from components.servable import process
from components.servable.verdict import CLEAN, Ending

LONG = 60


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("print('fine')", Ending(CLEAN)),
        ("raise SystemExit('no model')", Ending("exit code 1", "no model")),
        ("import os; os._exit(7)", Ending("exit code 7")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Ending("signal SIGKILL")),
    ],
)
def test_endings(tmp_path: Path, code: str, ending: Ending) -> None:
    assert process.run(["-c", code], tmp_path, LONG) == ending


def test_a_segmentation_fault_says_where(tmp_path: Path) -> None:
    how, stderr = process.run(["-c", "import ctypes; ctypes.string_at(0)"], tmp_path, LONG)
    assert how == "signal SIGSEGV"
    assert "Segmentation fault" in stderr
    assert "string_at" in stderr


def test_what_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "child.wait()"
    )
    assert process.run(["-c", code], tmp_path, 3).how == "no end after 3 s"
    child = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    for _ in range(100):
        # Whoever adopts it may take a moment to bury it.
        if not child.exists() or child.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the child lives on")


def test_only_the_end_of_long_output_is_kept(tmp_path: Path) -> None:
    code = "import sys; sys.stderr.write('x' * 10**6 + 'the end')"
    stderr = process.run(["-c", code], tmp_path, LONG).stderr
    assert stderr.endswith("xthe end")
    assert len(stderr) < 10_000


def test_the_process_finds_our_code_and_spares_the_gpu(tmp_path: Path) -> None:
    code = (
        "import os, sys, components.servable.measurement\n"
        "assert os.environ['TF_FORCE_GPU_ALLOW_GROWTH'] == 'true'\n"
        "heavy = {'tensorflow', 'tfx', 'keras', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert process.run(["-c", code], tmp_path, LONG) == Ending(CLEAN)


def test_environment_keeps_what_it_inherits() -> None:
    found = process.environment({"PYTHONPATH": "/elsewhere", "OTHER": "1"})
    assert found["OTHER"] == "1"
    assert found["PYTHONPATH"].split(os.pathsep)[1:] == ["/elsewhere"]
    assert os.pathsep not in process.environment({})["PYTHONPATH"]
