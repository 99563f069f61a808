"""What the figures were measured on, so that they can be judged later and elsewhere."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
_PACKAGES = ("tensorflow", "keras", "numpy", "tfx")


def describe(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Processor, cores, vector extensions, load, versions and the date."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return {
        "processor": processor(text) or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "extensions": extensions(text),
        "memory_gib": round(_memory() / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "date": time.strftime("%Y-%m-%d"),
    }


def processor(cpuinfo: str) -> str:
    """The model name in the text of /proc/cpuinfo; empty if there is none."""
    return _field(cpuinfo, "model name")


def extensions(cpuinfo: str) -> list[str]:
    """Which of the vector extensions that matter here the processor has."""
    flags = set(_field(cpuinfo, "flags").split())
    return [flag for flag in _FLAGS if flag in flags]


def _field(cpuinfo: str, name: str) -> str:
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
