"""Log file of a run, which leaves the console free."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# Each brings a handler of its own that writes to stderr.
_TALKATIVE = ("absl", "apache_beam", "tensorflow", "py.warnings")


class _LogFile(logging.FileHandler):
    """Log file that drops the lines that a full disk has no room for.

    The run reports the full disk; a traceback on the console for every line would hide it.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Drops a line that cannot be written."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Closes the file, with or without its last lines."""
        with suppress(OSError):
            super().close()


def path_for(output: Path, now: datetime) -> Path:
    """Returns the log file of a run that starts `now`."""
    return output / "logs" / f"{now:%Y%m%d-%H%M%S}.log"


@contextmanager
def capture(path: Path, verbose: bool) -> Iterator[None]:
    """Sends Python's logs and warnings to a file, and to stderr too if `verbose`.

    Afterwards libraries are as quiet as they are on import.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    filters, showwarning = warnings.filters[:], warnings.showwarning
    handlers: list[logging.Handler] = [_LogFile(path, encoding="utf-8")]
    if verbose:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.filters[:], warnings.showwarning = filters, showwarning  # type: ignore[index]
        for logger in _talkative():
            _set_level(logger, logging.WARNING)
        root.handlers[:] = before
        root.setLevel(level)
        for handler in handlers:
            handler.close()


def silence_libraries() -> None:
    """Removes the handlers that libraries install on import; their records go to the root's."""
    from absl import logging as absl_logging

    for logger in _talkative():
        logger.handlers.clear()
        _set_level(logger, logging.INFO)
        logger.propagate = True
    root = logging.getLogger()
    root.handlers[:] = [h for h in root.handlers if h is not absl_logging.get_absl_handler()]


def _talkative() -> list[logging.Logger]:
    """Returns the loggers of libraries that are imported: absl's is of a class of its own."""
    return [
        logging.getLogger(name) for name in _TALKATIVE if name in logging.root.manager.loggerDict
    ]


def _set_level(logger: logging.Logger, level: int) -> None:
    if logger.name == "absl":
        from absl import logging as absl_logging

        # The level of absl's logger is set anew by its verbosity, as when flags are read.
        absl_logging.set_verbosity(absl_logging.converter.standard_to_absl(level))
    logger.setLevel(level)
