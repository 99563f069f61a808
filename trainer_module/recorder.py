"""Keras callback that records a run of `fit` as a training history."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from trainer_module import history
from trainer_module.history import EpochRecord, History
from trainer_module.training.optimizer import training_spec
from trainer_module.util.checks import require


class HistoryRecorder(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Writes `history.jsonl` after each epoch of `fit`, for TrainingReport.

    It changes nothing about the training. In a `run_fn` of TFX's Trainer:

        recorder = HistoryRecorder(fn_args.model_run_dir, batch_size=20)
        model.fit(..., callbacks=[recorder])

    Attributes:
        history: The record of the run so far.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        batch_size: int,
        monitor: str = "val_loss",
        mode: str = "min",
    ) -> None:
        """Construct the callback.

        Args:
            directory: Local folder to write to.
            batch_size: Global batch size of the data set, in examples.
            monitor: Metric whose best epoch is marked.
            mode: Whether less (min) or more (max) of it is better.

        Raises:
            ValueError: An argument is out of its range.
        """
        super().__init__()
        require(batch_size > 0, "`batch_size` must be above 0", batch_size, "Try `batch_size=32`.")
        require(mode in ("min", "max"), "`mode` must be min or max", mode, "Try `mode=min`.")
        require(
            "://" not in str(directory),
            "`directory` must be a local folder",
            str(directory),
            "Record to a local folder and copy history.jsonl from there.",
        )
        self._path = Path(directory) / history.FILE_NAME
        self._batch_size = batch_size
        self._sign = 1 if mode == "max" else -1
        self.history = History({"batch_size": batch_size}, monitor, mode)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Starts a new record."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._begin, self._updates = time.monotonic(), int(self.model.optimizer.iterations.numpy())
        self._write((), "")

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Notes the learning rate, which other callbacks change at the end of an epoch."""
        # It is a variable of a strategy, or a schedule's tensor.
        self._rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Records the epoch.

        Raises:
            ValueError: The monitored metric is none of this epoch's.
        """
        monitor = self.history.monitor
        values = history.measured(logs, monitor)
        past = self.history.epochs
        best = max((self._sign * e.metrics[monitor] for e in past), default=-math.inf)
        optimizer = self.model.optimizer
        before = past[-1].updates if past else 0
        updates = int(optimizer.iterations.numpy()) - self._updates - before
        record = EpochRecord.after(
            past[-1] if past else None,
            training_spec(optimizer, max(updates, 1) * self._batch_size),
            metrics=values,
            learning_rate=self._rate,
            batch_size=self._batch_size,
            updates=updates,
            examples=updates * self._batch_size,
            seconds=time.monotonic() - self._begin,
            best=self._sign * values[monitor] > best,
        )
        self._write((*past, record), "")

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Completes the record."""
        epochs = self.history.epochs
        self._write(epochs, f"fit ended after {len(epochs)} epochs")

    def _write(self, epochs: Sequence[EpochRecord], stop_reason: str) -> None:
        self.history = replace(self.history, epochs=epochs, stop_reason=stop_reason)
        history.write(self.history, self._path)
