"""The import rule of docs/architecture.md, checked on the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
ROOMS = ("schemas", "trainer_module", "components", "pipeline")
MAY_IMPORT = {
    "schemas": set(),
    "trainer_module": {"schemas"},
    "components": {"schemas"},
    "pipeline": {"schemas", "components", "trainer_module"},
}
# Rooms may read these of a room they otherwise leave alone.
OPEN_TO_COMPONENTS = {
    "trainer_module.util.checks",
    "trainer_module.util.collector",
    "trainer_module.config",
    "trainer_module.serving.decoding",
    "trainer_module.util.environment",
    "trainer_module.history",
    "trainer_module.util.lazy",
    "trainer_module.schedule.parameters",
    "trainer_module.schedule.plateau",
    "trainer_module.util.preemption",
    "trainer_module.serving.request",
    "trainer_module.schedule.schedule",
    "trainer_module.schedule.state",
    "trainer_module.schedule.strategy",
}
# The pipeline is compiled without loading a model, or TensorFlow.
OPEN_TO_PIPELINE = {
    "trainer_module",
    "trainer_module.util.checks",
    "trainer_module.distributed.cluster",
    "trainer_module.util.collector",
    "trainer_module.config",
    "trainer_module.util.environment",
    "trainer_module.util.files",
    "trainer_module.history",
    "trainer_module.schedule.plateau",
    "trainer_module.util.preemption",
    "trainer_module.schedule.scaling",
    "trainer_module.schedule.schedule",
    "trainer_module.schedule.state",
    "trainer_module.schedule.strategy",
}


def sources():
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    modules = set()
    room = path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `pipeline` is installed under another name, which its modules do not know.
            assert not node.level or room == "pipeline", f"{path}: relative import"
            own = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*own, *filter(None, [node.module])])
            assert node.level or room != "pipeline" or module.split(".")[0] != room, (
                f"{path}: import of {module} that is not relative"
            )
            names = {f"{module}.{alias.name}" for alias in node.names}
            are_modules = {name for name in names if is_module(name)}
            modules |= are_modules | ({module} if names - are_modules else set())
    return {module for module in modules if module.split(".")[0] in ROOMS}


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_what_they_may(path):
    room = path.relative_to(ROOT).parts[0]
    for module in imported(path):
        other = module.split(".")[0]
        if other == room:
            continue
        allowed = other in MAY_IMPORT[room]
        if room == "components":
            allowed = allowed or module in OPEN_TO_COMPONENTS
        if room == "pipeline" and other == "trainer_module":
            allowed = module in OPEN_TO_PIPELINE
        assert allowed, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("module", sorted(OPEN_TO_PIPELINE | {"pipeline.cli"}))
def test_light_modules_load_no_tensorflow(module):
    heavy = "{'tensorflow', 'keras', 'tfx', 'apache_beam', 'tensorflow_transform'}"
    code = f"import sys, {module}; sys.exit(sorted({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_package_is_listed_for_installation():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in sources()
        if path.name == "__init__.py"
    }
    installed = {re.sub("^pipeline", "plateau_tfx", package) for package in found}
    assert set(listed) == installed


def third_party(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_only_the_command_and_containers_import_what_the_extra_brings():
    programs = {ROOT / "components/container.py", ROOT / "trainer_module/worker.py"}
    extra = {"filelock", "kfp", "sklearn", "tyro", "urllib3"}
    library = [p for p in sources() if p.relative_to(ROOT).parts[0] != "pipeline"]
    found = {str(p): both for p in library if (both := third_party(p) & extra)}
    assert set(found) <= set(map(str, programs)), found
    assert set().union(*map(third_party, sources())) >= {"filelock", "kfp", "sklearn", "tyro"}
