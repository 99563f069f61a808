"""The image without a container engine: its Dockerfile, and the folders that it would have."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import layout
import pytest
import tomllib
from layout import DOCKERFILE, ROOT, ignore_patterns, instructions, is_ignored

PACKAGES = {
    "components": "components",
    "plateau_tfx": "pipeline",
    "schemas": "schemas",
    "trainer_module": "trainer_module",
}
"""Where each package of the image comes from."""

PROGRAMS = ("plateau_tfx.cli", "components.container", "trainer_module.worker")
# What the tasks of the pipeline run beside our own executors.
TFX_EXECUTORS = (
    "tfx.components.evaluator.executor.Executor",
    "tfx.components.example_gen.csv_example_gen.executor.Executor",
    "tfx.components.example_validator.executor.Executor",
    "tfx.components.schema_gen.import_schema_gen.executor.Executor",
    "tfx.components.statistics_gen.executor.Executor",
    "tfx.components.transform.executor.Executor",
)
IMPORT = """
import importlib, sys
from pathlib import Path

from trainer_module.util import environment

environment.prepare()
root, *paths = sys.argv[1:]
for path in paths:
    module, _, name = path.rpartition(":")
    found = importlib.import_module(module or name)
    if module:
        getattr(found, name)
ours = [name for name in sys.modules if name.split(".")[0] in {packages}]
strangers = [name for name in ours if not Path(sys.modules[name].__file__).is_relative_to(root)]
assert not strangers, strangers
print(len(ours))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """The image's root folder, with what the last stage copies into it."""
    return layout.build(tmp_path_factory.mktemp("image")).parent


def run(image: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(image / "app"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, "--no-color", path], capture_output=True, text=True)


def test_the_linter_finds_nothing() -> None:
    done = hadolint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    careless = DOCKERFILE.read_text().replace('"uv==${UV_VERSION}"', "uv")
    (tmp_path / "Dockerfile").write_text(careless)
    assert "DL3013" in hadolint(tmp_path / "Dockerfile").stdout


def test_docker_ignore_patterns_are_read_as_docker_does() -> None:
    patterns = ["*", "!a", "!deploy/x", "**/__pycache__"]
    kept = ("a/b.py", "a/c/d.py", "deploy/x")
    left = ("b.py", "deploy/y", "deploy/xy", "a/__pycache__/b.pyc", "a/c/__pycache__/d.pyc")
    assert not [path for path in kept if is_ignored(PurePosixPath(path), patterns)]
    assert not [path for path in left if not is_ignored(PurePosixPath(path), patterns)]


def test_all_of_our_packages_are_there_and_nothing_else(image: Path) -> None:
    assert sorted(path.name for path in (image / "app").iterdir()) == sorted(PACKAGES)
    for package, folder in PACKAGES.items():
        sources = {
            path.relative_to(ROOT / folder)
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        copied = {
            path.relative_to(image / "app" / package)
            for path in (image / "app" / package).rglob("*")
            if path.is_file()
        }
        assert copied == sources


def test_package_data_is_there(image: Path) -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    assert data
    for package, patterns in data.items():
        folder = image / "app" / package.replace(".", "/")
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"no {pattern} in {folder}"


def test_copied_from_other_stages_is_the_environment_alone() -> None:
    lines = instructions(DOCKERFILE.read_text())
    from_stages = [line.split()[2:] for line in lines if line.startswith("COPY --from")]
    assert from_stages == [["/opt/venv", "/opt/venv"]] * 2


def test_what_the_stages_before_copy_reaches_the_build() -> None:
    patterns = ignore_patterns()
    for line in instructions(DOCKERFILE.read_text()):
        if line.startswith("COPY ") and not line.startswith("COPY --from"):
            source = line.split()[1]
            assert (ROOT / source).exists()
            assert not is_ignored(PurePosixPath(source), patterns)


def test_versions_are_those_of_the_makefile() -> None:
    text, makefile = DOCKERFILE.read_text(), (ROOT / "Makefile").read_text()
    (uv,) = re.findall(r"^ARG UV_VERSION=(.*)$", text, re.MULTILINE)
    assert f"UV_VERSION := {uv}\n" in makefile
    bases = re.findall(r"^ARG \w+_IMAGE=python:([\d.]+)-(?:slim-)?(\w+)$", text, re.MULTILINE)
    assert len(bases) == 2
    assert bases[0] == bases[1]
    assert bases[0][0].startswith((ROOT / ".python-version").read_text().strip() + ".")


def pins(lock: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+) \\$", lock.read_text(), re.MULTILINE)
    return dict(found)


def test_the_gpu_lock_agrees_with_the_other_and_adds_cuda_alone() -> None:
    lock = ROOT / "deploy/requirements-gpu.lock"
    ours, gpu = pins(ROOT / "requirements.lock"), pins(lock)
    added = {name for name in gpu if name not in ours}
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12", "nvidia-nccl-cu12"} <= added
    assert all(name.startswith("nvidia-") for name in added)
    assert {name: version for name, version in gpu.items() if name in ours} == {
        name: ours[name] for name in gpu if name in ours
    }
    assert lock.read_text().count("--hash=sha256:") >= len(gpu)
    assert "://" not in lock.read_text()


@pytest.mark.component
def test_everything_can_be_imported_there(image: Path, tmp_path: Path) -> None:
    app = image / "app"
    modules = [
        ".".join(path.relative_to(app).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(app.rglob("*.py"))
        # Importing it runs the command.
        if path.stem != "__main__"
    ]
    executors = [f"{name}:Executor" for name in modules if name.endswith(".executor")]
    # TFX makes the executor of a function component beside the function.
    functions = re.compile(r"^@component\b.*\ndef (\w+)\(", re.MULTILINE)
    for path in sorted((ROOT / "components").glob("*/component.py")):
        executors += [
            f"components.{path.parent.name}.component:{name}_Executor"
            for name in functions.findall(path.read_text())
        ]
    assert len(executors) == len(list((ROOT / "components").glob("*/component.py")))
    assert set(PROGRAMS) <= set(modules)
    tfx = [":".join(path.rsplit(".", 1)) for path in TFX_EXECUTORS]
    code = IMPORT.replace("{packages}", repr(set(PACKAGES)))
    done = run(image, tmp_path, "-c", code, str(app), *modules, *executors, *tfx)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.splitlines()[-1]) >= len(modules)


@pytest.mark.component
def test_a_module_from_elsewhere_would_be_noticed(image: Path, tmp_path: Path) -> None:
    """The tests' own environment has the repository installed, which must not be what is tested."""
    partial = tmp_path / "partial"
    shutil.copytree(image / "app/schemas", partial / "app/schemas")
    code = IMPORT.replace("{packages}", repr(set(PACKAGES)))
    done = run(partial, tmp_path, "-c", code, str(partial / "app"), "schemas")
    assert "AssertionError" in done.stderr
    assert "trainer_module" in done.stderr


def test_the_command_is_there(image: Path, tmp_path: Path) -> None:
    command = image / "usr/local/bin/plateau"
    assert os.access(command, os.X_OK)
    done = run(image, tmp_path, str(command), "presets")
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout
