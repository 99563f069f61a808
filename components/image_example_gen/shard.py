"""Reads, checks and writes the pictures of a shard.

It is all that a worker of Beam loads, so it does without TFX, whose import takes longer than
thousands of pictures.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import apache_beam as beam

import schemas
from components.group import groups
from components.image_example_gen import folder as logic
from components.image_example_gen import image
from components.image_example_gen.split import key_of, split_of
from trainer_module.util import collector

_WORKER = "apache_beam.runners.worker.sdk_worker_main"


@contextmanager
def _without_keras() -> Iterator[None]:
    """In a process that is a worker of Beam, hide Keras from TensorFlow.

    TensorFlow imports it for the optimizers in SavedModels, which takes longer than reading tens
    of thousands of pictures, and these workers load none.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    hidden = {"keras", "tf_keras"} - sys.modules.keys()
    if program is None or program.name != _WORKER or "tensorflow" in sys.modules:
        hidden = set()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


# Workers start with it, and end when all their objects are freed.
with collector.paused(), _without_keras():
    import tensorflow as tf

# Bytes that the pictures of a group may have together.
_GROUP_BYTES = 32 * 1024**2


class _Prepared(NamedTuple):
    split: str
    path: str
    key: int | None
    content: bytes
    converted: str


def hand_out(shards: Sequence[logic.Shard], folder: str) -> None:
    """Write what is to be read where `WriteShard` finds it.

    Beam would pickle and compress the paths, which takes as long as reading a quarter of the
    pictures.
    """
    for shard in shards:
        _write_json(_paths(folder, shard.index), shard.files)


def report(folder: str, index: int) -> dict[str, Any]:
    """What `WriteShard` tells of a shard that is done.

    Args:
        folder: Where the shards were handed out.
        index: Number of the shard.

    Returns:
        "counts", pictures by split and class; "bad", (path, what is wrong) of each picture left
        out; "converted", by format and mode (size of the PNG, path) of each file stored as PNG;
        "keys", by class, what decided the split of the pictures that were not in a split folder,
        left out ones excepted.
    """
    found: dict[str, Any] = _read_json(_report(folder, index))
    return found


