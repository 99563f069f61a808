"""Fingerprint of the training code, so that TFX's cache never serves what older code made."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import schemas
import trainer_module
from trainer_module.config import MODELS
from trainer_module.util.checks import require


def of_sources(model: str = "") -> str:
    """Returns the SHA-256 over the sources a model depends on.

    TFX hashes a `module_file`, but a dotted `run_fn` is only a string to it; this fingerprint
    among a component's parameters makes its cache key change with the code.

    Args:
        model: `NetworkConfig.model`; the module of a dotted path is fingerprinted too.

    Raises:
        UserError: As `module_of`.
    """
    files: list[tuple[str, Path]] = []
    for package in (schemas, trainer_module):
        for root in map(Path, package.__path__):
            files += [
                (f"{package.__name__}/{path.relative_to(root).as_posix()}", path)
                for path in root.rglob("*")
                if path.suffix in {".py", ".pbtxt"}
            ]
    if "." in model:
        files.append((model, module_of(model)))
    digest = hashlib.sha256()
    for name, path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def module_of(model: str) -> Path:
    """Returns the source file of a model without running it.

    Args:
        model: `NetworkConfig.model`.

    Raises:
        UserError: There is no such built-in model or, for a dotted path, module.
    """
    require(
        model in MODELS or "." in model,
        f"`model` must be one of {', '.join(MODELS)} or the dotted path of a function",
        model,
        "Try `model=cnn`.",
    )
    path = f"{trainer_module.__name__}.models.{model}.build" if model in MODELS else model
    module = path.rpartition(".")[0]
    try:
        spec = find_spec(module) if module else None
    except (ModuleNotFoundError, ValueError):
        spec = None
    require(
        spec is not None and spec.origin is not None,
        "a dotted `model` must name a function in an importable module",
        model,
        f"Put the folder that holds {module.partition('.')[0]} on PYTHONPATH.",
    )
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)
