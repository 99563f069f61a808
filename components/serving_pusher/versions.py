"""Numbered copies of a model in a folder that TensorFlow Serving watches.

TensorFlow Serving takes the highest integer among the names in the folder and ignores all others.
"""

import filecmp
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_TEMPORARY = ".copying-"
_STATISTICS = ".statistics"
_GRAPH = "saved_model.pb"


def push(
    source: Path,
    folder: Path,
    now: Callable[[], float] = time.time,
    statistics: Path | None = None,
) -> Path:
    """Pushes a model as a new version, unless it is served already.

    Args:
        source: Folder of the SavedModel.
        folder: The folder that is watched; made if it is missing.
        now: The clock, in seconds since 1970.
        statistics: Folder of the statistics of its data, kept beside the versions if given.

    Returns:
        The version that is served: a new one, or the present one if it holds the same model.
    """
    present = versions(folder)
    if present and same(source, present[max(present)]):
        return present[max(present)]
    destination = folder / str(next_version(present, now))
    if statistics is not None:
        # First, so that no version is ever without; what a killed push left is replaced.
        kept = statistics_of(destination)
        shutil.rmtree(kept, ignore_errors=True)
        copy(statistics, kept)
    copy(source, destination)
    return destination


def statistics_of(version: Path) -> Path:
    """Returns the folder of a version's statistics, whose name TensorFlow Serving ignores."""
    return version.parent / _STATISTICS / version.name


def versions(folder: Path) -> dict[int, Path]:
    """Returns the folders that TensorFlow Serving looks at, by version."""
    return {
        int(path.name): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.name.isascii() and path.name.isdecimal() and path.is_dir()
    }


def latest(folder: Path) -> Path | None:
    """Returns the highest version that holds a SavedModel; None where there is none."""
    complete = {n: path for n, path in versions(folder).items() if (path / _GRAPH).is_file()}
    return complete[max(complete)] if complete else None


def next_version(present: Iterable[int], now: Callable[[], float] = time.time) -> int:
    """Returns the time in seconds, or the next free number where the clock is behind."""
    return max([*present, int(now()) - 1]) + 1


def same(one: Path, other: Path) -> bool:
    """Returns whether two folders hold the same files, byte by byte."""
    files = [sorted(p.relative_to(root) for p in root.rglob("*")) for root in (one, other)]
    return files[0] == files[1] and all(
        filecmp.cmp(one / path, other / path, shallow=False)
        for path in files[0]
        if (one / path).is_file()
    )


def copy(source: Path, destination: Path) -> None:
    """Copies a folder atomically: its name appears only when everything is on the disk.

    Args:
        source: Folder.
        destination: New name beside other versions. What an earlier copy to this folder left when
            it was killed is removed, so only one may be under way.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    for left in destination.parent.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left)
    temporary = destination.with_name(f"{_TEMPORARY}{destination.name}")
    try:
        shutil.copytree(source, temporary)
        for path in (temporary, *temporary.rglob("*")):
            _sync(path)
        temporary.rename(destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(destination.parent)


def _sync(path: Path) -> None:
    """Makes a file, or the names in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
