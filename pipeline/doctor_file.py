"""A compiled pipeline as it lies in a file: read with care, since anybody may have written it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import yaml

Target: TypeAlias = Literal["kfp", "vertex"]

MAX_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 64
"""Levels of nesting; a compiled pipeline has about fifteen."""

MAX_NUMBER = 100
"""Characters of a number. Of one to the base of 60, as YAML has them, the time to read it grows
with the square."""

_SPEC_KEYS = {"root", "components", "deploymentSpec"}
_PLAIN = "YAML must be whole and plain"
_SHALLOW = f"nesting must not exceed {MAX_DEPTH} levels"
_REMEDY = "Name a file that `plateau compile` wrote."
_NUMBER = re.compile(r"[-+0-9][0-9a-fA-FxXoO_:.+-]*")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline, not yet checked.

    Attributes:
        spec: The PipelineSpec, with the keys of its JSON form.
        platform: What Kubernetes needs to know beside it; None if there is no such document.
        runtime: The runtimeConfig of a PipelineJob; None if there is none.
        target: What it was compiled for: a PipelineJob for Vertex AI, a PipelineSpec for Kubeflow.
    """

    spec: Mapping[str, Any]
    platform: Mapping[str, Any] | None = None
    runtime: Mapping[str, Any] | None = None
    target: Target = "kfp"


def load(path: Path) -> Compiled:
    """Read a compiled pipeline.

    Args:
        path: YAML or JSON file.

    Raises:
        ValueError: There is no such file, or it is too large, cannot be read as YAML or JSON, or
            holds no compiled pipeline.
        OSError: The file cannot be read.
    """
    if not path.is_file():
        got = f"the folder {path}" if path.is_dir() else f"{path}, which is no file"
        raise ValueError(f"FILE must be a compiled pipeline, got {got}. {_REMEDY}")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        return _compiled(_documents(_text(content)))
    except ValueError as error:
        raise ValueError(f"{error} in {path}. {_REMEDY}") from None


def yaml_documents(text: str) -> list[Any]:
    """The documents in a text of plain YAML, empty ones left out.

    Args:
        text: YAML without aliases, since a few lines of them can blow up to anything, and without
            tags of Python.

    Raises:
        ValueError: It is not.
    """
    try:
        _survey(text)
        return [part for part in yaml.load_all(text, Loader=_LOADER) if part is not None]
    except yaml.MarkedYAMLError as error:
        mark = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        _refuse(_PLAIN, f"{error.problem}{mark}")
    except yaml.YAMLError as error:
        _refuse(_PLAIN, str(error).partition("\n")[0])
    except _RefusedError:
        raise
    except (ValueError, OverflowError) as error:
        # A date that is none, or a number too long.
        _refuse(_PLAIN, f"a value that cannot be read: {error}")


def _text(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        _refuse(f"a compiled pipeline has at most {MAX_BYTES // 2**20} MB", "more")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse("a compiled pipeline must be UTF-8 text", f"a stray byte at {error.start}")
    if not text.strip():
        _refuse("a compiled pipeline must have content", "an empty file")
    return text


def _documents(text: str) -> list[Any]:
    """The documents in a text that begins like JSON, or else is YAML."""
    if not text.lstrip().startswith("{"):
        return yaml_documents(text)
    try:
        document = json.loads(text)
        _survey_json(document)
        return [document]
    except RecursionError:
        _refuse(_SHALLOW, "more")
    except json.JSONDecodeError as error:
        _refuse("JSON must be whole", f"{error.msg} at line {error.lineno}")
    except _RefusedError:
        raise
    except ValueError as error:
        _refuse("JSON must hold numbers that can be read", str(error).partition(";")[0])


def _survey(text: str) -> None:
    """Refuse aliases and deep nesting, before anything is built from them."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            _refuse("YAML must have no aliases", f"*{event.anchor} at line {line}")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_NUMBER:
            number = (event.implicit[0] or event.tag) and _NUMBER.fullmatch(event.value)
            if number:
                line = event.start_mark.line + 1
                got = f"one of {len(event.value):,} at line {line}"
                _refuse(f"a number must have at most {MAX_NUMBER} characters", got)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            _refuse(_SHALLOW, "more")


def _survey_json(document: Any) -> None:
    """Refuse deep nesting; there are no aliases in JSON."""
    level, depth = [document], 0
    while level := [
        inner
        for value in level
        if isinstance(value, dict | list)
        for inner in (value.values() if isinstance(value, dict) else value)
    ]:
        depth += 1
        if depth > MAX_DEPTH:
            _refuse(_SHALLOW, "more")


def _compiled(documents: list[Any]) -> Compiled:
    for document in documents:
        if not isinstance(document, dict):
            _refuse("a compiled pipeline must be a mapping", _kind(document))
    jobs = [document for document in documents if "pipelineSpec" in document]
    specs = [document for document in documents if _SPEC_KEYS & document.keys()]
    platforms = [document for document in documents if "platforms" in document]
    for name, found in (("pipeline", jobs + specs), ("document of platforms", platforms)):
        if len(found) > 1:
            _refuse(f"a compiled pipeline must hold one {name}", f"{len(found)}")
    if len(documents) != len(jobs) + len(specs) + len(platforms) or not jobs + specs:
        keys = ", ".join(str(key)[:40] for document in documents for key in list(document)[:8])
        _refuse(
            "a compiled pipeline must be a PipelineSpec or a PipelineJob",
            f"the keys {keys}" if keys else "no keys",
        )
    platform = platforms[0] if platforms else None
    if specs:
        return Compiled(specs[0], platform)
    spec, runtime = jobs[0]["pipelineSpec"], jobs[0].get("runtimeConfig")
    if not isinstance(spec, dict):
        _refuse("pipelineSpec must be a mapping", _kind(spec))
    if runtime is not None and not isinstance(runtime, dict):
        _refuse("runtimeConfig must be a mapping", _kind(runtime))
    return Compiled(spec, platform, runtime, "vertex")


class _RefusedError(ValueError):
    """What this module itself said, as opposed to a parser."""


def _refuse(rule: str, got: str) -> NoReturn:
    raise _RefusedError(f"{rule}, got {got}") from None


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
