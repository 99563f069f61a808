import logging
import warnings
from datetime import datetime
from pathlib import Path

import pytest
from absl import logging as absl_logging

from pipeline.runners import logs


def test_logs_and_warnings_go_to_the_file_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logs.path_for(tmp_path, datetime(2026, 1, 2, 3, 4, 5))
    assert path == tmp_path / "logs" / "20260102-030405.log"
    with logs.capture(path, verbose=False):
        logging.getLogger("tensorflow").addHandler(logging.StreamHandler())
        logs.silence_libraries()
        logging.getLogger("tensorflow").warning("from tensorflow")
        absl_logging.info("from absl")
        with warnings.catch_warnings():  # pytest is told to ignore them
            warnings.simplefilter("always")
            warnings.warn("from warnings", UserWarning, stacklevel=1)
    text = path.read_text()
    for source in ("tensorflow", "absl", "warnings"):
        assert f"from {source}" in text
    absl_logging.info("after it")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_verbose_shows_the_same_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.log"
    with logs.capture(path, verbose=True):
        logging.getLogger("x").info("seen")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == path.read_text() != ""


def test_logging_is_as_before_afterwards(tmp_path: Path) -> None:
    root, absl = logging.getLogger(), absl_logging.get_absl_logger()
    before, level, show = root.handlers[:], root.level, warnings.showwarning
    with pytest.raises(KeyError), logs.capture(tmp_path / "run.log", verbose=True):
        logs.silence_libraries()
        # As absl does when flags are read.
        absl_logging.set_verbosity(absl_logging.get_verbosity())
        assert absl.isEnabledFor(logging.INFO)
        raise KeyError
    assert not absl.isEnabledFor(logging.INFO)
    assert (root.handlers, root.level, warnings.showwarning) == (before, level, show)


def test_a_full_disk_takes_the_log_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.capture(Path("/dev/full"), verbose=False):
        logging.getLogger("x").info("no room for this")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
