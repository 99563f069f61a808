"""Console progress of a pipeline run: a line for each component."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

STEPS = "The pipeline has %d components."
"""Log record from which the total of "step 3 of 14" is read."""

_STARTED = "Component %s is running."
_FINISHED = "Component %s is finished."
_CACHED = "A cached execution %d is used."
# The Trainer has a progress bar of its own, and two live displays would overwrite each other.
_HAVE_BARS = frozenset({"Trainer", "Tuner"})


class Progress(logging.Handler):
    """Prints a line for each component, from the log records of TFX's local runner and launcher.

    Attributes:
        component: Component that is running; None between two and at the ends.
        only: Components to print; None for all.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with no component running.

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
        self._step = self._steps = 0
        self._status: Status | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Follows the records that mark a component's progress."""
        if record.msg == STEPS:
            self._step, self._steps = 0, int(record.args[0])  # type: ignore[index,arg-type]
        elif record.msg == _STARTED:
            self._start(str(record.args[0]))  # type: ignore[index]
        elif record.msg == _CACHED:
            self._cached = True
        elif record.msg == _FINISHED:
            self._finish()

    def wait(self, reason: str) -> None:
        """Shows a spinner, where the console is a terminal."""
        self.stop()
        if self._console.is_terminal:
            self._status = self._console.status(f"{reason} …")
            self._status.start()

    def stop(self) -> None:
        """Removes the spinner; `component` stays as it is."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _start(self, component: str) -> None:
        self.component, self._cached, self._began = component, False, self._clock()
        self._step += 1
        if component in _HAVE_BARS and self._is_printed():
            self.stop()
            self._console.print(f"[cyan]▸[/] {component}[dim]{self._place()}[/]", highlight=False)
        else:
            self.wait(f"{component}{self._place()}")

    def _finish(self) -> None:
        self.stop()
        if self._is_printed():
            note = "cached" if self._cached else f"{self._clock() - self._began:.1f} s"
            line = f"[green]✓[/] {self.component} [dim]{note}{self._place()}[/]"
            self._console.print(line, highlight=False)
        self.component = None

    def _place(self) -> str:
        # A comparison runs parts of the pipeline again and again.
        return f", step {self._step} of {self._steps}" if self._steps and self.only is None else ""

    def _is_printed(self) -> bool:
        return self.only is None or self.component in self.only


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """Prints the progress of the pipeline run within the context."""
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
