"""Which component is running, told line by line while a pipeline runs."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

_STARTED = "Component %s is running."
_FINISHED = "Component %s is finished."
_CACHED = "A cached execution %d is used."
# It prints the progress of training itself, and two live displays would overwrite each other.
_SPEAKS_ITSELF = frozenset({"Trainer", "Tuner"})


class Progress(logging.Handler):
    """Prints a line for each component, from the log records of TFX's local runner and launcher.

    Attributes:
        component: The component that is running, None between two and at the ends.
        only: Components to tell of; None for all.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with no component running.

        Args:
            console: Where to print.
            clock: Seconds on a scale of its own.
        """
        super().__init__(logging.INFO)
        self.component: str | None = None
        self.only: frozenset[str] | None = None
        self._console = console
        self._clock = clock
        self._began = 0.0
        self._cached = False
        self._status: Status | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Follow the three records that mark a component's way; others pass by."""
        if record.msg == _STARTED:
            self._start(str(record.args[0]))  # type: ignore[index]
        elif record.msg == _CACHED:
            self._cached = True
        elif record.msg == _FINISHED:
            self._finish()

    def wait(self, reason: str) -> None:
        """Show a spinner, where the console is a terminal."""
        self.stop()
        if self._console.is_terminal:
            self._status = self._console.status(f"{reason} …")
            self._status.start()

    def stop(self) -> None:
        """Take the spinner away, leaving `component` as it is."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _start(self, component: str) -> None:
        self.component, self._cached, self._began = component, False, self._clock()
        if component in _SPEAKS_ITSELF and self._told():
            self.stop()
            self._console.print(f"[cyan]▸[/] {component}")
        else:
            self.wait(component)

    def _finish(self) -> None:
        self.stop()
        if self._told():
            seconds = self._clock() - self._began
            note = "cached" if self._cached else f"{seconds:.1f} s"
            self._console.print(f"[green]✓[/] {self.component} [dim]{note}[/]", highlight=False)
        self.component = None

    def _told(self) -> bool:
        return self.only is None or self.component in self.only


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """Print the progress of the pipeline run within the context."""
    progress = Progress(console)
    # TFX logs to absl's logger, whose records reach the root's handlers.
    root = logging.getLogger()
    root.addHandler(progress)
    progress.wait("loading TensorFlow and TFX")
    try:
        yield progress
    finally:
        progress.stop()
        root.removeHandler(progress)
