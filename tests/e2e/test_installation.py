"""The wheel, installed beside a project made of a template of TFX, whose package is `pipeline`."""

import hashlib
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from conftest import uv
from tfx.tools.cli import labels
from tfx.tools.cli.handler import template_handler

import trainer_module

pytestmark = pytest.mark.e2e
PACKAGES = ("components", "plateau_tfx", "schemas", "trainer_module")
PYPROJECT = """
[project]
name = "theirs"
version = "1"
[tool.setuptools]
packages = ["models", "models.keras_model", "pipeline"]
"""
BOTH = """
import inspect, sys
from pathlib import Path
import pipeline.configs
from components import DriftGate, PlateauTrainer, TrainingHistory
import plateau_tfx.cli, schemas, trainer_module

theirs, ours = map(Path, sys.argv[1:])
assert Path(pipeline.__file__).is_relative_to(theirs), pipeline.__file__
assert pipeline.configs.PIPELINE_NAME == "taxi"
for one in (DriftGate, PlateauTrainer, TrainingHistory, plateau_tfx, schemas, trainer_module):
    assert Path(inspect.getfile(one)).is_relative_to(ours), one
"""
TYPED = """
from components import PlateauTrainer, TrainingHistory
from trainer_module import ScheduleConfig

reveal_type(PlateauTrainer.SPEC_CLASS)
reveal_type(TrainingHistory.TYPE_NAME)
ScheduleConfig(nonsense=2)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs") / "taxi"
    template_handler.copy_template(
        {labels.MODEL: "taxi", labels.PIPELINE_NAME: "taxi", labels.DESTINATION_PATH: str(folder)}
    )
    (folder / "pyproject.toml").write_text(PYPROJECT)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.py")
    }


@pytest.fixture(scope="module", params=["folder", "wheel"])
def installed(request, wheel, lines, project, tmp_path_factory):
    """An environment with our wheel, the site-packages of it, and the place of their package."""
    folder = tmp_path_factory.mktemp(request.param)
    venv = folder / "venv"
    python = str(venv / "bin/python")
    uv(f"uv venv --quiet --python {sys.executable} {venv}", folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": venv, "platbase": venv}))
    # All that ours depends on; without the packages of the checkout, which a .pth file adds there.
    (site / "tests.pth").write_text(sysconfig.get_path("purelib"))
    theirs = project
    if request.param == "wheel":
        uv(f"uv pip install --python {python} --no-deps {project}", folder)
        theirs = site
    before = contents(theirs / "pipeline")
    for line in lines[1:]:
        uv(line, wheel.parents[1], "--no-deps", "--python", python)
    assert before
    assert contents(theirs / "pipeline") == before
    return venv, site, theirs


def run(venv: Path, folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [venv / "bin" / program, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_what_is_installed_is_named_and_typed(installed):
    _, site, _ = installed
    [distribution] = (
        d for d in map(Distribution.at, site.glob("*.dist-info")) if d.name == "plateau-tfx"
    )
    assert distribution.version == trainer_module.__version__
    files = {str(file) for file in distribution.files or ()}
    assert {name.split("/")[0] for name in files if name.endswith(".py")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= files


def test_their_pipeline_and_our_packages_are_imported_side_by_side(installed, tmp_path):
    venv, site, theirs = installed
    folder = tmp_path if theirs == site else theirs
    done = run(venv, folder, "python", "-c", BOTH, str(theirs), str(site))
    assert done.returncode == 0, done.stderr


def test_the_command_works_from_their_folder(installed, project, tmp_path):
    venv, site, theirs = installed
    if theirs == site:
        done = run(venv, project, "plateau", "plan", "digits")
        assert done.returncode == 0, done.stderr
        assert "batch" in done.stdout
        return
    before = contents(project)
    output = tmp_path / "run"
    few = ("--max-epochs", "1", "--min-accuracy", "0", "--min-class-accuracy", "0")
    done = run(venv, project, "plateau", "run", "digits", *few, "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((output / "pushed").glob("*/saved_model.pb"))
    file = tmp_path / "digits.yaml"
    image = ("--image", "r.example/p:1", "--volume", "claim:/workspace", "--file", str(file))
    done = run(venv, project, "plateau", "compile", "digits", *image)
    assert done.returncode == 0, done.stderr
    assert "components.container" in file.read_text()
    assert contents(project) == before


def test_without_the_extra_the_command_names_it(installed, project, tmp_path):
    venv, site, _ = installed
    (tmp_path / "tyro.py").write_text("raise ModuleNotFoundError('No module named', name='tyro')")
    hidden = site / "a.pth"
    hidden.write_text(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    done = run(venv, project, "plateau", "run", "digits")
    hidden.unlink()
    assert done.returncode == 1
    assert done.stderr == (
        "error: plateau must have the extra cli installed, got no package tyro. "
        "Install plateau-tfx[cli].\n"
    )


def test_a_type_checker_follows_the_public_names(installed, tmp_path):
    venv, site, theirs = installed
    if theirs == site:
        pytest.skip("the same environment, but for their package")
    (tmp_path / "user.py").write_text(TYPED)
    words = ("--python-executable", str(venv / "bin/python"), "--ignore-missing-imports")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words, "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    for told in ("PlateauTrainerSpec", 'type is "str"', '"nonsense" for "ScheduleConfig"'):
        assert told in done.stdout, done.stdout
