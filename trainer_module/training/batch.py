"""Datasets of batches, and the pieces of them that replicas and micro-batches compute."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import tensorflow as tf

# What `fit` itself makes of class weights; Keras has no public name for it.
from keras.src.trainers.data_adapters.tf_dataset_adapter import make_class_weight_map_fn

from trainer_module.util.checks import require

_REMEDY = "Try tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)."


class DatasetFactory(Protocol):
    """Makes the training data of an epoch."""

    def __call__(self, batch_size: int, epoch: int) -> tf.data.Dataset:
        """Returns the batches of one epoch, in an order fixed by `epoch`."""


def as_factory(
    data: tf.data.Dataset | DatasetFactory, class_weight: Mapping[int, float] | None = None
) -> DatasetFactory:
    """Returns a factory of checked batches of a dataset of one epoch, or of a factory."""
    is_dataset = isinstance(data, tf.data.Dataset)
    make: Any = data
    require(
        is_dataset or callable(data),
        "training_data must be a tf.data.Dataset of batches, or a function"
        " (batch_size, epoch) -> such a dataset",
        type(data),
        _REMEDY,
    )
    weigh = class_weight and _plain(make_class_weight_map_fn(class_weight))

    def make_dataset(batch_size: int, epoch: int) -> tf.data.Dataset:
        dataset = make.rebatch(batch_size) if is_dataset else make(batch_size, epoch)
        check_epoch(dataset, "training_data")
        return dataset.map(weigh) if weigh else dataset

    if is_dataset:
        check_epoch(data, "training_data")
    return make_dataset


def check_epoch(dataset: tf.data.Dataset, name: str) -> None:
    """Raises UserError, with the name, unless a dataset holds batches, and not without end."""
    check_batches(dataset)
    count = int(dataset.cardinality().numpy())
    require(
        count != tf.data.INFINITE_CARDINALITY,
        f"{name} must give one epoch, which ends",
        "an infinite dataset",
        "Leave out repeat(), with num_epochs=1 in TensorFlowDatasetOptions of TFX, and check that "
        "the module you changed is the one that is imported.",
    )
    check_not_empty(count != 0, name)


def check_not_empty(has_batches: bool, name: str) -> None:
    """Raises UserError unless a dataset of that name gave a batch."""
    require(
        has_batches,
        f"{name} must give at least one batch an epoch",
        0,
        "Check that its split holds examples, and that it does not drop a split smaller than the "
        "batch.",
    )


def check_batches(dataset: tf.data.Dataset) -> Any:
    """Returns the element spec of a dataset of batches.

    Raises:
        UserError: It yields neither (x, y) nor (x, y, sample_weight), no batches, or tensors that
            cannot be cut.
    """
    is_dataset = isinstance(dataset, tf.data.Dataset)
    require(is_dataset, "data must be a tf.data.Dataset of batches", type(dataset), _REMEDY)
    spec = dataset.element_spec
    for holds, rule, remedy in _rules(spec):
        require(holds, f"a dataset must {rule}", spec, remedy)
    return spec


def _rules(spec: Any) -> Iterator[tuple[bool, str, str]]:
    """Yields the rules of an element spec, each of which stands on those before it."""
    leaves = tf.nest.flatten(spec)
    is_pair = isinstance(spec, tuple) and len(spec) in (2, 3)
    yield (
        is_pair,
        "yield (x, y) pairs or (x, y, sample_weight)",
        "Map its elements to (inputs, label).",
    )
    kinds = (tf.TensorSpec, tf.RaggedTensorSpec)
    are_tensors = all(isinstance(leaf, kinds) for leaf in leaves)
    yield are_tensors, "yield dense or ragged tensors", "Try tf.sparse.to_dense."
    have_rank = all(leaf.shape.rank is not None for leaf in leaves)
    yield have_rank, "say the rank of its tensors", "Map it through tf.ensure_shape."
    are_batches = all(leaf.shape.rank > 0 for leaf in leaves)
    yield are_batches, "yield batches, tensors [B, ...]", "Call .batch(batch_size) on it."
    ragged = [leaf for leaf in leaves if isinstance(leaf, tf.RaggedTensorSpec)]
    any_size = all(leaf.shape[0] is None for leaf in ragged)
    yield any_size, "yield ragged batches of any size", "Call .batch without drop_remainder."


def count_examples(dataset: tf.data.Dataset) -> int:
    """Returns the number of examples in an epoch's batches, by a pass over them."""
    add = _plain(lambda total, *batch: total + tf.cast(size_of(batch), tf.int64))
    return int(dataset.reduce(tf.constant(0, tf.int64), add))


