"""A sample of the files that were converted, each with the image that is stored of it.

Training sees the stored image, and a request may bring the file. Servable sends both to a model.
"""

from collections.abc import Iterable, Mapping

import tensorflow as tf

from components.image_example_gen import folder, image
from components.image_example_gen.shard import Example, read

SAMPLE = 2
"""Files of each format and mode."""


def sample(converted: Iterable[Mapping[str, list[tuple[int, str]]]]) -> list[str]:
    """Chooses the smallest files of each format and mode.

    Args:
        converted: For each shard, (size, path) of the converted files by format and mode.

    Returns:
        Paths, sorted.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for shard in converted:
        for kind, sizes in shard.items():
            found[kind] = sorted([*found.get(kind, []), *sizes])[:SAMPLE]
    return sorted(path for sizes in found.values() for _, path in sizes)


def write(file: str, root: str, paths: Iterable[str]) -> None:
    """Writes two tf.Examples for each file: one with the stored image, one with the file itself.

    Args:
        file: The TFRecord file to write, compressed by gzip.
        root: The data folder.
        paths: Files that were converted, relative to it.
    """
    example = Example()
    with tf.io.TFRecordWriter(file, "GZIP") as writer:
        for path in paths:
            original = read(f"{root}/{path}")
            for content in (image.prepare(original).content, original):
                writer.write(example.serialized(content, folder.class_of(path), path))
