"""The workers of a job, as TF_CONFIG names them."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from trainer_module.util.checks import require

TF_CONFIG = "TF_CONFIG"
_CHIEF, _WORKER = "chief", "worker"
_SHOWN = 200
_FORM = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
_REMEDY = f"Its form is {_FORM}."


@dataclasses.dataclass(frozen=True)
class Place:
    """Position of this process among several workers.

    Attributes:
        name: Name of its task, such as "worker 1".
        addresses: (host, port) of every task by name, the chief's first.
    """

    name: str
    addresses: Mapping[str, tuple[str, int]]

    def __str__(self) -> str:
        """The position for a log."""
        return f"{self.name}, one of {self.workers} workers"

    @property
    def workers(self) -> int:
        """Number of workers, the chief included."""
        return len(self.addresses)

    @property
    def chief(self) -> str:
        """Name of the chief's task."""
        return next(iter(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Returns True if this process is the chief."""
        return self.name == self.chief

    def describe(self, name: str) -> str:
        """Name and address of a task, for a message."""
        host, port = self.addresses[name]
        return f"{name} ({host}:{port})"


def locate(text: str) -> Place | None:
    """Returns the position that TF_CONFIG gives this process; None if it is the only worker.

    Args:
        text: Value of TF_CONFIG; empty if it is not set.

    Raises:
        ValueError: Not JSON, not of TF_CONFIG's form, or a cluster with tasks that do not train.
    """
    try:
        given = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{TF_CONFIG} must be JSON, got {text[:_SHOWN]!r} ({error}). "
            "Leave it unset to train with one process."
        ) from None
    require(isinstance(given, dict), f"{TF_CONFIG} must be a JSON object", text, _REMEDY)
    cluster = given.get("cluster") or {}
    require(
        isinstance(cluster, dict)
        and all(isinstance(hosts, list) and hosts for hosts in cluster.values()),
        f"{TF_CONFIG} must list the addresses of each kind of task",
        text,
        _REMEDY,
    )
    others = sorted(set(cluster) - {_CHIEF, _WORKER})
    require(
        not others,
        f"{TF_CONFIG} may have tasks of the kinds {_CHIEF} and {_WORKER} only",
        ", ".join(others),
        "Take the others out of the job: each worker trains and evaluates.",
    )
    if sum(map(len, cluster.values())) < 2:
        return None
    require(
        len(cluster.get(_CHIEF, [])) <= 1,
        f"{TF_CONFIG} may have one {_CHIEF}",
        cluster.get(_CHIEF),
        _REMEDY,
    )
    addresses = {
        f"{kind} {index}": _address(host)
        for kind in (_CHIEF, _WORKER)
        for index, host in enumerate(cluster.get(kind, []))
    }
    require(
        len(set(addresses.values())) == len(addresses),
        f"{TF_CONFIG} must give each task an address of its own",
        cluster,
        _REMEDY,
    )
    task = given.get("task")
    if isinstance(task, dict) and type(task.get("index")) is int:
        name = f"{task.get('type')} {task['index']}"
        if name in addresses:
            return Place(name, addresses)
    raise ValueError(
        f"{TF_CONFIG} must say which of its tasks this is, got {repr(task)[:_SHOWN]}. {_REMEDY}"
    )


def _address(text: Any) -> tuple[str, int]:
    host, _, port = str(text).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    require(
        bool(host) and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 2**16,
        f"an address in {TF_CONFIG} must be HOST:PORT",
        text,
        _REMEDY,
    )
    return host, int(port)
