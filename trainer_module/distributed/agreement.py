"""Facts that all workers must share before they train, and the name of the run that follows."""

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import trainer_module
from trainer_module.config import TrainConfig, flat

_CHUNK = 2**20
_LONGEST = 60
_PACKAGES = ("tensorflow", "keras", "numpy")
_SOURCES, _MODEL, _VERSIONS = "the source code", "the model's source code", "the packages"


def facts(
    config: TrainConfig,
    files: Mapping[str, Sequence[str]],
    code: str | None,
    open_file: Callable[[str], BinaryIO] | None = None,
) -> dict[str, str]:
    """Returns what must be the same on all workers, as short texts by name.

    Args:
        config: What to train and how.
        files: Paths by what they hold, such as "the training examples"; read in sorted order.
        code: Any text that changes with the code.
        open_file: Opens a path for reading bytes; that of a local file if not given.
    """
    return {
        **{
            f"config {name}": _short(json.dumps(value))
            for name, value in flat(json.loads(config.to_json())).items()
        },
        **{name: _digest(paths, open_file) for name, paths in files.items()},
        "the code (--code)": _short(code or ""),
        _SOURCES: _digest(map(str, Path(trainer_module.__path__[0]).rglob("*.py"))),
        _MODEL: _digest(_module(config.network.model)),
        _VERSIONS: ", ".join(
            [f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in _PACKAGES)]
        ),
    }


def run_name(facts: Mapping[str, str]) -> str:
    """Returns the name of a run's folder of checkpoints, by config, data and the text for the code.

    An edit of the sources changes it only through that text, as for a run in a pipeline.
    """
    kept = {k: v for k, v in facts.items() if k not in (_SOURCES, _MODEL, _VERSIONS)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _short(value: str) -> str:
    """Returns the text itself, or the digest of a long one."""
    if len(value) <= _LONGEST:
        return value
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:16]}"


def _digest(paths: Iterable[str], open_file: Callable[[str], BinaryIO] | None = None) -> str:
    sha = hashlib.sha256()
    for path in sorted(paths):
        size = 0
        with open_file(path) if open_file else Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
                size += len(chunk)
        # Files that are cut elsewhere hold other examples.
        sha.update(size.to_bytes(8, "big"))
    return f"sha256:{sha.hexdigest()[:16]}"


def _module(model: str) -> list[str]:
    """Returns the file of the module of a user's own model."""
    module = model.rpartition(".")[0]
    try:
        spec = find_spec(module) if module else None
    except (ImportError, ValueError):
        # Building the model says what is wrong.
        spec = None
    return [spec.origin] if spec and spec.origin else []
