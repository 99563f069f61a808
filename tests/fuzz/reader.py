"""What a fuzz target is made of: a reader of outside data, and what must hold for any bytes."""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

NAMES = (
    "checkpoint",
    "config",
    "database",
    "folder",
    "history",
    "image",
    "pipeline",
    "request",
    "schema",
    "table",
)
"""Modules of `tests.fuzz.readers`."""

PURE = ("config", "database", "folder", "history", "pipeline", "schema")
"""Those that need no TensorFlow, and so no time to speak of."""

SCRATCH = "FUZZ_SCRATCH"
"""Environment variable with the folder for scratch, which whoever sets it removes."""

# House style: the rule, what was found, and at the end what to do.
_REFUSAL = re.compile(r".*\b(got|found|must|may)\b.*[.)]\s*", re.DOTALL)


class Reader(NamedTuple):
    """A fuzz target.

    Attributes:
        check: Takes any bytes, and raises if the reader does what it must not.
        seeds: Inputs to begin with.
        memory: MiB that the process may take.
        patience: Seconds that one input may take.
    """

    check: Callable[[bytes], None]
    seeds: Sequence[bytes]
    memory: int = 1024
    patience: int = 10


def refused(error: ValueError, longest: int = 4000) -> None:
    """Check that an error tells a person what is wrong and what to do, in no more than a screen."""
    message = str(error)
    assert _REFUSAL.fullmatch(message), f"no rule, value or remedy: {message!r}"
    assert len(message) <= longest, f"{len(message)} characters: {message[:200]!r}"


def scratch() -> Path:
    """A folder of this process, in memory where there is one."""
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=os.environ.get(SCRATCH, shared)))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
