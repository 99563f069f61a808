"""Nothing that makes outside data run: no pickle, no eval, no shell, nothing unpacked blindly."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("benchmarks", "components", "pipeline", "schemas", "trainer_module")

MODULES = frozenset(
    {"_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve"}
)
"""Modules that make objects of any kind out of bytes."""

CALLS = frozenset(
    {
        "compile",
        "eval",
        "exec",
        "__import__",
        "os.popen",
        "os.system",
        "yaml.full_load",
        "yaml.full_load_all",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.unsafe_load_all",
        "keras.models.load_model",
        "keras.saving.load_model",
        "tf.keras.models.load_model",
        "tempfile.mktemp",
        "np.fromfile",
        "pd.read_pickle",
        "shutil.unpack_archive",
    }
)
"""Functions that run what they are given, or guess a name that another may take meanwhile."""

ATTRIBUTES = frozenset({"extractall", "extract", "enable_unsafe_deserialization"})
"""Methods of archives that write wherever these say, and Keras's consent to run code."""

ARGUMENTS = {
    "allow_pickle": {True},
    "safe_mode": {False},
    "shell": {True},
    "verify_ssl": {False},
    "autoescape": {False},
}
"""Values of arguments."""


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def broken_rules(code: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        found += [f"import of {name}" for name in names if MODULES & set(name.split("."))]
        if isinstance(node, ast.Call):
            found += broken_by_call(node)
    return found


def broken_by_call(node: ast.Call) -> list[str]:
    called = ast.unparse(node.func)
    found = [f"{called}()"] if called in CALLS else []
    # Python has a filter for the archives of strangers.
    filtered = any(word.arg == "filter" for word in node.keywords)
    if isinstance(node.func, ast.Attribute) and node.func.attr in ATTRIBUTES and not filtered:
        found.append(f".{node.func.attr}()")
    # Loading all documents is for the safe loader alone.
    if called == "yaml.load_all" and "Loader=_Loader" not in ast.unparse(node):
        found.append("yaml.load_all()")
    for word in node.keywords:
        value = word.value.value if isinstance(word.value, ast.Constant) else None
        if value in ARGUMENTS.get(word.arg or "", ()):
            found.append(f"{word.arg}={value}")
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_outside_data(path: Path) -> None:
    assert broken_rules(path.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "from numpy.lib import pickle",
        "import xml, dill as d",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.load_all(text, Loader=yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "keras.models.load_model(path)",
        "model = loader(path, safe_mode=False)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "tar.extractall(folder)",
        "tempfile.mktemp()",
        "jinja2.Environment(autoescape=False)",
    ],
)
def test_each_rule_can_be_broken(code: str) -> None:
    assert broken_rules(code)


def test_yaml_is_read_by_the_safe_loader() -> None:
    import yaml

    from pipeline import kubeflow_checks

    assert issubclass(kubeflow_checks._Loader, (yaml.SafeLoader, yaml.CSafeLoader))
