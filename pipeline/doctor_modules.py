"""Classes looked up by name without importing anything: TFX alone would take seconds."""

import ast
import re
import sys
from importlib import util
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Literal, TypeAlias

Lookup: TypeAlias = Literal["found", "no module", "no class", "unreadable"]

_MAX_HOPS = 8
_COMPONENT_SUFFIX = "_Executor"
"""What TFX's @component decorator appends to a function's name for its executor class."""


def is_dotted(name: str) -> bool:
    """Whether a name is identifiers with dots between them."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) is not None


def find(module: str) -> ModuleSpec | None:
    """Where a module is; None if it is not on the import path or in the current folder."""
    if not is_dotted(module):
        return None
    top, *rest = module.split(".")
    try:
        spec = util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        spec = PathFinder.find_spec(top, [str(Path.cwd()), *sys.path])
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def look_up(path: str) -> Lookup:
    """Whether a class is where its dotted path says.

    Args:
        path: Module and class, as in `package.module.Class`.
    """
    module, _, name = path.rpartition(".")
    if not module or not is_dotted(path):
        return "no module"
    return _look_up(module, name, _MAX_HOPS)


def _look_up(module: str, name: str, hops: int) -> Lookup:
    spec = find(module)
    if spec is None:
        return "no module"
    if spec.origin is None:
        return "no class"
    source = _source(spec)
    if source is None:
        # A compiled module keeps its names to itself.
        return "found"
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "unreadable"
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    return _bound(tree, name, package, hops)


def _bound(tree: ast.Module, name: str, package: str, hops: int) -> Lookup:
    """Whether a module binds a name, by itself or from another module."""
    function = name.removesuffix(_COMPONENT_SUFFIX)
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return "found"
        if isinstance(node, ast.FunctionDef) and (
            node.name == "__getattr__" or (node.name == function != name and node.decorator_list)
        ):
            return "found"
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return "found"
        if isinstance(node, ast.ImportFrom) and hops:
            origin = _origin(node, package)
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _look_up(origin, alias.name, hops - 1)
                if alias.name == "*" and _look_up(origin, name, hops - 1) == "found":
                    return "found"
    return "no class"


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """Those at a module's level, also within its `if`, `try` and `with`."""
    found: list[ast.stmt] = []
    waiting: list[ast.AST] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            found.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            waiting += reversed(list(ast.iter_child_nodes(node)))
    return found


def _origin(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _source(spec: ModuleSpec) -> str | None:
    """The text of a module; None if it has none, or none that can be read."""
    read = getattr(spec.loader, "get_source", None)
    try:
        source = read(spec.name) if read else None
    except (ImportError, OSError, SyntaxError, ValueError):
        # Parsing says what is wrong, in the one place that handles it.
        return "("
    return source if isinstance(source, str) else None


def type_names(module: str) -> frozenset[str]:
    """The TYPE_NAME of each class in a module, none if there is no such module.

    Args:
        module: Dotted name of a module that defines artifact types.
    """
    spec = find(module)
    source = _source(spec) if spec and spec.origin else None
    try:
        tree = ast.parse(source or "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    return frozenset(
        item.value.value
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.Assign)
        and isinstance(item.value, ast.Constant)
        and isinstance(item.value.value, str)
        and any(isinstance(name, ast.Name) and name.id == "TYPE_NAME" for name in item.targets)
    )


def files_beside(package: str, folder: str, suffix: str) -> frozenset[str]:
    """Names, without the suffix, of the data files of a package; none if it is not there.

    Args:
        package: Dotted name of the package.
        folder: Folder within it.
        suffix: How the names end.
    """
    spec = find(package)
    names: set[str] = set()
    for place in (spec.submodule_search_locations if spec else None) or ():
        try:
            names.update(file.name for file in (Path(place) / folder).iterdir())
        except OSError:
            continue
    return frozenset(name.removesuffix(suffix) for name in names if name.endswith(suffix))
