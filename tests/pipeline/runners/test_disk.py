import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.runners import disk


def write_to_a_full_disk() -> None:
    # A device of Linux that is always full.
    with Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")


def wrapped() -> None:
    try:
        write_to_a_full_disk()
    except OSError as error:
        raise RuntimeError("the component failed") from error


def raises(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    "call",
    [
        write_to_a_full_disk,
        wrapped,
        raises(OSError(errno.EDQUOT, "Disk quota exceeded")),
        raises(RuntimeError("OSError: [Errno 28] No space left on device [while running 'Write']")),
        raises(OSError("8192 requested and 0 written")),
    ],
)
def test_a_full_disk_is_told_with_place_and_remedy(
    call: Callable[[], None], tmp_path: Path
) -> None:
    with pytest.raises(Exception) as caught:
        call()
    found = disk.full(caught.value, tmp_path)
    assert found is not None
    assert f"the disk of {tmp_path} is full" in str(found)
    assert "Make room" in str(found)
    assert str(caught.value).splitlines()[0] in str(found)


def test_of_a_query_only_its_error_is_repeated(tmp_path: Path) -> None:
    said = 'Cannot create node name: "a"Error when executing query: database or disk is full query:'
    found = disk.full(RuntimeError(f"{said} INSERT INTO `Context`"), tmp_path)
    assert found is not None
    assert f"{tmp_path} is full, got 'database or disk is full'. Make room" in str(found)


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    assert disk.full(FileNotFoundError(errno.ENOENT, "No such file"), tmp_path) is None
    assert disk.full(RuntimeError("shapes do not match"), tmp_path / "not" / "there") is None


def test_within_the_context_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(disk.DiskFullError, match="Make room"), disk.named(tmp_path):
        write_to_a_full_disk()
    with pytest.raises(FileNotFoundError), disk.named(tmp_path):
        (tmp_path / "none").read_text()
