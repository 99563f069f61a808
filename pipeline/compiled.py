"""A pipeline compiled for Kubeflow Pipelines as plain values: its name, and what it takes."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pipeline import doctor_file
from trainer_module.checks import require

Value = str | int | float | bool | list[Any] | dict[str, Any]

EXACT = 2**53
"""The largest whole number that is exact on the way, since every number travels as a double."""


_SHOWN = 200


@dataclass(frozen=True)
class Parameter:
    """A runtime parameter of a pipeline.

    Attributes:
        type: Name that the pipeline spec has for its type, such as NUMBER_INTEGER.
        default: Value that the file has for it; None if it has none.
        optional: Whether a run may go without a value.
    """

    type: str
    default: Value | None = None
    optional: bool = False


@dataclass(frozen=True)
class Pipeline:
    """A pipeline as a server of Kubeflow Pipelines takes it.

    Attributes:
        path: The file.
        name: Name of the pipeline.
        parameters: Its runtime parameters by name.
    """

    path: Path
    name: str
    parameters: Mapping[str, Parameter]


def read(path: Path) -> Pipeline:
    """Read what a compiled pipeline is called and takes.

    Args:
        path: YAML file as `plateau compile` writes it.

    Raises:
        ValueError: The file is for Vertex AI, or holds no pipeline spec that a server takes.
        OSError: The file cannot be read.
    """
    loaded = doctor_file.load(path)
    if loaded.target == "vertex":
        raise ValueError(
            f"FILE must be compiled for Kubeflow Pipelines, got {str(path)!r}, which is compiled "
            "for Vertex AI. Submit it with Google's client: "
            f"aiplatform.PipelineJob(display_name=..., template_path={str(path)!r}).submit()"
        )
    spec, again = loaded.spec, "Write one with `plateau compile`."
    name = _at(spec, "pipelineInfo", "name")
    require(
        isinstance(name, str) and bool(name.strip()),
        "FILE must hold a pipeline spec with a name",
        str(path),
        again,
    )
    version = str(_at(spec, "schemaVersion") or "")
    require(
        version.startswith("2.1."),
        "FILE must hold a pipeline spec of schema version 2.1, which servers take",
        version,
        f"Compile it anew. {again}",
    )
    require(
        path.suffix in (".yaml", ".yml"),
        "FILE must end with .yaml, by which the server knows its format",
        path.name,
        "Rename it.",
    )
    return Pipeline(path, str(name), dict(_parameters(spec)))


def values(compiled: Pipeline, given: Mapping[str, str]) -> dict[str, Value]:
    """The value of every runtime parameter: as given, or else the file's default.

    Defaults are passed on explicitly, because TFX and some servers drop them.

    Args:
        compiled: The pipeline.
        given: Values as text, by the name of the parameter.

    Raises:
        ValueError: There is no such parameter, a value does not fit its type, or one is missing.
    """
    listed = ", ".join(sorted(compiled.parameters)) or "none"
    for name in given:
        require(
            name in compiled.parameters,
            f"a parameter must be one of the pipeline {compiled.name}",
            name,
            f"Its parameters: {listed}.",
        )
    found: dict[str, Value] = {}
    for name, parameter in compiled.parameters.items():
        if name in given:
            found[name] = parse(name, parameter.type, given[name])
        elif parameter.default is not None:
            found[name] = parameter.default
        elif not parameter.optional:
            raise ValueError(
                f"parameter {name} must have a value, got none, and {compiled.path} has no "
                f"default for it. Give one with --param {name}=VALUE."
            )
    return found


def parse(name: str, kind: str, text: str) -> Value:
    """The value that a text stands for.

    Args:
        name: Name of the parameter, for the error.
        kind: Its type in the pipeline spec.
        text: What was typed.

    Raises:
        ValueError: The text does not fit the type.
    """
    if kind not in _TYPES:
        raise ValueError(
            f"parameter {name} must be of a type that can be typed, got {kind}. Leave it out."
        )
    rule, example, read_text = _TYPES[kind]
    value = read_text(text)
    if value is None:
        raise ValueError(
            f"parameter {name} must be {rule}, got {text!r}. Try --param {name}={example}."
        )
    return value


def _parameters(spec: Any) -> Iterator[tuple[str, Parameter]]:
    listed = _at(spec, "root", "inputDefinitions", "parameters") or {}
    require(
        isinstance(listed, Mapping) and all(isinstance(name, str) for name in listed),
        "FILE must hold a pipeline spec whose parameters have names",
        str(listed)[:_SHOWN],
        "Write one with `plateau compile`.",
    )
    for name, found in listed.items():
        kind, default = str(_at(found, "parameterType")), _at(found, "defaultValue")
        # JSON has one kind of number, so that the compiler writes 5 as 5.0.
        if kind == "NUMBER_INTEGER" and isinstance(default, float) and default.is_integer():
            default = int(default)
        yield name, Parameter(kind, default, bool(_at(found, "isOptional")))


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _integer(text: str) -> int | None:
    whole = re.fullmatch(r"[+-]?\d{1,16}", text.strip(), re.ASCII)
    return int(text) if whole and abs(int(text)) <= EXACT else None


def _double(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.strip().lower())


def _list(text: str) -> list[Any] | None:
    value = _json(text)
    return value if isinstance(value, list) else None


def _struct(text: str) -> dict[str, Any] | None:
    value = _json(text)
    return value if isinstance(value, dict) else None


def _json(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not in JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


# Rule, example, and what reads a text; None stands for a text that does not fit.
_TYPES: dict[str, tuple[str, str, Callable[[str], Value | None]]] = {
    "STRING": ("text", "text", str),
    "NUMBER_INTEGER": ("a whole number", "5", _integer),
    "NUMBER_DOUBLE": ("a finite number", "0.5", _double),
    "BOOLEAN": ("true or false", "true", _boolean),
    "LIST": ("a list in JSON", "'[1, 2]'", _list),
    "STRUCT": ("an object in JSON", "'{\"a\": 1}'", _struct),
}
