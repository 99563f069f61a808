import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfx.proto import example_gen_pb2
from tfx.types import Artifact, standard_artifacts

import schemas
from components.image_example_gen import folder
from components.image_example_gen.executor import Executor
from components.image_example_gen.shard import WriteShard, hand_out
from components.image_example_gen.split import key_of, split_of
from trainer_module.util.checks import UserError

pytestmark = pytest.mark.component


def paint(path: Path, seed: int, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> bytes:
    """An image no other seed gives, as it lies in its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path.read_bytes()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three splits, two classes, four images for each."""
    root = tmp_path / "data"
    seeds = iter(range(1000))
    for split in folder.SPLITS:
        for label in ("a", "b"):
            for i in range(4):
                paint(root / split / label / f"{i}.png", next(seeds))
    return root


def ingest(
    data: Path, out: Path, on_bad_image: str = "fail", group_by: str | None = None
) -> Artifact:
    artifact = standard_artifacts.Examples()
    artifact.uri = str(out)
    properties = {
        "input_base": str(data),
        "on_bad_image": on_bad_image,
        "group_by": group_by,
        "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        "output_file_format": example_gen_pb2.FORMAT_TFRECORDS_GZIP,
    }
    Executor().Do({}, {"examples": [artifact]}, properties)
    return artifact


def read(out: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Feature values by split."""
    found = {}
    for split in sorted(out.glob("Split-*")):
        files = sorted(map(str, split.iterdir()))
        records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
        features = [tf.train.Example.FromString(r).features.feature for r in records]
        found[split.name.removeprefix("Split-")] = [
            {name: value.bytes_list.value[0] for name, value in f.items()} for f in features
        ]
    return found


def test_every_image_arrives_in_its_split(data: Path, tmp_path: Path) -> None:
    artifact = ingest(data, tmp_path / "out")
    assert artifact.split_names == '["train", "eval", "test"]'
    assert artifact.get_int_custom_property("bad_images") == 0
    assert artifact.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
    assert artifact.get_string_custom_property("file_format") == "tfrecords_gzip"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "Split-eval",
        "Split-test",
        "Split-train",
    ]
    for split, examples in read(tmp_path / "out").items():
        names = {e[schemas.FILE_NAME].decode() for e in examples}
        assert names == {f"{split}/{label}/{i}.png" for label in "ab" for i in range(4)}
        for example in examples:
            path = example[schemas.FILE_NAME].decode()
            assert example[schemas.IMAGE] == (data / path).read_bytes()
            assert example[schemas.LABEL].decode() == path.split("/")[1]


def test_equal_folders_give_equal_files(data: Path, tmp_path: Path) -> None:
    def digests(out: Path) -> dict[str, str]:
        ingest(data, out)
        return {
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in out.rglob("*.gz")
        }

    first = digests(tmp_path / "one")
    assert len(first) == 3
    assert first == digests(tmp_path / "two")


def test_missing_splits_are_drawn_by_content(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for i in range(60):
        content = paint(data / "ab"[i % 2] / f"{i}.png", i)
        (data / "ab"[i % 2] / f"{i} copy.png").write_bytes(content)
    ingest(data, tmp_path / "out")
    found = read(tmp_path / "out")
    assert sum(map(len, found.values())) == 120
    images = {split: {e[schemas.IMAGE] for e in examples} for split, examples in found.items()}
    assert sum(map(len, images.values())) == 60, "an image and its copy lie on one side"
    for split in ("eval", "test"):
        assert 1 <= len(images[split]) <= 15


def paint_in(split: str, path: Path, seeds: Iterator[int]) -> None:
    """The next image that the hash gives to a split."""
    for seed in seeds:
        key = key_of(paint(path, seed), "", None)
        if split_of(key, ("eval", "test")) == split:
            return


def paths_of(examples: list[Mapping[str, Any]]) -> set[str]:
    return {example[schemas.FILE_NAME].decode() for example in examples}


@pytest.mark.parametrize("shard_size", [4, 100])
def test_no_class_goes_without_a_image_in_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_size: int
) -> None:
    """Nor does one of ten without any in eval or test."""
    monkeypatch.setattr("components.image_example_gen.executor.SHARD_SIZE", shard_size)
    data, seeds = tmp_path / "data", iter(range(10_000))
    for i in range(3):
        paint_in("test", data / f"few/{i}.png", seeds)
    for i in range(10):
        paint_in("train", data / f"many/{i}.png", seeds)
    for out in ("one", "two"):
        ingest(data, tmp_path / out)
    found = {split: paths_of(examples) for split, examples in read(tmp_path / "one").items()}
    assert sum(map(len, found.values())) == len(set().union(*found.values())) == 13
    assert len({path for path in found["train"] if path.startswith("few")}) == 1
    for split in ("eval", "test"):
        assert len({path for path in found[split] if path.startswith("many")}) == 1
    assert found == {split: paths_of(e) for split, e in read(tmp_path / "two").items()}


def test_a_image_left_out_is_none_to_train_on(tmp_path: Path) -> None:
    data, seeds = tmp_path / "data", iter(range(10_000))
    for i in range(2):
        paint_in("test", data / f"few/{i}.png", seeds)
    (data / "few/bad.png").write_bytes(b"\x89PNG, and no more")
    for i in range(10):
        paint(data / f"many/{i}.png", next(seeds))
    ingest(data, tmp_path / "out", "skip")
    found = read(tmp_path / "out")
    assert len([p for p in paths_of(found["train"]) if p.startswith("few")]) == 1
    assert sum(map(len, found.values())) == 12


def test_the_images_of_a_group_lie_in_one_split(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for i in range(120):
        paint(data / "ab"[i % 2] / f"p{i // 6}_{i}.png", i)
    ingest(data, tmp_path / "out", group_by=r"/(p\d+)_")
    groups = {
        split: {path.split("/")[1].split("_")[0] for path in paths_of(examples)}
        for split, examples in read(tmp_path / "out").items()
    }
    assert all(groups.values())
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 20
    with pytest.raises(UserError, match="`group_by` must match in the path of each"):
        ingest(data, tmp_path / "other", group_by="nobody")


def test_what_the_model_does_not_take_is_converted_and_some_files_are_handed_on(
    data: Path, tmp_path: Path
) -> None:
    paint(data / "train/a/grey.JPG", 100, (30, 2), "L")
    for i in range(4):
        paint(data / f"train/a/moving{i}.gif", 110 + i, (8 + i, 8), "P")
    paint(data / "test/b/scan.tiff", 102, (1, 40))
    bitmap = paint(data / "train/b/käfer 1.bmp", 103, (1, 40))
    artifact = ingest(data, tmp_path / "out")
    assert artifact.get_int_custom_property("converted_images") == 5
    found = read(tmp_path / "out")
    stored = {e[schemas.FILE_NAME].decode(): e for split in found.values() for e in split}
    assert len(found["train"]) == 14
    assert stored["train/b/käfer 1.bmp"][schemas.IMAGE] == bitmap
    scan = tf.io.decode_image(stored["test/b/scan.tiff"][schemas.IMAGE], channels=3)
    np.testing.assert_array_equal(scan, np.asarray(Image.open(data / "test/b/scan.tiff")))

    records = tf.data.TFRecordDataset(str(tmp_path / "out" / schemas.ORIGINALS), "GZIP")
    pairs = [
        {name: value.bytes_list.value[0] for name, value in example.features.feature.items()}
        for example in map(tf.train.Example.FromString, records.as_numpy_iterator())
    ]
    paths = ["test/b/scan.tiff", "train/a/moving0.gif", "train/a/moving1.gif"]
    assert [p[schemas.FILE_NAME].decode() for p in pairs] == [p for p in paths for _ in range(2)]
    for path, one, other in zip(paths, pairs[::2], pairs[1::2], strict=True):
        assert one == stored[path]
        assert other == {**one, schemas.IMAGE: (data / path).read_bytes()}


def spoil(data: Path) -> None:
    (data / "train/a/empty.png").touch()
    (data / "test/b/text.jpg").write_text("not an image")
    whole = (data / "eval/a/0.png").read_bytes()
    (data / "eval/a/cut.png").write_bytes(whole[:-40])


def test_bad_images_stop_the_run(data: Path, tmp_path: Path) -> None:
    spoil(data)
    with pytest.raises(UserError) as error:
        ingest(data, tmp_path / "out")
    message = str(error.value)
    assert "3 bad of 27" in message
    assert "train/a/empty.png: the file is empty" in message
    assert "test/b/text.jpg: its content is no image" in message
    assert "eval/a/cut.png: it is broken or cut short" in message
    assert "`on_bad_image=skip`" in message


def test_the_first_ten_bad_images_are_named(data: Path, tmp_path: Path) -> None:
    for i in range(12):
        (data / f"train/a/bad{i:02d}.png").touch()
    with pytest.raises(UserError) as error:
        ingest(data, tmp_path / "out")
    assert "bad09.png" in str(error.value)
    assert "bad10.png" not in str(error.value)
    assert "and 2 more (in all: .png 12)" in str(error.value)


def test_files_that_are_no_images_are_counted(data: Path, tmp_path: Path) -> None:
    for name in ("a/notes.txt", "a/more.txt", "b/labels.xml"):
        (data / "train" / name).write_text("no image")
    artifact = ingest(data, tmp_path / "out")
    assert artifact.get_int_custom_property("left_out_files") == 3
    assert artifact.get_string_custom_property("left_out_suffixes") == ".txt 2, .xml 1"


def test_bad_images_can_be_left_out(data: Path, tmp_path: Path) -> None:
    spoil(data)
    artifact = ingest(data, tmp_path / "out", "skip")
    assert artifact.get_int_custom_property("bad_images") == 3
    assert {split: len(e) for split, e in read(tmp_path / "out").items()} == {
        "train": 8,
        "eval": 8,
        "test": 8,
    }


def test_skipping_may_not_empty_a_class(data: Path, tmp_path: Path) -> None:
    for path in (data / "train/b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none left for 'b'"):
        ingest(data, tmp_path / "out", "skip")


def test_skipping_may_not_empty_a_split(data: Path, tmp_path: Path) -> None:
    for path in (data / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no image in test"):
        ingest(data, tmp_path / "out", "skip")


@pytest.mark.parametrize("overlapping", [True, False])
def test_a_shard_holds_few_images_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlapping: bool
) -> None:
    held: list[int] = []

    def count(contents: list[bytes]) -> list[None]:
        held.append(len(contents))
        return [None] * len(contents)

    monkeypatch.setattr("components.image_example_gen.image.GROUP", 5)
    monkeypatch.setattr("components.image_example_gen.image.faults", count)
    uris = {}
    for split in folder.SPLITS:
        uris[split] = str(tmp_path / split)
        Path(uris[split]).mkdir()
    hand_out(folder.shards(folder.scan(data), 100), str(tmp_path))
    WriteShard(str(data), (), uris, str(tmp_path), 1, overlapping=overlapping).process(0)
    assert held == [5, 5, 5, 5, 4]
