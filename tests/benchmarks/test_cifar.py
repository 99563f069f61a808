import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks import cifar


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 128, (4, 4, 1), dtype=np.uint8)
    file = io.BytesIO()
    # Every 8 x 8 block of a JPEG holds one grey, which it keeps.
    Image.fromarray(noise.repeat(8, 0).repeat(8, 1).repeat(3, 2)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"README.md": b"text", **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Two classes of three images each, and a file that is none."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    places = ("train/{}/0.jpg", "train/{}/1.jpg", "test/{}/0.jpg")
    files = {
        place.format(name): jpeg(10 * i + k)
        for i, name in enumerate(("cat", "dog"))
        for k, place in enumerate(places)
    }
    return write(tmp_path / "archive.tar.gz", files)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.jpg")}


def test_images_are_decoded_beside_their_labels(archive):
    data = cifar.load(archive)
    assert data.train_x.shape == (4, 32, 32, 3) and data.train_x.dtype == np.uint8
    assert sorted(data.train_y) == [0, 0, 1, 1] and sorted(data.test_y) == [0, 1]
    images = [np.asarray(Image.open(io.BytesIO(jpeg(seed)))) for seed in (2, 12)]
    for image, label in zip(data.test_x, data.test_y, strict=True):
        assert np.array_equal(image, images[label])


def test_each_archive_is_decoded_once(archive, tmp_path):
    cifar.load(archive)
    (folder,) = tmp_path.glob("plateau-cifar10-*")
    assert not list(tmp_path.glob(".plateau-*"))
    np.save(folder / "test_y.npy", np.array([7]))
    assert cifar.load(archive).test_y.tolist() == [7]
    other = write(tmp_path / "y.tar.gz", {"train/a/0.jpg": jpeg(0), "test/a/0.jpg": jpeg(1)})
    assert cifar.load(other).test_y.tolist() == [0]


def test_each_class_has_its_share_and_no_image_comes_twice(archive, tmp_path):
    folders = cifar.write_folders(archive, tmp_path / "out", (4, 20))
    images = contents(folders[20])
    assert len(images) == 20
    assert sum(name.startswith("cat/") for name in images) == 10
    assert len(set(images.values())) == 20
    assert images["cat/000000.jpg"] == jpeg(0), "the archive's own come first, as they are"
    assert images["dog/000002.jpg"] == jpeg(12)


def test_a_smaller_folder_is_the_beginning_of_the_larger(archive, tmp_path):
    folders = cifar.write_folders(archive, tmp_path / "out", (20, 4))
    few, many = contents(folders[4]), contents(folders[20])
    assert set(few) == {f"{name}/00000{i}.jpg" for name in ("cat", "dog") for i in (0, 1)}
    assert few.items() <= many.items()


def test_odd_variations_are_mirrored_and_all_are_brighter():
    shades = [
        np.asarray(Image.open(io.BytesIO(content)), float)
        for content in (jpeg(0), *(cifar.variation(jpeg(0), n) for n in (1, 2)))
    ]
    assert np.abs(shades[1] - shades[0][:, ::-1] * 1.1).mean() < 4
    assert np.abs(shades[2] - shades[0] * 1.2).mean() < 4


def test_sizes_that_cannot_be_shared_are_refused(archive, tmp_path):
    with pytest.raises(ValueError, match="multiples of the 2 classes, got 3"):
        cifar.write_folders(archive, tmp_path / "out", (3, 20))


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.tar.gz.*--data"):
        cifar.load(tmp_path / "nowhere.tar.gz")
