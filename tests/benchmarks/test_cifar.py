import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks import cifar


def archive(path, shades):
    """An archive of one grey picture for each (split, class, shade)."""
    with tarfile.open(path, "w:gz") as tar:
        for index, (split, label, shade) in enumerate(shades):
            data = io.BytesIO()
            Image.new("RGB", (32, 32), (shade,) * 3).save(data, "JPEG")
            info = tarfile.TarInfo(f"{split}/{label}/{index:04}.jpg")
            info.size = data.tell()
            data.seek(0)
            tar.addfile(info, data)
        note = tarfile.TarInfo("README.md")
        tar.addfile(note, io.BytesIO())
    return path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_decodes_pictures_beside_their_labels(temporary):
    shades = [("train", "b", 200), ("train", "a", 20), ("train", "b", 210), ("test", "a", 30)]
    data = cifar.load(archive(temporary / "x.tar.gz", shades))
    assert data.train_x.shape == (3, 32, 32, 3) and data.train_x.dtype == np.uint8
    assert data.test_y.tolist() == [0] and data.test_x.shape[0] == 1
    for picture, label in zip(data.train_x, data.train_y, strict=True):
        assert (picture.mean() > 100) == (label == 1)


def test_decodes_once_for_each_archive(temporary):
    path = archive(temporary / "x.tar.gz", [("train", "a", 20), ("test", "a", 30)])
    cifar.load(path)
    folders = set(temporary.glob("plateau-cifar10-*"))
    assert len(folders) == 1 and not list(temporary.glob(".plateau-*"))
    (folder,) = folders
    np.save(folder / "test_y.npy", np.array([7]))
    assert cifar.load(path).test_y.tolist() == [7]
    other = archive(temporary / "y.tar.gz", [("train", "a", 20), ("test", "a", 30)])
    assert cifar.load(other).test_y.tolist() == [0]


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.tar.gz.*--data"):
        cifar.load(tmp_path / "nowhere.tar.gz")
