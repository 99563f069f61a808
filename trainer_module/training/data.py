"""Datasets of examples decoded once, cached as uint8 (images) or float32 (tables), shuffled."""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from trainer_module.config import ImageFeatures
from trainer_module.preprocessing import INPUT, LABEL
from trainer_module.training.augmentation import Augmentation
from trainer_module.training.batch import DatasetFactory
from trainer_module.util.checks import require

# Records that are decoded together, and what they may have together, in bytes.
_READ_BATCH = 256
_READ_BYTES = 16 * 2**20
_SAMPLED = 16
_PARALLEL_CALLS = min(os.cpu_count() or 1, 8)


class Split(NamedTuple):
    """One split, preprocessed."""

    x: npt.NDArray[Any]
    """Model inputs [N, ...]: uint8 images or float32 vectors; a memory map if large."""

    y: npt.NDArray[Any]
    """Labels [N]: indices of classes, int64, or numbers, float32."""


def read_split(
    files: Sequence[str], transform: tft.TFTransformOutput, *, is_image: bool, cache_mib: int
) -> Split:
    """Runs every record of a split through the preprocessing graph, once.

    Args:
        files: GZIP-compressed TFRecord files of tf.Examples.
        transform: The preprocessing graph.
        is_image: Whether x is images (kept as uint8) or vectors (float32).
        cache_mib: Largest x kept in memory, in MiB; a larger one stays a file.

    Returns:
        The split, in the order of the files.

    Raises:
        ValueError: The split is empty, or a label is no class.
    """
    layer = transform.transform_features_layer()
    spec = transform.raw_feature_spec()

    def preprocess(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = layer(tf.io.parse_example(records, spec))
        x = features[INPUT]
        return tf.cast(x, tf.uint8) if is_image else x, features[LABEL][:, 0]

    records = tf.data.TFRecordDataset(sorted(files), compression_type="GZIP")
    batches = (
        records.batch(records_at_once(map(len, records.take(_SAMPLED).as_numpy_iterator())))
        # AutoGraph would read the layer's whole source, for seconds and nothing.
        .map(
            tf.autograph.experimental.do_not_convert(preprocess),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .prefetch(1)
    )
    split = _cache(batches.as_numpy_iterator(), cache_mib * 2**20)
    is_number = np.issubdtype(split.y.dtype, np.floating)
    unknown = int(np.count_nonzero(~np.isfinite(split.y) if is_number else split.y < 0))
    require(
        unknown == 0,
        f"every training label must be {'a number' if is_number else 'one of the classes'}",
        f"{unknown} of {len(split.y)} examples with another label",
        "Take those examples out" + ("." if is_number else ", or add the class to the schema."),
    )
    return split


def records_at_once(sizes: Iterable[int]) -> int:
    """Returns how many records to decode together: many small ones, few large ones.

    Args:
        sizes: Bytes of some of them.
    """
    return max(min(_READ_BATCH, _READ_BYTES // max(sizes, default=1)), 1)


def _cache(batches: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]], budget: int) -> Split:
    """Writes batches to a file, and loads it into memory if `budget` bytes hold it."""
    labels: list[npt.NDArray[Any]] = []
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = np.dtype(np.float32)
    # Unlinked when closed; on POSIX a memory map keeps the data until it is garbage.
    with tempfile.NamedTemporaryFile(prefix="plateau-cache-") as file:
        for x, y in batches:
            shape, dtype = x.shape[1:], x.dtype
            file.write(np.ascontiguousarray(x).data)
            labels.append(y)
        file.flush()
        require(
            bool(labels),
            "a split must hold at least one example",
            0,
            "Add examples, or check how the data is split.",
        )
        y = np.concatenate(labels)
        x = np.memmap(file.name, dtype, "r", shape=(len(y), *shape))
        return Split(np.array(x) if x.nbytes <= budget else x, y)


def rows(x: npt.NDArray[Any], index: Any) -> npt.NDArray[Any]:
    """Returns a copy of some rows of a split's inputs.

    Args:
        x: The inputs; of a memory map, no page stays in the memory of the process.
        index: What numpy takes for an index.
    """
    copied = np.array(x[index])
    # numpy's types know no such base.
    mapped: Any = x.base
    if isinstance(mapped, mmap.mmap):
        # Pages that were read would stay until all of the file is in memory.
        mapped.madvise(mmap.MADV_DONTNEED)
    return copied


def _gather(split: Split) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a function from indices [B] to (x [B, ...], y [B]), for use inside tf.data."""
    with tf.device("CPU"):
        labels = tf.constant(split.y)
        if not isinstance(split.x, np.memmap):
            inputs = tf.constant(split.x)
            return lambda index: (tf.gather(inputs, index), tf.gather(labels, index))

    def from_file(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.numpy_function(lambda i: rows(split.x, i), [index], split.x.dtype)
        x.set_shape([None, *split.x.shape[1:]])
        return x, tf.gather(labels, index)

    return from_file


def training_factory(split: Split, features: object, seed: int) -> DatasetFactory:
    """Returns a factory of training batches.

    The order is a permutation of the whole split, fixed by (seed, epoch). What is left after the
    last whole batch is dropped, so no batch is ever smaller (a tiny one would ruin BatchNorm's
    averages); another permutation drops other examples in each epoch. A split smaller than the
    batch is one batch. Augmentation depends on (seed, epoch, example) only, not on the batch an
    example falls into, so resumed runs and runs with another batch size see the same images.

    Args:
        split: The training split.
        features: Its features; those of images say how they are augmented.
        seed: Seed of order and augmentation.

    Returns:
        The factory; each batch is (x [B, ...], y [B]), of the split's dtypes.
    """
    gather = _gather(split)
    count = len(split.y)
    augmentation = (
        Augmentation(features, split.x.shape)
        if isinstance(features, ImageFeatures) and features.augment != "none"
        else None
    )

    def make_dataset(batch_size: int, epoch: int) -> tf.data.Dataset:
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        order = random.permutation(count)
        used = order[: max(count // batch_size * batch_size, min(count, batch_size))]
        dataset = tf.data.Dataset.from_tensor_slices(used).batch(batch_size)
        if augmentation is None:
            return _in_parallel(dataset, gather)
        change = augmentation.draw(random)

        def augmented(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x, y = gather(index)
            return change(x, index), y

        return _in_parallel(dataset, augmented)

    return make_dataset


def evaluation_dataset(split: Split, batch_size: int) -> tf.data.Dataset:
    """Returns every example of a split once, in order: (x [B, ...], y [B])."""
    index = tf.data.Dataset.range(len(split.y)).batch(batch_size)
    return _in_parallel(index, _gather(split))


def _in_parallel(
    dataset: tf.data.Dataset, function: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
) -> tf.data.Dataset:
    options = tf.data.Options()
    # Ending an autotuned iterator waits for its tuner: as long as a small epoch takes.
    options.autotune.enabled = False
    function = tf.autograph.experimental.do_not_convert(function)
    mapped = dataset.map(function, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
    return mapped.prefetch(_PARALLEL_CALLS).with_options(options)