class WriteShard(beam.DoFn):  # type: ignore[misc]
    """Reads the pictures of a shard and writes the good ones, one file for each split.

    Only numbers of shards travel between Beam's stages: pictures are read, checked and written by
    the dozen, so memory does not grow with the data, and the files are the same on every run.
    """

    def __init__(
        self,
        root: str,
        carved: tuple[str, ...],
        uris: dict[str, str],
        folder: str,
        shards: int,
        *,
        group_by: str | None = None,
        moved: Mapping[int, str] | None = None,
        overlapping: bool = True,
    ) -> None:
        """Take what all shards have in common.

        Args:
            root: The data folder.
            carved: Splits that are drawn from "train".
            uris: Folder of each split.
            folder: Where the shards were handed out.
            shards: Number of them.
            group_by: Regular expression that finds the group in an image's path.
            moved: The split of each key for which it is not `split_of`.
            overlapping: Whether to decode on a thread of its own, which costs a tenth where other
                workers use all cores already.
        """
        self._overlapping = overlapping
        self._root = root
        self._carved = carved
        self._uris = uris
        self._folder = folder
        self._shards = shards
        self._group_by = group_by
        self._moved = moved or {}

    def process(self, index: int) -> Iterator[None]:
        """Write `data_tfrecord-<shard>-of-<shards>.gz` where a split has examples, and a report."""
        name = f"data_tfrecord-{index:05d}-of-{self._shards:05d}.gz"
        places = {split: f"{uri}/{name}" for split, uri in self._uris.items()}
        for place in places.values():
            # A shard that is written again may have no example left in a split.
            if tf.io.gfile.exists(place):
                tf.io.gfile.remove(place)
        files = _read_json(_paths(self._folder, index))
        counts: dict[str, Counter[str]] = {split: Counter() for split in logic.SPLITS}
        bad: list[tuple[str, str]] = []
        keys: dict[str, set[int]] = {}
        converted: dict[str, list[tuple[int, str]]] = {}
        writers: dict[str, Any] = {}
        example = Example()
        # Encoded pictures hardly shrink any further, so the fastest level will do.
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
        try:
            for entry, fault in self._decoded(self._prepared(files, bad)):
                if fault:
                    bad.append((entry.path, fault))
                    continue
                if entry.split not in writers:
                    place = places[entry.split]
                    writers[entry.split] = tf.io.TFRecordWriter(place, options)
                label = logic.class_of(entry.path)
                if entry.key is not None:
                    keys.setdefault(label, set()).add(entry.key)
                writers[entry.split].write(example.serialized(entry.content, label, entry.path))
                counts[entry.split][label] += 1
                if entry.converted:
                    size = len(entry.content), entry.path
                    converted.setdefault(entry.converted, []).append(size)
        finally:
            for writer in writers.values():
                writer.close()
        done = {
            "counts": counts,
            "bad": bad,
            "converted": converted,
            "keys": {label: sorted(found) for label, found in keys.items()},
        }
        _write_json(_report(self._folder, index), done)
        return iter(())

    def _prepared(
        self, files: Sequence[tuple[str, str]], bad: list[tuple[str, str]]
    ) -> Iterator[_Prepared]:
        for split, path in files:
            try:
                content = read(f"{self._root}/{path}")
                key = None
                if split == logic.TRAIN and self._carved:
                    key = key_of(content, path, self._group_by)
                    split = self._moved.get(key) or split_of(key, self._carved)
                yield _Prepared(split, path, key, *image.prepare(content))
            except image.BadImageError as error:
                bad.append((path, str(error)))

    def _decoded(self, pictures: Iterator[_Prepared]) -> Iterator[tuple[_Prepared, str | None]]:
        """Each picture, and what is wrong with it."""
        found = groups(pictures, lambda entry: len(entry.content), image.GROUP, _GROUP_BYTES)
        if not self._overlapping:
            for group in found:
                yield from zip(group, _faults(group), strict=True)
            return
        # A group is decoded, outside of Python's lock, while the one before it is written and the
        # one after it is read.
        with ThreadPoolExecutor(max_workers=1) as decoder:
            pending: tuple[Sequence[_Prepared], Any] | None = None
            for group in found:
                faults = decoder.submit(_faults, group)
                if pending:
                    yield from zip(pending[0], pending[1].result(), strict=True)
                pending = group, faults
            if pending:
                yield from zip(pending[0], pending[1].result(), strict=True)


def read(file: str) -> bytes:
    """Reads an image file.

    Raises:
        BadImageError: It cannot be read, or is too large.
    """
    try:
        # Half the time of a file object.
        descriptor = os.open(file, os.O_RDONLY)
        try:
            return _content(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise image.BadImageError(f"it cannot be read: {error.strerror}") from error


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > image.MAX_BYTES:
        raise image.BadImageError(f"it has more than {image.MAX_BYTES:,} bytes")
    content = os.read(descriptor, size)
    # Some file systems give less than was asked for.
    while len(content) < size and (more := os.read(descriptor, size - len(content))):
        content += more
    return content


def _faults(group: Sequence[_Prepared]) -> list[str | None]:
    return image.faults([entry.content for entry in group])


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


class Example:
    """A tf.Example that is filled anew for each picture: half the time of making one."""

    def __init__(self) -> None:
        """Make one that is empty."""
        self._example = tf.train.Example()
        self._values = {
            name: self._example.features.feature[name].bytes_list.value
            for name in (schemas.IMAGE, schemas.LABEL, schemas.FILE_NAME)
        }
        for values in self._values.values():
            values.append(b"")

    def serialized(self, content: bytes, label: str, path: str) -> bytes:
        """The example of an encoded image, the name of its class and its path."""
        self._values[schemas.IMAGE][0] = content
        self._values[schemas.LABEL][0] = label.encode()
        self._values[schemas.FILE_NAME][0] = path.encode()
        serialized: bytes = self._example.SerializeToString(deterministic=True)
        return serialized
