import shutil
from pathlib import Path

import pytest

from components.serving_pusher import versions


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def model(folder: Path, weights: str) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text("graph")
    (folder / "variables/variables.index").write_text(weights)
    return folder


def test_a_model_is_pushed_as_the_time_and_once_only(tmp_path: Path) -> None:
    source, pushed = model(tmp_path / "model", "1"), tmp_path / "pushed"
    first = versions.push(source, pushed, now=lambda: 1000.9)
    assert first == pushed / "1000"
    assert versions.same(source, first)
    assert versions.push(source, pushed, now=lambda: 2000.0) == first
    assert names(pushed) == ["1000"]


def test_versions_rise_when_the_clock_goes_back_and_within_a_second(tmp_path: Path) -> None:
    pushed = tmp_path / "pushed"
    numbers = [
        int(versions.push(model(tmp_path / f"model{i}", str(i)), pushed, now=lambda t=t: t).name)
        for i, t in enumerate((5000.0, 5000.0, 10.0, 6000.0))
    ]
    assert numbers == [5000, 5001, 5002, 6000]


def test_only_the_served_version_counts_as_pushed(tmp_path: Path) -> None:
    old, new = model(tmp_path / "old", "1"), model(tmp_path / "new", "2")
    pushed = tmp_path / "pushed"
    for source in (old, new, old):
        versions.push(source, pushed, now=lambda: 7.0)
    assert names(pushed) == ["7", "8", "9"]


def test_a_copy_that_fails_leaves_nothing_and_what_a_killed_one_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, pushed = model(tmp_path / "model", "1"), tmp_path / "pushed"
    served = versions.push(source, pushed, now=lambda: 7.0)
    other = model(tmp_path / "other", "2")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(versions.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        versions.push(other, pushed, now=lambda: 8.0)
    assert names(pushed) == [served.name]
    shutil.copytree(other, pushed / ".copying-8")
    versions.push(other, pushed, now=lambda: 9.0)
    assert names(pushed) == ["7", "9"]


def test_what_is_no_version_is_ignored(tmp_path: Path) -> None:
    pushed = tmp_path / "pushed"
    for name in ("12", "x", "٣", "1.5", ".copying-3"):
        (pushed / name).mkdir(parents=True)
    (pushed / "99").write_text("a file")
    assert set(versions.versions(pushed)) == {12}
    assert versions.versions(tmp_path / "nowhere") == {}


def test_statistics_are_kept_beside_the_version_and_not_served(tmp_path: Path) -> None:
    pushed, statistics = tmp_path / "pushed", tmp_path / "statistics"
    (statistics / "Split-train").mkdir(parents=True)
    version = versions.push(model(tmp_path / "a", "1"), pushed, statistics=statistics)
    assert versions.same(statistics, versions.statistics_of(version))
    assert list(versions.versions(pushed).values()) == [version]


def test_statistics_of_a_push_that_was_killed_are_replaced(tmp_path: Path) -> None:
    pushed, statistics = tmp_path / "pushed", tmp_path / "statistics"
    statistics.mkdir()
    left = versions.statistics_of(pushed / "1000")
    left.mkdir(parents=True)
    (left / "old").touch()
    version = versions.push(
        model(tmp_path / "a", "1"), pushed, now=lambda: 1000.0, statistics=statistics
    )
    assert names(versions.statistics_of(version)) == []


def test_the_latest_is_the_highest_version_with_a_model(tmp_path: Path) -> None:
    assert versions.latest(tmp_path / "none") is versions.latest(tmp_path) is None
    for number in ("9", "10"):
        model(tmp_path / number, number)
    (tmp_path / "11").mkdir()
    (tmp_path / "12.tmp").mkdir()
    assert versions.latest(tmp_path) == tmp_path / "10"
