"""Run the command line in a process of its own and read what it left."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import preloaded

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str
    output: Path

    @property
    def pushed(self) -> list[Path]:
        return sorted((self.output / "pushed").glob("*"), key=lambda path: int(path.name))

    def component(self, name: str) -> str:
        """Whether a component was run or cached, as the closing table says."""
        (row,) = re.findall(rf"^{name} +[\d.]+ +(\w+)", self.out, re.MULTILINE)
        return row

    def accuracy(self, who: str = "candidate") -> float:
        row = rf"^{who}(?: \([^)]*\))? +\d+ +([\d.]+)"
        return float(re.search(row, self.out, re.MULTILINE)[1])

    def files(self, component: str, output: str, split: str = "") -> list[str]:
        """Files of a component's newest output."""
        folder = self.output / "artifacts" / component / output
        newest = max(folder.iterdir(), key=lambda path: int(path.name))
        pattern = f"Split-{split}/*" if split else "**/*"
        return sorted(str(path) for path in newest.glob(pattern) if path.is_file())


def interrupt(*args: object, output: Path, after: str, number: int) -> int:
    """Run `plateau` until it prints a line with `after` in it, then send it a signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *map(str, args), "--output", str(output)],
        cwd=output.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        if after in line:
            process.send_signal(number)
            break
    process.communicate(timeout=60)
    return process.returncode


def plateau(*args: object, output: Path, sources: Path = ROOT) -> Done:
    """Run `plateau` from a source tree and keep what it printed."""
    return _done([*args, "--output", output], output, sources)


def predict(output: Path, *args: object) -> Done:
    """Run `plateau predict` on the model of an output folder."""
    return _done(["predict", output, *args], output, ROOT)


_started: set[tuple[str, object]] = set()


def _done(args: Sequence[object], output: Path, sources: Path) -> Done:
    environment = {**os.environ, "PYTHONPATH": str(sources), "COLUMNS": "160"}
    words = list(map(str, args))
    # What is imported first can matter, so a file's first run of each command is an interpreter of
    # its own.
    first = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0], args[0]
    if first in _started:
        done = preloaded.run("pipeline.cli", words, output.parent, environment)
    else:
        _started.add(first)
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *words],
            cwd=output.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
    return Done(done.returncode, done.stdout, done.stderr, output)


def records(files: list[str]) -> list[bytes]:
    import tensorflow as tf

    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())


def labels(serialized: list[bytes]) -> list[str]:
    import tensorflow as tf

    def label(record: bytes) -> str:
        feature = tf.train.Example.FromString(record).features.feature["label"]
        return feature.bytes_list.value[0].decode()

    return [label(record) for record in serialized]
