"""A fingerprint of the training code, so that TFX's cache never serves what older code made."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import schemas
import trainer_module


def of_sources(model: str = "") -> str:
    """SHA-256 over the sources a model depends on.

    TFX hashes a `module_file`, but a dotted `run_fn` is only a string to it; this fingerprint
    among a component's parameters makes its cache key change with the code.

    Args:
        model: `NetworkConfig.model`; the module of a dotted path is fingerprinted too.

    Raises:
        ValueError: The module of a dotted path cannot be found.
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
        files.append((model, _own_module(model)))
    digest = hashlib.sha256()
    for name, path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _own_module(model: str) -> Path:
    module = model.rpartition(".")[0]
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ValueError(
            f"a dotted model must name a function in an importable module, got {model!r}. "
            f"Put the folder that holds {module.partition('.')[0]} on PYTHONPATH."
        )
    return Path(spec.origin)
