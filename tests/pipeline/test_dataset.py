import dataclasses
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import dataset, presets
from pipeline.config import RunConfig


def images_run(data: Path, **changes: Any) -> RunConfig:
    return dataclasses.replace(presets.images(), data=data, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dog", "cat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "1.png")
    return tmp_path / "data"


def test_pictures_bring_classes_and_a_schema(folder: Path, tmp_path: Path) -> None:
    found = dataset.resolve(images_run(folder), tmp_path / "out")
    assert found.classes == ("cat", "dog")
    assert found.folder == folder
    assert '"cat"' in found.schema.read_text()


def test_schema_gets_another_name_with_other_content(folder: Path, tmp_path: Path) -> None:
    one = dataset.resolve(images_run(folder), tmp_path / "out").schema
    assert dataset.resolve(images_run(folder), tmp_path / "out").schema == one
    (folder / "dog").rename(folder / "wolf")
    assert dataset.resolve(images_run(folder), tmp_path / "out").schema != one


def test_order_of_classes_can_be_given(folder: Path, tmp_path: Path) -> None:
    run = images_run(folder, classes=("dog", "cat"))
    assert dataset.resolve(run, tmp_path / "out").classes == ("dog", "cat")


def test_other_classes_than_the_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="put these in order: cat, dog"):
        dataset.resolve(images_run(folder, classes=("dog", "cow")), tmp_path / "out")


def test_a_schema_of_ones_own_is_used(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.pbtxt"
    own.write_text('feature { name: "image" }\n')
    found = dataset.resolve(images_run(folder, schema=own), tmp_path / "out")
    assert found.schema.read_text() == own.read_text()
    with pytest.raises(ValueError, match="Check --schema"):
        dataset.resolve(images_run(folder, schema=tmp_path / "no.pbtxt"), tmp_path / "out")


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must exist, got '.*gone'. Check --data"):
        dataset.resolve(images_run(tmp_path / "gone"), tmp_path / "out")
    with pytest.raises(ValueError, match="--data PATH"):
        dataset.resolve(presets.images(), tmp_path / "out")


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
