"""Console progress of training: a bar over each epoch, a line for it, a line for a decision."""

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

from trainer_module.history import EpochRecord, History

# The first epoch of a process includes tracing.
_TIMED_EPOCH = 2


class ProgressWriter:
    """Prints training on a console; bars only where it is a terminal."""

    def __init__(self, console: Console, max_epochs: int) -> None:
        self._console = console
        self._max_epochs = max_epochs
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
        self._epochs = 0
        self._seconds = 0.0

    def start(self, history: History) -> None:
        """Shows the bar."""
        done = len(history.epochs)
        if done:
            self._seconds = history.epochs[-1].seconds
            self.note(f"resuming after epoch {done}")
        self.note("of loss and metrics: training/validation; * marks the best epoch so far")
        self._progress.update(self._task, epoch=done + 1)
        if self._console.is_terminal:
            self._progress.start()

    def batch(self, done: int, steps: int | None) -> None:
        """Advances the bar."""
        self._progress.update(self._task, completed=done, total=steps, doing="steps")

    def epoch(self, record: EpochRecord) -> None:
        """Prints the epoch, and the decision if there was one."""
        metrics = "  ".join(
            f"{name} {value:.4f}/{record.metrics[f'val_{name}']:.4f}"
            for name, value in record.metrics.items()
            if not name.startswith("val_")
        )
        width = len(str(self._max_epochs))
        best = " *" if record.best else ""
        self._print(
            f"    epoch {record.epoch:>{width}}  {metrics}  "
            f"lr {record.learning_rate:.3g}  batch {record.batch_size}{best}"
        )
        if record.action != "none":
            self._print(f"  [bold yellow]→[/] epoch {record.epoch}: {escape(record.reason)}")
        self._epochs += 1
        if self._epochs == _TIMED_EPOCH and record.epoch < self._max_epochs:
            seconds = record.seconds - self._seconds
            left = (self._max_epochs - record.epoch) * seconds
            self.note(
                f"about {_duration(seconds)} an epoch, {_duration(left)} to epoch "
                f"{self._max_epochs}"
            )
        self._seconds = record.seconds
        self._progress.reset(self._task, epoch=record.epoch + 1)

    def note(self, text: str) -> None:
        """Prints a line."""
        self._print(f"  [bold blue]·[/] {escape(text)}")

    def close(self, history: History) -> None:
        """Removes the bar and prints which epoch's weights are kept."""
        if self._console.is_terminal:
            self._progress.stop()
        if history.best:
            value = history.best.metrics.get(history.monitor)
            metric = "" if value is None else f" ({history.monitor} {value:.4f})"
            self.note(f"keeping the weights of epoch {history.best.epoch}{metric}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    """Returns seconds in words of two digits: "0.42 s", "3.5 min", "12 h"."""
    unit, size = next(
        (each for each in (("h", 3600), ("min", 60)) if seconds >= 1.5 * each[1]), ("s", 1)
    )
    value = seconds / size
    return f"{value:.2g} {unit}" if value < 10 else f"{value:.0f} {unit}"
