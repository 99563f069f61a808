"""Faults done to a pipeline from outside, and what must be true of its output folder afterwards."""

import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from components.serving_pusher import versions as logic
from pipeline.metadata import store
from pipeline.runners import cache
from runs import ROOT, Done, plateau

# The smallest run that is real: its gates let any model pass.
ARGS = ("run", "digits", "--max-epochs", 3, "--min-accuracy", 0, "--min-class-accuracy", 0)
STARTED = re.compile(r"Component (\w+) is running\.")
STARTING = "starting"
_PATIENCE = 300.0


class Clock:
    """A clock for a run of its own, which a test can set at any time; skips where none can be.

    Files keep the times that the true clock gives them.
    """

    def __init__(self, file: Path, offset: str) -> None:
        """Make a clock.

        Args:
            file: Where its offset is kept.
            offset: What it is ahead of the true clock, such as -2d.
        """
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            pytest.skip("setting the clock of a run needs the package faketime")
        self._file = file
        self.set(offset)
        # Python sleeps by clock_nanosleep since 3.11, which libfaketime refuses after a change.
        (file.parent / "sitecustomize.py").write_text(
            "import select, time\ntime.sleep = lambda s: select.select([], [], [], s) and None\n"
        )
        self.environment = {
            "PYTHONPATH": f"{file.parent}:{ROOT}",
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset: str) -> None:
        """Set it; a run notices within about a second."""
        new = self._file.with_suffix(".new")
        new.write_text(offset)
        new.replace(self._file)


class Run:
    """A run in a process group of its own, which a fault can hit whole."""

    def __init__(self, output: Path, *more: object, clock: Clock | None = None) -> None:
        """Start it.

        Args:
            output: Its output folder.
            more: More flags.
            clock: Its clock; the true one if not given.
        """
        output.parent.mkdir(parents=True, exist_ok=True)
        self._output = output
        self._before = frozenset(self._logs())
        args = map(str, (*ARGS, *more))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *args, "--output", str(output)],
            cwd=output.parent,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "COLUMNS": "160",
                **(clock.environment if clock else {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def begun(self) -> list[str]:
        """The components that this run has begun so far."""
        logs = [log for log in self._logs() if log not in self._before]
        return [name for log in logs for name in STARTED.findall(log.read_text(errors="replace"))]

    @property
    def over(self) -> bool:
        return self._process.poll() is not None

    def reach(self, component: str) -> bool:
        """Wait until a component begins; False if the run ends without it."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if component == STARTING or component in self.begun:
                return True
            if self.over:
                return component in self.begun
            time.sleep(0.002)
        raise TimeoutError(f"{component} did not begin within {_PATIENCE:g} s")

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self) -> Done:
        out, err = self._process.communicate(timeout=_PATIENCE)
        return Done(self._process.returncode, out, err, self._output)

    def _logs(self) -> list[Path]:
        return sorted((self._output / "logs").glob("*.log"))


def kill(output: Path, component: str, delay: float) -> str | None:
    """Start a run and kill it some seconds after a component began.

    Returns:
        The component that was hit; None if the run was over before.
    """
    run = Run(output)
    reached = run.reach(component)
    time.sleep(delay)
    if not reached or run.over:
        run.end()
        return None
    run.send(signal.SIGKILL)
    begun = run.begun
    run.end()
    return begun[-1] if begun else STARTING


def moments(seconds: Mapping[str, float], seed: int) -> Iterator[tuple[str, float]]:
    """For each component, in order, a moment within the time that it takes."""
    rng = random.Random(seed)
    for component, length in seconds.items():
        yield component, rng.uniform(0, max(length, 0.03))


def seconds_of(done: Done) -> dict[str, float]:
    """How long each component took, in the order they ran."""
    rows = re.findall(r"^(\w+) +([\d.]+) +(?:run|cached)", done.out, re.MULTILINE)
    return {name: float(seconds) for name, seconds in rows}


def weights(model: Path) -> list[tuple[tuple[int, ...], str, bytes]]:
    """A SavedModel's variables, sorted; Keras numbers them anew at each export."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(model / "variables" / "variables"))
    names = (name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name)
    values = (np.asarray(reader.get_tensor(name)) for name in names)
    return sorted((value.shape, str(value.dtype), value.tobytes()) for value in values)


def assert_same_model(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert [of[:2] for of in ours] == [of[:2] for of in theirs]
    assert ours == theirs, "the weights differ"


def assert_pushed_whole(output: Path, like: Path) -> None:
    """What is served, if anything yet, is one whole model."""
    versions = logic.versions(output / "pushed")
    assert len(versions) <= 1, versions
    for version in versions.values():
        assert _names(version) == _names(like)


def assert_consistent(output: Path, like: Path) -> None:
    """The newest run's records are complete and its artifacts hold what another run's hold."""
    with contextlib.closing(sqlite3.connect(store.file_of(output))) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    records = store.read(store.file_of(output))
    states = {e.component: e.state for e in records.runs[-1].executions}
    assert set(states.values()) <= {"complete", "cached"}, states
    assert not cache.mark_deleted(store.file_of(output))
    assert _contents(output) == _contents(like)
    assert not list((output / "pushed").glob(".copying-*"))


def _contents(output: Path) -> dict[tuple[str, str], list[str]]:
    records = store.read(store.file_of(output))
    return {
        (execution.component, key): _names(Path(artifact.uri))
        for execution in records.runs[-1].executions
        for key, artifact in execution.outputs
    }


def _names(folder: Path) -> list[str]:
    """Relative paths; times within them are masked."""
    return sorted(
        {re.sub(r"\d{9,}.*", "#", str(path.relative_to(folder))) for path in folder.rglob("*")}
    )


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a given size, or a skipped test where none can be mounted."""
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"mounting a small disk needs root: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_only(folder: Path, value: bool) -> None:
    """Let a mounted file system be read only, or written again."""
    mode = "remount,ro" if value else "remount,rw"
    subprocess.run(["mount", "-o", mode, str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Write a file until there is no room for another byte."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def fill_during(disk: Path, component: str, delay: float) -> tuple[Done, Path]:
    """Run on a disk that has no room any more some seconds after a component began.

    Returns:
        The finished run, and the file that takes the room.
    """
    run = Run(disk / "run")
    run.reach(component)
    time.sleep(delay)
    # Held meanwhile, since most components take less time than filling a disk does.
    run.send(signal.SIGSTOP)
    ballast = fill(disk)
    run.send(signal.SIGCONT)
    return run.end(), ballast


def again(output: Path) -> Done:
    """The same command, unbroken."""
    done = plateau(*ARGS, output=output)
    assert done.status == 0, done.out + done.err
    return done


def lose(output: Path, component: str, key: str, remove: Callable[[Path], None]) -> None:
    """Take away what the newest run's component wrote under a key."""
    records = store.read(store.file_of(output))
    for execution in records.runs[-1].executions:
        if execution.component == component:
            (found,) = (a for name, a in execution.outputs if name == key)
            remove(Path(found.uri))
