"""Workers of a job, as TF_CONFIG lists them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer_module.util.checks import UserError, require

TF_CONFIG = "TF_CONFIG"
_KINDS = ("chief", "worker")
_LONGEST = 200
_REMEDY = (
    'Its form is {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", '
    '"index": 0}}; leave it unset to train with one process.'
)


@dataclass(frozen=True)
class Place:
    """Position of this process among several workers."""

    name: str
    """Name of its task, such as "worker 1"."""

    addresses: Mapping[str, tuple[str, int]]
    """(host, port) of every task by name, the chief's first."""

    def __str__(self) -> str:
        """The position for a log."""
        return f"{self.name}, one of {len(self.addresses)} workers"

    @property
    def chief(self) -> str:
        """Name of the chief's task."""
        return next(iter(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Returns True if this process is the chief."""
        return self.name == self.chief

    def describe(self, name: str) -> str:
        """Returns name and address of a task, for a message."""
        host, port = self.addresses[name]
        return f"{name} ({host}:{port})"


def locate(text: str) -> Place | None:
    """Returns the position that TF_CONFIG gives this process; None if it is the only worker.

    Args:
        text: Value of TF_CONFIG; empty if it is not set.

    Raises:
        UserError: Not JSON, not of TF_CONFIG's form, or a cluster with tasks that do not train.
    """
    try:
        config = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{TF_CONFIG} must be JSON", text[:_LONGEST], _REMEDY) from error

    def check(holds: bool, rule: str, value: object) -> None:
        require(holds, f"{TF_CONFIG} must {rule}", str(value)[:_LONGEST], _REMEDY)

    check(isinstance(config, dict), "be a JSON object", text)
    cluster = config.get("cluster") or {}
    is_cluster = isinstance(cluster, dict) and all(
        isinstance(hosts, list) and hosts for hosts in cluster.values()
    )
    check(is_cluster, "list the addresses of each kind of task", text)
    others = ", ".join(sorted({*cluster} - {*_KINDS}))
    check(not others, f"have tasks of the kinds {' and '.join(_KINDS)} only", others)
    if sum(map(len, cluster.values())) < 2:
        return None
    addresses = {
        f"{kind} {index}": _address(host)
        for kind in _KINDS
        for index, host in enumerate(cluster.get(kind, []))
    }
    check("chief 1" not in addresses, "have one chief at most", cluster)
    is_unique = len({*addresses.values()}) == len(addresses)
    check(is_unique, "give each task an address of its own", cluster)
    task = config.get("task")
    task = task if isinstance(task, dict) else {}
    name = f"{task.get('type')} {task.get('index')}"
    is_known = type(task.get("index")) is int and name in addresses
    check(is_known, "say which of its tasks this is", config.get("task"))
    return Place(name, addresses)


def _address(text: Any) -> tuple[str, int]:
    host, _, port = str(text).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_address = bool(host) and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 2**16
    require(is_address, f"an address in {TF_CONFIG} must be HOST:PORT", text, _REMEDY)
    return host, int(port)
