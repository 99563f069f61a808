"""Cut global batches into the pieces that replicas and micro-batches compute."""

from typing import Any, Protocol

import tensorflow as tf

from trainer_module.util.checks import require


class DatasetFactory(Protocol):
    """What the loop asks of its training data."""

    def __call__(self, batch_size: int, epoch: int) -> tf.data.Dataset:
        """Returns the batches of one epoch, in an order fixed by `epoch`."""


def pieces(
    dataset: tf.data.Dataset,
    *,
    micro_batch: int | None = None,
    replicas: int = 1,
    local: range = range(1),
) -> tf.data.Dataset:
    """Cut each global batch into pieces, one for each replica and micro-batch.

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
        ValueError: The dataset holds something else than batches of dense or ragged tensors.
    """
    spec = check_batches(dataset)
    # AutoGraph would read the source of each function, for nothing.
    plain = tf.autograph.experimental.do_not_convert

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

        return tf.data.Dataset.range(rounds * len(local)).map(plain(piece))

    if micro_batch is None and replicas == 1:
        # A function that does nothing would still be traced for each epoch.
        if any(part.shape[:1] != [None] for part in tf.nest.flatten(spec)):
            dataset = dataset.map(plain(lambda *batch: _any_size(batch)))
        return dataset
    return dataset.flat_map(plain(cut)).prefetch(2)


def check_batches(dataset: tf.data.Dataset) -> Any:
    """Returns the element spec of a dataset of batches.

    Raises:
        ValueError: It yields neither (x, y) nor (x, y, sample_weight), no batches, or tensors that
            cannot be cut.
    """
    require(
        isinstance(dataset, tf.data.Dataset),
        "data must be a tf.data.Dataset of batches",
        type(dataset),
        "Try tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).",
    )
    spec = dataset.element_spec
    require(
        isinstance(spec, tuple) and len(spec) in (2, 3),
        "a dataset must yield (x, y) pairs or (x, y, sample_weight)",
        spec,
        "Map its elements to (inputs, label).",
    )
    leaves = tf.nest.flatten(spec)
    require(
        all(isinstance(leaf, (tf.TensorSpec, tf.RaggedTensorSpec)) for leaf in leaves),
        "a dataset must yield dense or ragged tensors",
        spec,
        "Try tf.sparse.to_dense.",
    )
    require(
        all(leaf.shape.rank is not None for leaf in leaves),
        "a dataset must say the rank of its tensors",
        spec,
        "Give shapes to what makes it, or map it through tf.ensure_shape.",
    )
    require(
        all(leaf.shape.rank > 0 for leaf in leaves),
        "a dataset must yield batches, tensors [B, ...]",
        spec,
        "Call .batch(batch_size) on it.",
    )
    ragged = [leaf for leaf in leaves if isinstance(leaf, tf.RaggedTensorSpec)]
    require(
        all(leaf.shape[0] is None for leaf in ragged),
        "ragged batches must be of any size",
        ragged,
        "Call .batch without drop_remainder.",
    )
    return spec


def size_of(batch: Any) -> tf.Tensor:
    """Returns the number of examples in a structure of tensors: int, []."""
    first = tf.nest.flatten(batch)[0]
    return first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first)[0]


def distributed(
    dataset: tf.data.Dataset, strategy: tf.distribute.Strategy, micro_batch: int | None = None
) -> Any:
    """The pieces of a dataset of global batches, for all replicas of a strategy.

    Every worker makes the whole dataset and takes its own replicas' share, so the union is the
    same batch whatever the number of workers.

    Args:
        dataset: Global batches, as for `pieces`.
        strategy: Strategy to distribute by.
        micro_batch: Largest piece, in examples; a replica's whole share if not given.

    Returns:
        A dataset of pieces, or with several replicas a distributed dataset of them.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return pieces(dataset, micro_batch=micro_batch)

    def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
        here = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * here
        return pieces(
            dataset,
            micro_batch=micro_batch,
            replicas=replicas,
            local=range(first, first + here),
        )

    return strategy.distribute_datasets_from_function(local)


def _any_size(batch: Any) -> Any:
    """The batch with its static size forgotten, which would cost a trace for each size."""
    return tf.nest.map_structure(
        lambda part: (
            part
            if isinstance(part, tf.RaggedTensor)
            else tf.compat.v1.placeholder_with_default(part, [None, *part.shape[1:]])
        ),
        batch,
    )


def _strided(part: Any, first: tf.Tensor, stride: tf.Tensor) -> Any:
    """Every `stride`-th example from `first` on."""
    taken = part[first::stride]
    if isinstance(part, tf.RaggedTensor):
        return taken
    return tf.ensure_shape(taken, [None, *part.shape[1:]])
