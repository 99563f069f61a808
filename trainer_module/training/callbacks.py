"""Callbacks of `train`: progress on a console, TensorBoard, and the history as a file."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from trainer_module import history as histories
from trainer_module.history import EpochRecord, History

# The first epoch of a process includes tracing.
_TIMED_EPOCH = 2
_TIMED_SECONDS = 5.0


class Callback:
    """Base class of callbacks: each method does nothing unless it is overridden."""

    def on_train_begin(self, history: History) -> None:
        """Called when the run starts, or resumes after the epochs in `history`."""

    def on_train_batch_end(self, step: int, steps: int | None) -> None:
        """Called after each call of the training function.

        Args:
            step: Steps done in this epoch.
            steps: Steps in an epoch; None if not known.
        """

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Called after an epoch, its evaluation, its decision and its checkpoint."""

    def on_message(self, text: str) -> None:
        """Called with what a person should know, such as a smaller micro-batch."""

    def on_train_end(self, history: History) -> None:
        """Called when the run is over."""


class TensorBoard(Callback):
    """Writes a point an epoch for each scalar, and each decision as text."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: Any = None

    def on_train_begin(self, history: History) -> None:
        """Opens the event file."""
        self._writer = tf.summary.create_file_writer(str(self._directory))

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Writes the scalars of an epoch."""
        names = ("learning_rate", "batch_size", "update_noise", "updates", "simple_noise_scale")
        scalars = {**record.metrics, **{name: getattr(record, name) for name in names}}
        with self._writer.as_default(step=record.epoch):
            for name, value in scalars.items():
                if value is not None:
                    tf.summary.scalar(f"plateau/{name}", value)
            if record.action != "none":
                tf.summary.text("plateau/decision", record.reason)

    def on_train_end(self, history: History) -> None:
        """Closes the event file."""
        self._writer.close()


class HistoryFile(Callback):
    """Writes the history as a file when the run is over; checkpoints hold it until then."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_end(self, history: History) -> None:
        """Writes the file."""
        histories.write(history, self._path)


class _Calls:
    """Time and steps of calls, without the first and the longest, which may include tracing."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        self._last: tuple[float, int] | None = None
        self._longest = (0.0, 0)

    def add(self, now: float, step: int) -> None:
        """Counts a call that has ended `now`, after `step` steps."""
        if self._last is not None:
            call = now - self._last[0], step - self._last[1]
            shorter, self._longest = sorted((self._longest, call))
            self.seconds += shorter[0]
            self.steps += shorter[1]
        self._last = now, step


class ConsoleProgress(Callback):
    """Prints a line for each epoch and each decision, with a progress bar in a terminal."""

    def __init__(
        self,
        console: Console,
        max_epochs: int,
        time_budget: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what ends the run at the latest.

        Args:
            console: Where to print.
            max_epochs: Last epoch of the run.
            time_budget: Seconds of training after which no epoch begins; None for no bound.
            clock: Seconds, monotonic.
        """
        self._console = console
        self._max_epochs = max_epochs
        self._time_budget = time_budget
        self._clock = clock
        self._progress = Progress(
            TextColumn("    epoch {task.fields[epoch]}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[doing]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", epoch=1, total=None, doing="compiling")
        # Of this process.
        self._epochs = 0
        # Of the run, at the end of the last epoch.
        self._epoch, self._seconds = 0, 0.0
        self._calls = _Calls()
        self._is_timed = False

    def on_train_begin(self, history: History) -> None:
        """Shows the bar."""
        if history.epochs:
            self._epoch, self._seconds = len(history.epochs), history.epochs[-1].seconds
            self.on_message(f"resuming after epoch {len(history.epochs)}")
        self.on_message("of loss and metrics: training/validation; * marks the best epoch so far")
        self._progress.update(self._task, epoch=len(history.epochs) + 1)
        if self._console.is_terminal:
            self._progress.start()

    def on_train_batch_end(self, step: int, steps: int | None) -> None:
        """Advances the bar, and prints an estimate in a long first epoch."""
        self._progress.update(self._task, completed=step, total=steps, doing="steps")
        if self._is_timed or self._epochs or steps is None:
            return
        self._calls.add(self._clock(), step)
        if self._calls.seconds >= _TIMED_SECONDS:
            self._is_timed = True
            self._estimate(self._calls.seconds / self._calls.steps * steps, "of training ")

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Prints the epoch, and the decision if there was one."""
        metrics = "  ".join(
            f"{name} {value:.4f}/{record.metrics[f'val_{name}']:.4f}"
            for name, value in record.metrics.items()
            if not name.startswith("val_")
        )
        best = " *" if record.best else ""
        self._print(
            f"    epoch {record.epoch:>{len(str(self._max_epochs))}}  {metrics}  "
            f"lr {record.learning_rate:.3g}  batch {record.batch_size}{best}"
        )
        if record.action != "none":
            self._print(f"  [bold yellow]→[/] epoch {record.epoch}: {escape(record.reason)}")
        self._epochs += 1
        seconds = record.seconds - self._seconds
        self._epoch, self._seconds = record.epoch, record.seconds
        if self._epochs == _TIMED_EPOCH and record.epoch < self._max_epochs:
            self._estimate(seconds)
        self._progress.reset(self._task, epoch=record.epoch + 1, doing="steps")

    def on_message(self, text: str) -> None:
        """Prints a line."""
        self._print(f"  [bold blue]·[/] {escape(text)}")

    def on_train_end(self, history: History) -> None:
        """Removes the bar and prints which epoch's weights are kept."""
        if self._console.is_terminal:
            self._progress.stop()
        if history.best:
            value = history.best.metrics.get(history.monitor)
            value_text = "" if value is None else f" ({history.monitor} {value:.4f})"
            self.on_message(f"keeping the weights of epoch {history.best.epoch}{value_text}")

    def _estimate(self, seconds: float, of: str = "") -> None:
        """Prints how long an epoch takes, and what is left of the run at most."""
        left = (self._max_epochs - self._epoch) * seconds
        end = f"{_duration(left)} to epoch {self._max_epochs}"
        if self._time_budget is not None and self._time_budget - self._seconds < left:
            end = f"until the time budget of {self._time_budget:g} s is used up"
        self.on_message(f"about {_duration(seconds)} {of}an epoch, {end}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    """Returns seconds in words of two digits: "0.42 s", "3.5 min", "12 h"."""
    unit, size = next(
        (each for each in (("h", 3600), ("min", 60)) if seconds >= 1.5 * each[1]), ("s", 1)
    )
    value = seconds / size
    return f"{value:.2g} {unit}" if value < 10 else f"{value:.0f} {unit}"


class Callbacks:
    """Several callbacks, notified one after the other."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def notify(self, method: str, *values: Any) -> None:
        """Calls a method of each callback, such as on_message."""
        for callback in self._callbacks:
            getattr(callback, method)(*values)
