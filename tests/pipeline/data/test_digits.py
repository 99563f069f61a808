from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import pipeline.data.digits
from components.image_example_gen.folder import scan
from pipeline.data.digits import write_digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits") / "data")


def test_every_digit_is_there_once_with_its_pixels(folder: Path) -> None:
    digits = load_digits()
    paths = sorted(folder.rglob("*.png"), key=lambda path: path.name)
    assert [int(path.stem) for path in paths] == list(range(1797))
    assert [int(path.parent.name) for path in paths] == digits.target.tolist()
    for i in (0, 1000, 1796):
        pixels = np.asarray(Image.open(paths[i]))
        assert pixels.dtype == np.uint8
        np.testing.assert_allclose(pixels / 255 * 16, digits.images[i], atol=0.05)


def test_splits_are_stratified_and_scan_reads_them(folder: Path) -> None:
    found = scan(folder)
    assert found.classes == tuple("0123456789")
    assert found.carved == ()
    assert {split: len(paths) for split, paths in found.files.items()} == {
        "train": 1078,
        "eval": 359,
        "test": 360,
    }
    for label in found.classes:
        assert 34 <= len(list((folder / "test" / label).iterdir())) <= 38


def test_splits_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    again = write_digits(tmp_path / "again")
    names = [
        sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
        for root in (folder, again)
    ]
    assert names[0] == names[1]


def test_an_existing_folder_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    assert write_digits(tmp_path) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.data.digits, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_whoever_comes_second_takes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(folder: Path) -> None:
        (folder / "second").mkdir()
        (tmp_path / "data" / "first").mkdir(parents=True)

    monkeypatch.setattr(pipeline.data.digits, "_write", overtaken)
    write_digits(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["first"]
