"""Rules on imports beyond the contracts of import-linter in pyproject.toml, and packaging."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "trainer_module", "components", "pipeline")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Imports every light module and prints which heavy package came with it.
PROBE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    loaded = {"tensorflow", "keras", "tfx", "apache_beam", "tensorflow_transform"} & {*sys.modules}
    if loaded:
        sys.exit(f"{name} loads {sorted(loaded)}")
"""


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Module and level of each absolute or relative import, anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level


def third_party(paths: list[Path]) -> set[str]:
    return {name.split(".")[0] for path in paths for name, level in imports(path) if not level}


def light_modules() -> list[str]:
    """The modules of trainer_module that the pipeline may import."""
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c.get("source_modules") == ["pipeline"]]
    patterns = [line.split(" -> ")[1] for line in contract["ignore_imports"]]
    names = []
    for pattern in patterns:
        if pattern.endswith(".*"):
            folder = ROOT.joinpath(*pattern.split(".")[:-1])
            names += [f"{pattern[:-2]}.{path.stem}" for path in folder.glob("*.py")]
        else:
            names.append(pattern)
    return sorted(name.removesuffix(".__init__") for name in names)


def test_the_pipeline_imports_its_own_modules_relatively():
    """It is installed as plateau_tfx, a name that its modules do not know."""
    absolute = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources("pipeline")
        for name, level in imports(path)
        if not level and name.split(".")[0] == "pipeline"
    ]
    assert absolute == []


def test_other_packages_import_absolutely():
    packages = sources("schemas", "trainer_module", "components")
    assert [path for path in packages if any(level for _, level in imports(path))] == []


def test_light_modules_load_no_tensorflow():
    # The page, because a push by hand notes itself on it.
    names = [*light_modules(), "pipeline.cli.main", "components.training_report.page"]
    assert len(names) > 10
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *names], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_every_package_is_listed_for_installation():
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in sources(*PACKAGES)
        if path.name == "__init__.py"
    }
    installed = {re.sub("^pipeline", "plateau_tfx", package) for package in packages}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == installed


def test_only_the_command_and_containers_import_what_the_extra_brings():
    extra = {"filelock", "kfp", "sklearn", "tyro", "urllib3"}
    programs = {ROOT / "components/container.py", ROOT / "trainer_module/worker.py"}
    library = set(sources("schemas", "trainer_module", "components")) - programs
    assert third_party(sorted(library)) & extra == set()
    assert third_party(sources(*PACKAGES)) >= {"filelock", "sklearn", "tyro"}
