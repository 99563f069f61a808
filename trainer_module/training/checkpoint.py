"""Checkpoints, written atomically, from which a run is resumed bit for bit."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer_module.distributed import strategies
from trainer_module.schedule.state import Restore
from trainer_module.training.optimizer import averages
from trainer_module.util import files
from trainer_module.util.checks import UserError, require

KEPT = 2
"""Epochs whose checkpoints stay: the latest, and one to fall back on if that one is damaged."""

KEPT_RUNS = 3
"""Runs whose checkpoints stay in a folder that many runs share."""


class OtherRunError(UserError):
    """The checkpoints in a folder are of a run with another config, model or data."""


class Snapshot(NamedTuple):
    """Values of all variables at one moment."""

    epoch: int
    """Epoch after which they were taken; 0 before the first."""

    model: tuple[npt.NDArray[Any], ...]
    """Weights, averages and seed states, in the order of `model.variables`."""

    optimizer: tuple[npt.NDArray[Any], ...]
    """Iterations, learning rate and slots, in the order of `optimizer.variables`."""

    @classmethod
    def take(
        cls, epoch: int, model: keras.Model, optimizer: keras.optimizers.Optimizer
    ) -> "Snapshot":
        """Copies the variables of a model and its optimizer."""
        return cls(
            epoch,
            tuple(np.array(v) for v in model.variables),
            tuple(np.array(v) for v in optimizer.variables),
        )

    def restore_model(self, model: keras.Model) -> None:
        """Assigns the model's variables."""
        _assign(model.variables, self.model)

    def restore_optimizer(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Assigns the optimizer's variables, learning rate and iterations included."""
        _assign(optimizer.variables, self.optimizer)

    def restore(
        self,
        what: Restore,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        start: "Snapshot | None",
    ) -> None:
        """Restores what a decision names; `start` has the slots to reset to, if it may ask."""
        if what == "none":
            return
        self.restore_model(model)
        if what == "weights_and_slots":
            self.restore_optimizer(optimizer)
        elif what == "weights_reset_slots":
            assert start is not None
            start.restore_optimizer(optimizer)
        elif of_weights := averages(optimizer):
            for average, value in zip(of_weights, model.trainable_variables, strict=True):
                average.assign(value)


@contextlib.contextmanager
def undone(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Undoes what a context does to weights, averages, random states, slots and learning rate."""
    start = Snapshot.take(0, model, optimizer)
    try:
        yield
    finally:
        start.restore_model(model)
        start.restore_optimizer(optimizer)


class Checkpoints:
    """The checkpoints of one run in one folder."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        """Opens or makes a folder; `fingerprint` is the same only for runs that may share it."""
        self.directory = directory
        self._fingerprint = hashlib.sha256(fingerprint.encode()).hexdigest()
        # Another best file of the same epoch may be a damaged one that was fallen back over.
        self._readable_best: int | None = None
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in files.temporary_files(directory):
            leftover.unlink(missing_ok=True)

    def save(self, latest: Snapshot, best: Snapshot, state: Mapping[str, Any]) -> None:
        """Writes the state after an epoch, JSON; then removes what no kept checkpoint needs."""
        best_path = self._path("best", best.epoch)
        if best.epoch != self._readable_best:
            self._write(best_path, best, {})
            self._readable_best = best.epoch
        self._write(self._path("epoch", latest.epoch), latest, {**state, "best": best.epoch})
        epochs = self._epochs()
        for epoch in epochs[:-KEPT]:
            self._path("epoch", epoch).unlink()
        needed = {best_path, *(self._best_of(epoch) for epoch in epochs[-KEPT:])}
        for path in self.directory.glob("best-*.npz"):
            if path not in needed:
                path.unlink()

    def load(self, epoch: int | None = None) -> tuple[Snapshot, Snapshot, dict[str, Any]] | None:
        """Returns latest and best variables and state of the newest readable checkpoint, or None.

        Args:
            epoch: Epoch of the checkpoint; the newest if not given.

        Raises:
            OtherRunError: The files are of a run with another config.
        """
        for saved in reversed(self._epochs()):
            if epoch not in (None, saved):
                continue
            try:
                latest, state = self._read(self._path("epoch", saved))
                best, _ = self._read(self._path("best", state.pop("best")))
            except OtherRunError:
                raise
            # Zip, NumPy and JSON show damage by nearly any error.
            except Exception:  # noqa: S112
                continue
            self._readable_best = best.epoch
            return latest, best, state
        return None

    def discard(self, after: int = -1) -> None:
        """Removes the checkpoints of later epochs, which the run is going to train again."""
        for path in self.directory.glob("*-*.npz"):
            if int(path.stem.split("-")[1]) > after:
                path.unlink()

    def _path(self, kind: str, epoch: int) -> Path:
        return self.directory / f"{kind}-{epoch:06d}.npz"

    def _epochs(self) -> list[int]:
        return sorted(int(path.stem[6:]) for path in self.directory.glob("epoch-*.npz"))

    def _best_of(self, epoch: int) -> Path | None:
        try:
            with np.load(self._path("epoch", epoch), allow_pickle=False) as arrays:
                return self._path("best", _header(arrays)["best"])
        except Exception:  # As above.
            return None

    def _write(self, path: Path, snapshot: Snapshot, state: Mapping[str, Any]) -> None:
        with files.atomic(path) as temporary, temporary.open("wb") as file:
            _save(file, snapshot, {**state, "fingerprint": self._fingerprint})
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> tuple[Snapshot, dict[str, Any]]:
        snapshot, state = _load(path)
        if state.pop("fingerprint") != self._fingerprint:
            raise OtherRunError(
                "a run is resumed only with the config, model and data it was started with",
                f"checkpoints of another run in {self.directory}",
                "Repeat the command that began it, or empty the folder to start a new run.",
            )
        return snapshot, state


def from_chief(
    latest: Snapshot,
    best: Snapshot,
    state: Mapping[str, Any],
    fingerprint: str,
    strategy: tf.distribute.Strategy,
) -> tuple[Snapshot, Snapshot, dict[str, Any]]:
    """Returns the chief's latest and best variables and its state on all workers.

    Raises:
        UserError: The workers train something else than the chief.
    """
    received = []
    for snapshot in (latest, best):
        file = io.BytesIO()
        _save(file, snapshot, {**state, "fingerprint": fingerprint})
        content = strategies.from_chief(file.getvalue(), strategy)
        received.append(_load(io.BytesIO(content)))
    (latest, state), (best, _) = received
    require(
        state.pop("fingerprint") == fingerprint,
        "all workers must train the same model with the same configuration as the chief",
        fingerprint,
        "Give all of them the same arguments.",
    )
    return latest, best, state


def claim(root: Path, name: str, kept: int = KEPT_RUNS) -> Path:
    """Returns the folder of a run below `root`, and removes all but the `kept` used last."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    # Its own stays, though a clock that was set back may make it look the oldest.
    others = [path for path in root.iterdir() if path.is_dir() and path != folder]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[kept - 1 :]:
        shutil.rmtree(path)
    return folder


def _save(file: BinaryIO, snapshot: Snapshot, state: Mapping[str, Any]) -> None:
    """Writes what `np.savez` would, which leaves its archive open where a write fails.

    Python then tries to finish the archive whenever it comes to remove it, and prints a traceback.
    """
    header = json.dumps({**state, "epoch": snapshot.epoch}).encode()
    arrays = {"header": np.frombuffer(header, np.uint8)}
    for kind in ("model", "optimizer"):
        arrays |= {f"{kind}-{i}": value for i, value in enumerate(getattr(snapshot, kind))}
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(  # type: ignore[no-untyped-call]
                    entry, values, allow_pickle=False
                )


def _load(file: Path | BinaryIO) -> tuple[Snapshot, dict[str, Any]]:
    with np.load(file, allow_pickle=False) as arrays:
        state = _header(arrays)

        def values(kind: str) -> tuple[npt.NDArray[Any], ...]:
            count = sum(name.startswith(f"{kind}-") for name in arrays.files)
            return tuple(arrays[f"{kind}-{i}"] for i in range(count))

        return Snapshot(state.pop("epoch"), values("model"), values("optimizer")), state


def _header(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(arrays["header"].tobytes())
    return header


def _assign(variables: Sequence[Any], values: Sequence[npt.NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        # A file holds bfloat16 as two bytes of no type.
        variable.assign(value.view(np.array(variable).dtype) if value.dtype.kind == "V" else value)
