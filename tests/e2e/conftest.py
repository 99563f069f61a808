import compileall
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import layout
import pytest

from runs import ROOT

SOURCES = ("components", "pipeline", "schemas", "trainer_module")
FILES = ("LICENSE", "README.md", "pyproject.toml", "requirements.lock")


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    """The image's /app, bytecode and all."""
    folder = layout.build(tmp_path_factory.mktemp("image"))
    compileall.compile_dir(folder, quiet=1)
    return folder


def uv(line: str, folder: Path, *more: str, **environment: str) -> None:
    """Runs a line of the documentation in a folder, without an index of packages."""
    program, *words = shlex.split(line)
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *words, *more],
        cwd=folder,
        env={**os.environ, "UV_OFFLINE": "1", "UV_NO_BUILD_ISOLATION": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def lines() -> list[str]:
    """The lines of docs/components-package.md that build and install."""
    page = (ROOT / "docs/components-package.md").read_text()
    return [line for line in page.splitlines() if line.startswith("uv ")]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, lines) -> Path:
    """Our wheel, built from a copy of the sources in the folder plateau."""
    folder = tmp_path_factory.mktemp("built")
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "plateau" / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder / "plateau")
    uv(lines[0], folder, VIRTUAL_ENV=sys.prefix)
    [built] = (folder / "dist").glob("*.whl")
    return built
