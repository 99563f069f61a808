"""Runs the ingestion of pictures on Beam."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow as tf
from absl import logging
from tfx import types
from tfx.components.example_gen import write_split
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs

import schemas
from components.image_example_gen import logic, picture

ON_BAD_IMAGE_KEY = "on_bad_image"
SHARD_SIZE = 4096

_REPORTS = ".reports"
_SHOWN = 10
# Pictures decoded in one call, and the bytes they may have together.
_GROUP = 64
_GROUP_BYTES = 32 * 1024**2


class _Prepared(NamedTuple):
    split: str
    path: str
    content: bytes
    converted: bool


class WriteShard(beam.DoFn):  # type: ignore[misc]
    """Reads the pictures of a shard and writes the good ones, one file for each split.

    Only paths travel between Beam's stages: pictures are read, checked and written by the dozen,
    so memory does not grow with the data, and the files are the same on every run.
    """

    def __init__(
        self, root: str, carved: tuple[str, ...], uris: dict[str, str], reports: str, shards: int
    ) -> None:
        self._root = root
        self._carved = carved
        self._uris = uris
        self._reports = reports
        self._shards = shards

    def process(self, shard: logic.Shard) -> Iterator[None]:
        """Write `data_tfrecord-<shard>-of-<shards>.gz` where a split has examples, and a report."""
        counts: dict[str, Counter[str]] = {split: Counter() for split in logic.SPLITS}
        bad: list[tuple[str, str]] = []
        converted = 0
        writers: dict[str, Any] = {}
        # Encoded pictures hardly shrink any further, so the fastest level will do.
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
        try:
            for group in _groups(self._prepared(shard, bad)):
                faults = picture.faults([entry.content for entry in group])
                for entry, fault in zip(group, faults, strict=True):
                    if fault:
                        bad.append((entry.path, fault))
                        continue
                    if entry.split not in writers:
                        name = f"data_tfrecord-{shard.index:05d}-of-{self._shards:05d}.gz"
                        file = f"{self._uris[entry.split]}/{name}"
                        writers[entry.split] = tf.io.TFRecordWriter(file, options)
                    label = logic.class_of(entry.path)
                    writers[entry.split].write(_example(entry.content, label, entry.path))
                    counts[entry.split][label] += 1
                    converted += entry.converted
        finally:
            for writer in writers.values():
                writer.close()
        report = {"counts": counts, "bad": bad, "converted": converted}
        with fileio.open(f"{self._reports}/{shard.index:05d}.json", "w") as file:
            file.write(json.dumps(report))
        return iter(())

    def _prepared(self, shard: logic.Shard, bad: list[tuple[str, str]]) -> "Iterator[_Prepared]":
        for split, path in shard.files:
            try:
                content = self._read(path)
                if split == logic.TRAIN and (drawn := logic.split_of(content)) in self._carved:
                    split = drawn
                yield _Prepared(split, path, *picture.prepare(content))
            except picture.BadImageError as error:
                bad.append((path, str(error)))

    def _read(self, path: str) -> bytes:
        try:
            with open(f"{self._root}/{path}", "rb") as file:  # noqa: PTH123  (twice as fast)
                if os.fstat(file.fileno()).st_size > picture.MAX_BYTES:
                    raise picture.BadImageError(f"it has more than {picture.MAX_BYTES:,} bytes")
                return file.read()
        except OSError as error:
            raise picture.BadImageError(f"it cannot be read: {error.strerror}") from error


class Executor(base_beam_executor.BaseBeamExecutor):  # type: ignore[misc]
    """Scans the folder, writes the splits, and judges what was bad."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Ingest the pictures below `input_base`.

        Args:
            input_dict: Empty.
            output_dict: "examples": one artifact, to which the splits are written.
            exec_properties: "input_base" and "on_bad_image".

        Raises:
            ImageFolderError: A rule of `logic.scan` is broken; a picture is bad and on_bad_image
                is "fail"; or a split or class is left without pictures.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        folder = logic.scan(exec_properties[standard_component_specs.INPUT_BASE_KEY])
        examples = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.EXAMPLES_KEY]
        )
        examples.split_names = artifact_utils.encode_split_names(list(logic.SPLITS))
        uris = {s: artifact_utils.get_split_uri([examples], s) for s in logic.SPLITS}
        reports = f"{examples.uri}/{_REPORTS}"
        for uri in (*uris.values(), reports):
            fileio.makedirs(uri)

        shards = logic.shards(folder, SHARD_SIZE)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(shards, reshuffle=True)
                | "ReadCheckWrite"
                >> beam.ParDo(
                    WriteShard(str(folder.root), folder.carved, uris, reports, len(shards))
                )
            )

        counts: dict[str, Counter[str]] = {split: Counter() for split in logic.SPLITS}
        bad: list[tuple[str, str]] = []
        converted = 0
        for shard in shards:
            with fileio.open(f"{reports}/{shard.index:05d}.json") as file:
                report = json.loads(file.read())
            for split, by_class in report["counts"].items():
                counts[split].update(by_class)
            bad += report["bad"]
            converted += report["converted"]
        fileio.rmtree(reports)

        if bad:
            _judge(sorted(bad), folder, exec_properties[ON_BAD_IMAGE_KEY])
        logic.check_split_counts(counts, folder)
        examples.set_int_custom_property("bad_images", len(bad))
        examples.set_int_custom_property("converted_images", converted)
        data_format = exec_properties.get(standard_component_specs.OUTPUT_DATA_FORMAT_KEY)
        file_format = exec_properties.get(standard_component_specs.OUTPUT_FILE_FORMAT_KEY)
        if data_format:
            examples_utils.set_payload_format(examples, data_format)
        if file_format:
            examples_utils.set_file_format(examples, write_split.to_file_format_str(file_format))


def _groups(pictures: Iterator[_Prepared]) -> Iterator[list[_Prepared]]:
    group: list[_Prepared] = []
    size = 0
    for entry in pictures:
        group.append(entry)
        size += len(entry.content)
        if len(group) == _GROUP or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _example(content: bytes, label: str, path: str) -> bytes:
    example = tf.train.Example()
    feature = example.features.feature
    feature[schemas.IMAGE].bytes_list.value.append(content)
    feature[schemas.LABEL].bytes_list.value.append(label.encode())
    feature[schemas.FILE_NAME].bytes_list.value.append(path.encode())
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _judge(bad: list[tuple[str, str]], folder: logic.ImageFolder, on_bad_image: str) -> None:
    shown = "".join(f"\n  {path}: {why}" for path, why in bad[:_SHOWN])
    more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    if on_bad_image == "skip":
        logging.warning(
            "%d bad pictures of %d left out:%s",
            len(bad),
            len(folder),
            "".join(f"\n  {path}: {why}" for path, why in bad),
        )
        return
    raise logic.ImageFolderError(
        f"{folder.root}: every picture must be readable, "
        f"{len(bad)} of {len(folder)} are not:{shown}{more}\n"
        "Repair or remove them, or leave them out with --on-bad-image skip."
    )
