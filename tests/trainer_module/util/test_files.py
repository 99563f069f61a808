import errno
import os

import pytest

from trainer_module.util import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with files.atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["page.html"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_what_was_cut_off_leaves_the_file_as_it_was(tmp_path, error):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(type(error)), files.atomic(path) as temporary:
        temporary.write_text("n")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["page.html"]


def test_what_a_killed_process_left_is_told_by_its_name(tmp_path):
    path = tmp_path / "page.html"
    other = tmp_path / "other.html"
    with files.atomic(path) as temporary:
        temporary.write_text("new")
        assert files.temporary_files(tmp_path) == [temporary]
        assert str(os.getpid()) in temporary.name
        other.touch()
    assert files.temporary_files(tmp_path) == []
