from pathlib import Path

from components.latest_blessed import version as logic


def version(folder: Path, number: int, whole: bool = True) -> Path:
    path = folder / str(number)
    path.mkdir(parents=True)
    if whole:
        (path / "saved_model.pb").write_text("graph")
    return path


def test_nothing_is_found_before_the_first_push(tmp_path: Path) -> None:
    assert logic.newest(tmp_path / "none") == logic.Found()
    assert logic.newest(tmp_path) == logic.Found()


def test_the_highest_whole_version_is_found(tmp_path: Path) -> None:
    version(tmp_path, 9)
    newest = version(tmp_path, 10)
    version(tmp_path, 11, whole=False)
    (tmp_path / "12.tmp").mkdir()
    assert logic.newest(tmp_path) == logic.Found(newest)


def test_statistics_are_those_of_the_version(tmp_path: Path) -> None:
    newest = version(tmp_path, 10)
    for number in ("9", "10"):
        (tmp_path / ".statistics" / number).mkdir(parents=True)
    assert logic.newest(tmp_path) == logic.Found(newest, tmp_path / ".statistics" / "10")
