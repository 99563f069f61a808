"""Shards of images: each is read, checked and written by one Beam worker.

A worker of Beam loads only this, so it does without TFX, whose import takes longer than thousands
of images.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam

import schemas
from components.group import groups
from components.image_example_gen import image
from components.image_example_gen.folder import TRAIN, class_of
from components.image_example_gen.split import key_of, split_of
from trainer_module.util import collector

# Workers start with it, and end when all their objects are freed.
with collector.paused():
    import tensorflow as tf

# Encoded images hardly shrink any further, so the fastest level will do.
_OPTIONS = tf.io.TFRecordOptions("GZIP", compression_level=1)
# Bytes of the images that are decoded together.
_GROUP_BYTES = 32 * 1024**2
_SAMPLE = 2


class _Image(NamedTuple):
    split: str
    path: str
    key: int | None
    content: bytes
    converted: str


def hand_out(shards: Sequence[Sequence[tuple[str, str]]], folder: str) -> int:
    """Writes the paths of each shard where `WriteShard` reads them, and returns their number.

    Beam would put them into the description of its pipeline, whose size Dataflow limits.
    """
    for index, files in enumerate(shards):
        _write_json(_paths(folder, index), files)
    return len(shards)


def report(folder: str, index: int) -> dict[str, Any]:
    """Returns what `WriteShard` reports of a shard.

    It has "counts", images by split and class; "bad", (path, what is wrong) of each image left out;
    "converted", by format and mode (size of the PNG, path) of each file stored as PNG; "keys", by
    class, the keys that decided the split of the good images outside of split folders.
    """
    content: dict[str, Any] = _read_json(_report(folder, index))
    return content


@dataclass(eq=False)
class WriteShard(beam.DoFn):  # type: ignore[misc]
    """Reads the images of a shard and writes the good ones, one file for each split.

    Only numbers of shards travel between Beam's stages: images are read, checked and written by the
    dozen, so memory does not grow with the data, and the files are the same on every run.
    """

    root: str
    """The data folder."""
    carved: tuple[str, ...]
    """Splits that are drawn from "train"."""
    uris: Mapping[str, str]
    """Folder of each split."""
    folder: str
    """Where the shards were handed out."""
    shards: int
    """Number of them."""
    group_by: str | None = None
    """Regular expression that finds the group in an image's path."""
    moved: Mapping[int, str] = field(default_factory=dict)
    """The split of each key for which it is not `split_of`."""
    overlapping: bool = True
    """Whether to decode on a thread of its own, which costs a tenth where other workers use all
    cores already."""

    def process(self, index: int) -> Iterator[None]:
        """Writes data_tfrecord-<shard>-of-<shards>.gz in each split with examples, and a report."""
        name = f"data_tfrecord-{index:05d}-of-{self.shards:05d}.gz"
        places = {split: f"{uri}/{name}" for split, uri in self.uris.items()}
        for place in places.values():
            # A shard that is written again may have no example left in a split.
            if tf.io.gfile.exists(place):
                tf.io.gfile.remove(place)
        bad: list[tuple[str, str]] = []
        counts: dict[str, Counter[str]] = {split: Counter() for split in self.uris}
        keys: dict[str, set[int]] = {}
        converted: dict[str, list[tuple[int, str]]] = {}
        writers: dict[str, Any] = {}
        try:
            for entry, fault in self._decoded(_read_json(_paths(self.folder, index)), bad):
                if fault:
                    bad.append((entry.path, fault))
                    continue
                if entry.split not in writers:
                    writers[entry.split] = tf.io.TFRecordWriter(places[entry.split], _OPTIONS)
                label = class_of(entry.path)
                if entry.key is not None:
                    keys.setdefault(label, set()).add(entry.key)
                writers[entry.split].write(_example(entry.content, entry.path))
                counts[entry.split][label] += 1
                if entry.converted:
                    size = len(entry.content), entry.path
                    converted.setdefault(entry.converted, []).append(size)
        finally:
            for writer in writers.values():
                writer.close()
        content = {
            "counts": counts,
            "bad": bad,
            "converted": converted,
            "keys": {label: sorted(values) for label, values in keys.items()},
        }
        _write_json(_report(self.folder, index), content)
        return iter(())

    def _prepared(
        self, files: Iterable[tuple[str, str]], bad: list[tuple[str, str]]
    ) -> Iterator[_Image]:
        for split, path in files:
            try:
                content = _read(f"{self.root}/{path}")
                key = None
                if split == TRAIN and self.carved:
                    key = key_of(content, path, self.group_by)
                    split = self.moved.get(key) or split_of(key, self.carved)
                yield _Image(split, path, key, *image.prepare(content))
            except image.BadImageError as error:
                bad.append((path, str(error)))

    def _decoded(
        self, files: Iterable[tuple[str, str]], bad: list[tuple[str, str]]
    ) -> Iterator[tuple[_Image, str | None]]:
        """Yields each image, and what is wrong with it."""
        batches = groups(
            self._prepared(files, bad), lambda each: len(each.content), image.GROUP, _GROUP_BYTES
        )
        if not self.overlapping:
            for batch in batches:
                yield from zip(batch, _faults(batch), strict=True)
            return
        # A batch is decoded, outside of Python's lock, while the one before it is written and the
        # one after it is read.
        with ThreadPoolExecutor(max_workers=1) as decoder:
            pending: Sequence[Any] = ()
            for batch in batches:
                following = batch, decoder.submit(_faults, batch)
                if pending:
                    yield from zip(pending[0], pending[1].result(), strict=True)
                pending = following
            if pending:
                yield from zip(pending[0], pending[1].result(), strict=True)


def write_originals(
    file: str, root: str, converted: Iterable[Mapping[str, Sequence[tuple[int, str]]]]
) -> None:
    """Writes the smallest converted files of each format and mode, each as two tf.Examples.

    The first holds the image that is stored, which training sees; the second holds the file, which
    a request may bring. Servable sends both to a model.

    Args:
        file: The TFRecord file to write, compressed by gzip.
        root: The data folder.
        converted: For each shard, (size, path) of the converted files by format and mode.
    """
    smallest: dict[str, list[tuple[int, str]]] = {}
    for shard in converted:
        for kind, sizes in shard.items():
            smallest[kind] = sorted([*smallest.get(kind, []), *sizes])[:_SAMPLE]
    with tf.io.TFRecordWriter(file, "GZIP") as writer:
        for path in sorted(path for sizes in smallest.values() for _, path in sizes):
            original = _read(f"{root}/{path}")
            for content in (image.prepare(original).content, original):
                writer.write(_example(content, path))


def _read(file: str) -> bytes:
    try:
        path = Path(file)
        if path.stat().st_size > image.MAX_BYTES:
            raise image.BadImageError(f"it has more than {image.MAX_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise image.BadImageError(f"it cannot be read: {error.strerror}") from error


def _faults(batch: Sequence[_Image]) -> list[str | None]:
    return image.faults([each.content for each in batch])


def _example(content: bytes, path: str) -> bytes:
    """Returns the tf.Example of an encoded image."""
    example = tf.train.Example()
    for name, value in (
        (schemas.IMAGE, content),
        (schemas.LABEL, class_of(path).encode()),
        (schemas.FILE_NAME, path.encode()),
    ):
        example.features.feature[name].bytes_list.value.append(value)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _paths(folder: str, index: int) -> str:
    return f"{folder}/{index:05d}.json"


def _report(folder: str, index: int) -> str:
    return f"{folder}/{index:05d}.report.json"


def _read_json(path: str) -> Any:
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)


def _write_json(path: str, value: object) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(value))
