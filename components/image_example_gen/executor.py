"""Executor of ImageExampleGen: runs the ingestion of images on Beam."""

import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from components.image_example_gen import split
from components.image_example_gen.folder import (
    SPLITS,
    TRAIN,
    ImageFolder,
    check_split_counts,
    class_of,
    counted,
    scan,
    shards,
    suffix_of,
)
from components.image_example_gen.shard import WriteShard, hand_out, report, write_originals
from trainer_module.util.checks import UserError

ON_BAD_IMAGE_KEY = "on_bad_image"
GROUP_BY_KEY = "group_by"
SPLIT_RULE_KEY = "split_rule"
SHARD_SIZE = 4096

_SHARDS = ".shards"
_LISTED = 10


class Executor(base_beam_executor.BaseBeamExecutor):  # type: ignore[misc]
    """Scans the folder, writes the splits, and refuses or counts bad images."""

    def Do(  # noqa: N802  (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Ingests the images below `input_base`.

        Args:
            input_dict: Empty.
            output_dict: "examples": one artifact, to which the splits are written, and beside
                them a sample of the files that were converted (`schemas.ORIGINALS`).
            exec_properties: "input_base", "on_bad_image", and optionally "group_by".

        Raises:
            UserError: A rule of `folder.scan` or `split.check_groups` is broken; an image is bad
                and on_bad_image is "fail"; or a split or class is left without images.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        folder = scan(exec_properties[standard_component_specs.INPUT_BASE_KEY])
        examples = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.EXAMPLES_KEY]
        )
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        uris = {name: artifact_utils.get_split_uri([examples], name) for name in SPLITS}
        temporary = f"{examples.uri}/{_SHARDS}"
        for uri in (*uris.values(), temporary):
            fileio.makedirs(uri)

        group_by = exec_properties.get(GROUP_BY_KEY) or None
        moved: dict[int, str] = {}
        if group_by:
            split.check_groups(folder, group_by)
            keys: dict[str, Any] = {}
            for path in folder.files[TRAIN]:
                keys.setdefault(class_of(path), set()).add(split.key_of(b"", path, group_by))
            moved = split.stand_ins(keys, folder.carved)
        count = hand_out(shards(folder, SHARD_SIZE), temporary)

        def reports() -> Iterator[dict[str, Any]]:
            return (report(temporary, index) for index in range(count))

        def write(indices: Sequence[int], moved: Mapping[int, str]) -> None:
            with self._make_beam_pipeline() as pipeline:
                # Beam takes 0 for as many workers as there are cores.
                cores = os.cpu_count() or 1
                workers = pipeline.options.view_as(DirectOptions).direct_num_workers or cores
                writer = WriteShard(
                    str(folder.root),
                    folder.carved,
                    uris,
                    temporary,
                    count,
                    group_by=group_by,
                    moved=moved,
                    overlapping=workers < cores,
                )
                _ = (
                    pipeline
                    | "Shards" >> beam.Create(indices, reshuffle=True)
                    | "ReadCheckWrite" >> beam.ParDo(writer)
                )

        write(range(count), moved)
        keys, bad = {}, []
        for shard in reports():
            bad += shard["bad"]
            for name, values in shard["keys"].items():
                keys.setdefault(name, array("Q")).extend(values)
        if bad:
            _check_bad(sorted(bad), folder, exec_properties[ON_BAD_IMAGE_KEY])
        # Which classes lack a split is known only now: images are read once, but for the shards of
        # a stand-in, which there is only where classes are small.
        stand_ins = split.stand_ins(keys, folder.carved)
        changed = {key for key, _ in moved.items() ^ stand_ins.items()}
        again = [
            index
            for index, shard in enumerate(reports() if changed else ())
            if any(not changed.isdisjoint(values) for values in shard["keys"].values())
        ]
        if again:
            write(again, stand_ins)

        counts: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
        converted = []
        for shard in reports():
            for name, by_class in shard["counts"].items():
                counts[name].update(by_class)
            converted.append(shard["converted"])
        fileio.rmtree(temporary)
        check_split_counts(counts, folder)

        examples.set_int_custom_property("bad_images", len(bad))
        if folder.left_out:
            examples.set_int_custom_property("left_out_files", sum(folder.left_out.values()))
            examples.set_string_custom_property("left_out_suffixes", counted(folder.left_out))
        images = sum(len(sizes) for shard in converted for sizes in shard.values())
        examples.set_int_custom_property("converted_images", images)
        if images:
            write_originals(f"{examples.uri}/{schemas.ORIGINALS}", str(folder.root), converted)
        data_format = exec_properties.get(standard_component_specs.OUTPUT_DATA_FORMAT_KEY)
        file_format = exec_properties.get(standard_component_specs.OUTPUT_FILE_FORMAT_KEY)
        if data_format:
            examples_utils.set_payload_format(examples, data_format)
        if file_format:
            examples_utils.set_file_format(examples, write_split.to_file_format_str(file_format))


def _check_bad(bad: list[tuple[str, str]], folder: ImageFolder, on_bad_image: str) -> None:
    def lines(images: Sequence[tuple[str, str]]) -> str:
        return "".join(f"\n  {path}: {why}" for path, why in images)

    if on_bad_image == "skip":
        logging.warning("%d bad images of %d left out:%s", len(bad), len(folder), lines(bad))
        return
    more = ""
    if len(bad) > _LISTED:
        suffixes = Counter(suffix_of(path) for path, _ in bad)
        more = f"\n  and {len(bad) - _LISTED:,} more (in all: {counted(suffixes)})"
    raise UserError(
        f"{folder.root}: every image must be readable",
        f"{len(bad)} bad of {len(folder)}",
        f"Repair, convert or remove them, or try `{ON_BAD_IMAGE_KEY}=skip`:"
        f"{lines(bad[:_LISTED])}{more}",
    )
