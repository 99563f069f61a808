"""What a person sees of training: a bar over each epoch, a line for it, a line a decision."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trainer_module.history import EpochRecord, History


class ProgressWriter:
    """Shows the run on a console; bars only where it is a terminal."""

    def __init__(self, console: Console, max_epochs: int) -> None:
        self._console = console
        self._max_epochs = max_epochs
        self._progress = Progress(
            TextColumn("    epoch {task.fields[epoch]}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", epoch=1, total=None)

    def start(self, history: History) -> None:
        """Show the bar."""
        done = len(history.epochs)
        if done:
            self.note(f"going on after epoch {done}")
        self.note("of loss and metrics: training/validation; * marks the best epoch so far")
        self._progress.update(self._task, epoch=done + 1)
        if self._console.is_terminal:
            self._progress.start()

    def batch(self, done: int, steps: int | None) -> None:
        """Advance the bar."""
        self._progress.update(self._task, completed=done, total=steps)

    def epoch(self, record: EpochRecord) -> None:
        """Print the epoch, and the decision if there was one."""
        metrics = "  ".join(
            f"{name} {value:.4f}/{record.metrics[f'val_{name}']:.4f}"
            for name, value in record.metrics.items()
            if not name.startswith("val_")
        )
        width = len(str(self._max_epochs))
        best = " *" if record.best else ""
        self._console.print(
            f"    epoch {record.epoch:>{width}}  {metrics}  "
            f"lr {record.learning_rate:.3g}  batch {record.batch_size}{best}",
            highlight=False,
            soft_wrap=True,
        )
        if record.action != "none":
            self._console.print(
                f"  [bold yellow]→[/] epoch {record.epoch}: {escape(record.reason)}",
                highlight=False,
                soft_wrap=True,
            )
        self._progress.reset(self._task, epoch=record.epoch + 1)

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(f"  [bold blue]·[/] {escape(text)}", highlight=False, soft_wrap=True)

    def close(self, history: History) -> None:
        """Take the bar away and say which epoch's weights are kept."""
        if self._console.is_terminal:
            self._progress.stop()
        if history.best:
            value = history.best.metrics.get(history.monitor)
            shown = "" if value is None else f" ({history.monitor} {value:.4f})"
            self.note(f"keeping the weights of epoch {history.best.epoch}{shown}")
