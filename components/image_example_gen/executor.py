"""Runs the ingestion of pictures on Beam."""

import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.options.pipeline_options import DirectOptions
from tfx import types
from tfx.components.example_gen import write_split
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs

import schemas
from components.image_example_gen import folder as logic
from components.image_example_gen import originals, split
from components.image_example_gen.shard import WriteShard, hand_out, report

ON_BAD_IMAGE_KEY = "on_bad_image"
GROUP_BY_KEY = "group_by"
SPLIT_RULE_KEY = "split_rule"
SHARD_SIZE = 4096

_SHARDS = ".shards"
_SHOWN = 10


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
            output_dict: "examples": one artifact, to which the splits are written, and beside
                them a sample of the files that were converted (`schemas.ORIGINALS`).
            exec_properties: "input_base", "on_bad_image", and "group_by" if given.

        Raises:
            ImageFolderError: A rule of `logic.scan` or `split.check_groups` is broken; a picture
                is bad and on_bad_image is "fail"; or a split or class is left without pictures.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        folder = logic.scan(exec_properties[standard_component_specs.INPUT_BASE_KEY])
        examples = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.EXAMPLES_KEY]
        )
        examples.split_names = artifact_utils.encode_split_names(list(logic.SPLITS))
        uris = {s: artifact_utils.get_split_uri([examples], s) for s in logic.SPLITS}
        between = f"{examples.uri}/{_SHARDS}"
        for uri in (*uris.values(), between):
            fileio.makedirs(uri)

        group_by = exec_properties.get(GROUP_BY_KEY) or None
        moved: dict[int, str] = {}
        if group_by:
            split.check_groups(folder, group_by)
            moved = split.stand_ins(_groups(folder, group_by), folder.carved)
        shards = logic.shards(folder, SHARD_SIZE)
        hand_out(shards, between)

        def write(indices: Sequence[int], moved: Mapping[int, str]) -> None:
            with self._make_beam_pipeline() as pipeline:
                # Beam takes 0 for as many workers as there are cores.
                cores = os.cpu_count() or 1
                workers = pipeline.options.view_as(DirectOptions).direct_num_workers or cores
                writer = WriteShard(
                    str(folder.root),
                    folder.carved,
                    uris,
                    between,
                    len(shards),
                    group_by=group_by,
                    moved=moved,
                    overlapping=workers < cores,
                )
                _ = (
                    pipeline
                    | "Shards" >> beam.Create(indices, reshuffle=True)
                    | "ReadCheckWrite" >> beam.ParDo(writer)
                )

        write(range(len(shards)), moved)
        keys: dict[str, array[int]] = {}
        bad: list[tuple[str, str]] = []
        for index in range(len(shards)):
            done = report(between, index)
            bad += done["bad"]
            for name, found in done["keys"].items():
                keys.setdefault(name, array("Q")).extend(found)
        if bad:
            _judge(sorted(bad), folder, exec_properties[ON_BAD_IMAGE_KEY])
        # Which classes lack a split is known only now: pictures are read once, but for the shards
        # of a stand-in, which is there only where classes are small.
        stand_ins = split.stand_ins(keys, folder.carved)
        changed = {key for key, _ in moved.items() ^ stand_ins.items()}
        if changed:
            again = [i for i in range(len(shards)) if _has_any(report(between, i)["keys"], changed)]
            write(again, stand_ins)

        counts: dict[str, Counter[str]] = {name: Counter() for name in logic.SPLITS}
        converted: list[dict[str, list[tuple[int, str]]]] = []
        for index in range(len(shards)):
            done = report(between, index)
            for name, by_class in done["counts"].items():
                counts[name].update(by_class)
            converted.append(done["converted"])
        fileio.rmtree(between)

        logic.check_split_counts(counts, folder)
        examples.set_int_custom_property("bad_images", len(bad))
        if folder.left_out:
            examples.set_int_custom_property("left_out_files", sum(folder.left_out.values()))
            examples.set_string_custom_property("left_out_suffixes", logic.counted(folder.left_out))
        count = sum(len(sizes) for shard in converted for sizes in shard.values())
        examples.set_int_custom_property("converted_images", count)
        if count:
            file = f"{examples.uri}/{schemas.ORIGINALS}"
            originals.write(file, str(folder.root), originals.sample(converted))
        data_format = exec_properties.get(standard_component_specs.OUTPUT_DATA_FORMAT_KEY)
        file_format = exec_properties.get(standard_component_specs.OUTPUT_FILE_FORMAT_KEY)
        if data_format:
            examples_utils.set_payload_format(examples, data_format)
        if file_format:
            examples_utils.set_file_format(examples, write_split.to_file_format_str(file_format))


def _groups(folder: logic.ImageFolder, group_by: str) -> dict[str, set[int]]:
    """The keys that decide the splits, by class, as the paths give them."""
    keys: dict[str, set[int]] = {}
    for path in folder.files[logic.TRAIN]:
        keys.setdefault(logic.class_of(path), set()).add(split.key_of(b"", path, group_by))
    return keys


def _has_any(keys: Mapping[str, Sequence[int]], wanted: Set[int]) -> bool:
    return any(not wanted.isdisjoint(found) for found in keys.values())


def _judge(bad: list[tuple[str, str]], folder: logic.ImageFolder, on_bad_image: str) -> None:
    if on_bad_image == "skip":
        logging.warning(
            "%d bad images of %d left out:%s",
            len(bad),
            len(folder),
            "".join(f"\n  {path}: {why}" for path, why in bad),
        )
        return
    shown = "".join(f"\n  {path}: {why}" for path, why in bad[:_SHOWN])
    more = ""
    if len(bad) > _SHOWN:
        suffixes = Counter(logic.suffix_of(path) for path, _ in bad)
        more = f"\n  and {len(bad) - _SHOWN:,} more (in all: {logic.counted(suffixes)})"
    raise logic.ImageFolderError(
        f"{folder.root}: every image must be readable, "
        f"{len(bad)} of {len(folder)} are not:{shown}{more}\n"
        "Repair, convert or remove them, or leave them out with --on-bad-image skip."
    )
