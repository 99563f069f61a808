"""Whether the parameters of a compiled pipeline reach the programs of its tasks as they are."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainer_module.util.checks import require

Json = Mapping[str, Any]

LONGEST_ARGUMENT = 100_000
"""Bytes of one argument of a task. Linux allows 131,072; artifacts take some of them."""

# An artifact of ExecutorInput: its URI, its type, and what the backend adds.
_ARTIFACT_BYTES = 1000


def check(spec: Json, target: str) -> None:
    """Raises UserError for a PipelineSpec whose parameters cannot be passed on.

    Args:
        spec: PipelineSpec as JSON values.
        target: "kfp" or "vertex".
    """
    for name, task in spec["root"]["dag"]["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        values = dict(_values(spec, task, component))
        artifacts = [
            *task.get("inputs", {}).get("artifacts", {}),
            *component.get("outputDefinitions", {}).get("artifacts", {}),
        ]
        # ExecutorInput is one argument.
        longest = len(json.dumps(values).encode()) + _ARTIFACT_BYTES * (len(artifacts) + 1)
        largest = max(values, key=lambda key: len(json.dumps(values[key])), default="")
        require(
            longest <= LONGEST_ARGUMENT,
            f"the parameters of {name}, of which {largest} takes most, must fit in "
            f"{LONGEST_ARGUMENT:,} bytes, since they are one argument of a program",
            longest,
            "Use fewer or shorter class names, or a shorter schema.",
        )
        for key, value in values.items():
            special = re.search(r"\$\$|\$\(|\{\{", json.dumps(value))
            require(
                target == "vertex" or special is None,
                f"{key} of {name} must not contain $$, $( or {{{{, which Kubernetes and Kubeflow "
                "replace",
                special and special[0],
                "Rename what contains it.",
            )


def _values(spec: Json, task: Json, component: Json) -> Iterator[tuple[str, Any]]:
    """Yields the parameters of a task with their values, those of a run by default."""
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    for key, definition in component.get("inputDefinitions", {}).get("parameters", {}).items():
        if "defaultValue" in definition:
            yield key, definition["defaultValue"]
    for key, source in task.get("inputs", {}).get("parameters", {}).items():
        outer = source.get("componentInputParameter")
        if outer is None:
            yield key, source.get("runtimeValue", {}).get("constant")
        else:
            yield key, parameters[outer]["defaultValue"]
