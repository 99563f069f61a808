import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.image_example_gen.split import key_of, split_of
from pipeline import presets
from pipeline.config import RunConfig
from pipeline.data import dataset
from trainer_module.config import LoopConfig


def images_run(data: Path, **changes: Any) -> RunConfig:
    small = LoopConfig(batch_size=2)
    return dataclasses.replace(presets.images(), data=data, loop=small, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dog", "cat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "1.png")
    return tmp_path / "data"


def test_images_bring_classes_and_a_schema(folder: Path, tmp_path: Path) -> None:
    found = dataset.resolve(images_run(folder), tmp_path / "out")
    assert found.classes == ("cat", "dog")
    assert found.folder == folder
    assert '"cat"' in found.schema


def test_order_of_classes_can_be_given(folder: Path, tmp_path: Path) -> None:
    run = images_run(folder, classes=("dog", "cat"))
    assert dataset.resolve(run, tmp_path / "out").classes == ("dog", "cat")


def test_other_classes_than_the_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="put these in order: cat, dog"):
        dataset.resolve(images_run(folder, classes=("dog", "cow")), tmp_path / "out")


def test_a_schema_of_ones_own_is_used(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.pbtxt"
    own.write_text("".join(f'feature {{ name: "{n}" }}\n' for n in ("image", "label", "file_name")))
    found = dataset.resolve(images_run(folder, schema=own), tmp_path / "out")
    assert found.schema == own.read_text()
    with pytest.raises(ValueError, match="`schema` must be a"):
        dataset.resolve(images_run(folder, schema=tmp_path / "no.pbtxt"), tmp_path / "out")


def test_class_folders_outside_the_schema_are_refused(folder: Path, tmp_path: Path) -> None:
    run = images_run(folder, data_set="cifar10")
    (folder / "dog").rename(folder / "eel")
    with pytest.raises(ValueError, match=r"labels of the schema cifar10\.pbtxt .*got \['eel'\]"):
        dataset.resolve(run, tmp_path / "out")
    (folder / "eel").rename(folder / "horse")
    assert dataset.resolve(run, tmp_path / "out").classes == ("cat", "horse")


def test_size_of_given_splits_is_exact(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "eval", "test"):
        shutil.copytree(folder, tmp_path / "split" / split)
    Image.new("RGB", (8, 8)).save(tmp_path / "split" / "train" / "cat" / "2.png")
    size = dataset.training_size(images_run(tmp_path / "split"))
    assert (size.count, size.most, str(size)) == (3, 3, "3")


def test_size_of_drawn_splits_is_an_expectation(tmp_path: Path) -> None:
    """Against what ImageExampleGen would do with the same images."""
    data = tmp_path / "data"
    for name in ("cat", "dog"):
        (data / name).mkdir(parents=True)
        for i in range(500):
            (data / name / f"{i}.png").write_bytes(f"{name} {i}".encode())
    size = dataset.training_size(images_run(data))
    assert (size.count, size.most, str(size)) == (800, 1000, "about 800")
    keys = [key_of(path.read_bytes(), path.name, None) for path in data.rglob("*.png")]
    train = [split_of(key, ("eval", "test")) for key in keys].count("train")
    assert abs(train - size.count) < 4 * (1000 * 0.8 * 0.2) ** 0.5


def test_size_is_that_of_the_run(tmp_path: Path) -> None:
    for preset in (presets.digits(), presets.taxi()):
        told = dataset.training_size(preset)
        found = dataset.resolve(preset, tmp_path).size
        assert (told.count, told.most) == (found.count, found.most)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    digits = presets.digits()
    for batch, fits in ((1078, True), (1079, False)):
        run = dataclasses.replace(digits, loop=dataclasses.replace(digits.loop, batch_size=batch))
        with contextlib.nullcontext() if fits else pytest.raises(ValueError, match=r"\(1078\)"):
            dataset.resolve(run, tmp_path)


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`data` must exist, got '.*gone'"):
        dataset.resolve(images_run(tmp_path / "gone"), tmp_path / "out")
    with pytest.raises(ValueError, match="Try `data=PATH`"):
        dataset.resolve(presets.images(), tmp_path / "out")
    (tmp_path / "loop").symlink_to("loop")
    for place in (tmp_path / "loop", Path("~nobody-by-this-name"), Path("x" * 5000)):
        with pytest.raises(ValueError, match="`data` must exist, got"):
            dataset.resolve(images_run(place), tmp_path / "out")


def test_digits_are_made_under_the_output_folder(tmp_path: Path) -> None:
    found = dataset.resolve(presets.digits(), tmp_path)
    assert found.classes == tuple("0123456789")
    assert found.folder.is_relative_to(tmp_path)


def test_taxi_comes_with_tfx_and_follows_its_schema(tmp_path: Path) -> None:
    found = dataset.resolve(presets.taxi(), tmp_path)
    assert (found.folder / "data.csv").is_file()
    assert found.classes == ("small_tip", "big_tip")


def test_a_table_that_breaks_its_schema_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "trips.csv").write_text("fare,tips\n1.0,0.5\n")
    with pytest.raises(ValueError, match=r"trips\.csv"):
        dataset.resolve(dataclasses.replace(presets.taxi(), data=data), tmp_path / "out")


def test_groups_are_looked_for_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    assert dataset.resolve(images_run(folder, group_by=r"/(\d)"), tmp_path / "out").classes
    with pytest.raises(ValueError, match=r"does in 0 of 2, got .*'cat/1\.png', 'dog/1\.png'"):
        dataset.resolve(images_run(folder, group_by="nobody"), tmp_path / "out")
