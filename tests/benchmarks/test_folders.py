import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks import folders


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 128, (4, 4, 1), dtype=np.uint8)
    file = io.BytesIO()
    # Every 8 x 8 block of a JPEG holds one grey, which it keeps.
    Image.fromarray(noise.repeat(8, 0).repeat(8, 1).repeat(3, 2)).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def archive(tmp_path):
    """Two classes of three pictures each, and a file that is none."""
    path = tmp_path / "archive.tar.gz"
    files = {"README.md": b"text"}
    for i, name in enumerate(("cat", "dog")):
        files[f"train/{name}/0.jpg"] = picture(10 * i)
        files[f"train/{name}/1.jpg"] = picture(10 * i + 1)
        files[f"test/{name}/0.jpg"] = picture(10 * i + 2)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.jpg")}


def test_each_class_has_its_share_and_no_picture_comes_twice(archive, tmp_path):
    made = folders.write(archive, tmp_path / "out", (4, 20))
    found = contents(made[20])
    assert len(found) == 20
    assert sum(name.startswith("cat/") for name in found) == 10
    assert len(set(found.values())) == 20
    assert found["cat/000000.jpg"] == picture(0), "the archive's own come first, as they are"
    assert found["dog/000002.jpg"] == picture(12)


def test_a_smaller_folder_is_the_beginning_of_the_larger(archive, tmp_path):
    made = folders.write(archive, tmp_path / "out", (20, 4))
    few, many = contents(made[4]), contents(made[20])
    assert set(few) == {f"{name}/00000{i}.jpg" for name in ("cat", "dog") for i in (0, 1)}
    assert few.items() <= many.items()


def test_odd_variations_are_mirrored_and_all_are_brighter():
    shades = [
        np.asarray(Image.open(io.BytesIO(content)), float)
        for content in (picture(0), *(folders.variation(picture(0), n) for n in (1, 2)))
    ]
    assert np.abs(shades[1] - shades[0][:, ::-1] * 1.1).mean() < 4
    assert np.abs(shades[2] - shades[0] * 1.2).mean() < 4


def test_sizes_that_cannot_be_shared_are_refused(archive, tmp_path):
    with pytest.raises(ValueError, match="multiples of the 2 classes, got 3"):
        folders.write(archive, tmp_path / "out", (3, 20))


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"got .*none\.tar\.gz.*--data"):
        folders.write(tmp_path / "none.tar.gz", tmp_path, (10,))