def size_of(batch: Any) -> tf.Tensor:
    """Returns the number of examples in a structure of tensors: int, []."""
    first = tf.nest.flatten(batch)[0]
    return first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first)[0]


def cut_to(batch_size: int, micro_batch: int | None, replicas: int) -> int | None:
    """Returns the micro-batch to cut a global batch into; None if a replica computes it whole.

    Args:
        batch_size: Global batch size, in examples.
        micro_batch: Largest batch a replica computes at once; None for no bound.
        replicas: Replicas that share a global batch.
    """
    is_small = micro_batch is not None and -(-batch_size // replicas) > micro_batch
    return micro_batch if is_small else None


def pieces(
    dataset: tf.data.Dataset,
    *,
    micro_batch: int | None = None,
    replicas: int = 1,
    local: range = range(1),
) -> tf.data.Dataset:
    """Cuts each global batch into pieces, one for each replica and micro-batch.

    Pieces are strided slices, so their sizes differ by one example at the most and none is a
    tiny rest. All replicas get the same number of them.

    Args:
        dataset: Global batches (x, y) or (x, y, sample_weight), structures of tensors [B, ...].
        micro_batch: Largest piece, in examples; whole batches if not given.
        replicas: Replicas that share a global batch.
        local: Which of them read this dataset, in the order in which they take elements.

    Returns:
        (x, y, total, last) or (x, y, sample_weight, total, last): total, float32, is the size of
        the global batch and last, bool, whether this is the final piece of the batch. Where
        nothing is cut, whole batches as they were. The batch dimension is None in the element spec
        whatever it was in the dataset.

    Raises:
        UserError: The dataset holds something else than batches of dense or ragged tensors.
    """
    spec = check_batches(dataset)

    def cut(*batch: Any) -> tf.data.Dataset:
        batch = _any_size(batch)
        size = tf.cast(size_of(batch), tf.int64)
        share = (size + replicas - 1) // replicas
        limit = share if micro_batch is None else tf.constant(micro_batch, tf.int64)
        rounds = tf.maximum(tf.minimum((share + limit - 1) // limit, size // replicas), 1)
        stride = rounds * replicas

        def piece(index: tf.Tensor) -> tuple[Any, ...]:
            turn, replica = index // len(local), index % len(local) + local.start
            first = turn * replicas + replica
            total = tf.cast(size, tf.float32)
            parts = tf.nest.map_structure(lambda part: _strided(part, first, stride), batch)
            return *parts, total, tf.equal(turn, rounds - 1)

        return tf.data.Dataset.range(rounds * len(local)).map(_plain(piece))

    if micro_batch is None and replicas == 1:
        # A function that does nothing would still be traced for each epoch.
        if any(part.shape[:1] != [None] for part in tf.nest.flatten(spec)):
            dataset = dataset.map(_plain(lambda *batch: _any_size(batch)))
        return dataset
    return dataset.flat_map(_plain(cut)).prefetch(2)


def distributed(
    dataset: tf.data.Dataset, strategy: tf.distribute.Strategy, micro_batch: int | None = None
) -> Any:
    """Returns the pieces of a dataset of global batches, for all replicas of a strategy.

    Every worker makes the whole dataset and takes its own replicas' share, so the union is the
    same batch whatever the number of workers.

    Args:
        dataset: Global batches, as for `pieces`.
        strategy: Strategy to distribute by.
        micro_batch: Largest piece, in examples; a replica's whole share if not given.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return pieces(dataset, micro_batch=micro_batch)

    def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * count
        here = range(first, first + count)
        return pieces(dataset, micro_batch=micro_batch, replicas=replicas, local=here)

    return strategy.distribute_datasets_from_function(local)


def _plain(function: Any) -> Any:
    """Keeps AutoGraph, which would read the source of each function for nothing, from it."""
    return tf.autograph.experimental.do_not_convert(function)


def _any_size(batch: Any) -> Any:
    """Returns the batch without its static size, which would cost a trace for each size."""
    return tf.nest.map_structure(
        lambda part: (
            part
            if isinstance(part, tf.RaggedTensor)
            else tf.compat.v1.placeholder_with_default(part, [None, *part.shape[1:]])
        ),
        batch,
    )


def _strided(part: Any, first: tf.Tensor, stride: tf.Tensor) -> Any:
    """Returns every `stride`-th example from `first` on."""
    taken = part[first::stride]
    if isinstance(part, tf.RaggedTensor):
        return taken
    return tf.ensure_shape(taken, [None, *part.shape[1:]])
