"""What the lock files hold.  Pure: text in, pins out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer_module.util.checks import require

ROOT = Path(__file__).parents[1]
LOCKS = {
    name: ROOT / name
    for name in (
        "requirements.lock",
        "requirements-dev.lock",
        "deploy/requirements-gpu.lock",
        "requirements-kfp.lock",
        "requirements-kubernetes.lock",
        "requirements-audit.lock",
    )
}
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(?:\[(?P<extras>[^\]]*)\])?==(?P<version>\S+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One package in a lock.

    Attributes:
        name: Its name as a package index spells it.
        version: The one version that may be installed.
        hashes: SHA-256 of the files that may be installed.
    """

    name: str
    version: str
    hashes: frozenset[str]

    def __post_init__(self) -> None:
        """Check that the pin holds what is installed.

        Raises:
            ValueError: It has no hash.
        """
        require(
            bool(self.hashes),
            f"{self.name} must be locked with the hashes of its files",
            f"{self.name}=={self.version} alone",
            "Run make lock.",
        )


def canonical(name: str) -> str:
    """A package's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(text: str) -> Mapping[str, Pin]:
    """The pins of a lock file, by name.

    Args:
        text: The file as `uv pip compile --generate-hashes` writes it.

    Raises:
        ValueError: A line is no exact version with hashes, such as a URL or an option.
    """
    found: dict[str, Pin] = {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not entry.strip():
            continue
        requirement, *hashes = entry.split()
        pinned = _PIN.fullmatch(requirement)
        require(
            pinned is not None and all(_HASH.fullmatch(word) for word in hashes),
            "a line of a lock must be NAME==VERSION and hashes",
            entry.strip()[:120],
            "Run make lock.",
        )
        assert pinned is not None
        name = canonical(pinned["name"])
        found[name] = Pin(
            name, pinned["version"], frozenset(word.partition("sha256:")[2] for word in hashes)
        )
    return found


def read(name: str) -> Mapping[str, Pin]:
    """The pins of one of the project's locks.

    Args:
        name: A key of LOCKS.
    """
    return parse(LOCKS[name].read_text())
