"""Cut global batches into the pieces that replicas and micro-batches compute."""

from typing import Any

import tensorflow as tf

from trainer_module.checks import require


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
        dataset: Global batches (x [B, ...], y [B, ...]).
        micro_batch: Largest piece, in examples; whole batches if not given.
        replicas: Replicas that share a global batch.
        local: Which of them read this dataset, in the order in which they take elements.

    Returns:
        (x [b, ...], y [b, ...], total, last): total, float32, is the size of the global batch and
        last, bool, whether this is the final piece of the batch. Where nothing is cut, whole
        batches (x, y). The batch dimension is None in the element spec whatever it was in the
        dataset.
    """
    require(
        isinstance(dataset.element_spec, tuple) and len(dataset.element_spec) == 2,
        "a dataset must yield (x, y) pairs of tensors",
        dataset.element_spec,
        "Map its elements to (inputs, label).",
    )

    # AutoGraph would read the source of each function, for nothing.
    plain = tf.autograph.experimental.do_not_convert

    def cut(x: tf.Tensor, y: tf.Tensor) -> tf.data.Dataset:
        x, y = _any_size(x), _any_size(y)
        size = tf.shape(x, tf.int64)[0]
        share = (size + replicas - 1) // replicas
        limit = share if micro_batch is None else tf.constant(micro_batch, tf.int64)
        rounds = tf.maximum(tf.minimum((share + limit - 1) // limit, size // replicas), 1)
        stride = rounds * replicas

        def piece(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
            turn, replica = index // len(local), index % len(local) + local.start
            first = turn * replicas + replica
            total = tf.cast(size, tf.float32)
            parts = [
                tf.ensure_shape(part[first::stride], [None, *part.shape[1:]]) for part in (x, y)
            ]
            return *parts, total, tf.equal(turn, rounds - 1)

        return tf.data.Dataset.range(rounds * len(local)).map(plain(piece))

    if micro_batch is None and replicas == 1:
        # A function that does nothing would still be traced for each epoch.
        if any(part.shape[:1] != [None] for part in dataset.element_spec):
            dataset = dataset.map(plain(lambda x, y: (_any_size(x), _any_size(y))))
        return dataset
    return dataset.flat_map(plain(cut)).prefetch(2)


def distributed(
    dataset: tf.data.Dataset, strategy: tf.distribute.Strategy, micro_batch: int | None = None
) -> Any:
    """The pieces of a dataset of global batches, for all replicas of a strategy.

    Every worker makes the whole dataset and takes its own replicas' share, so the union is the
    same batch whatever the number of workers.

    Args:
        dataset: Global batches (x [B, ...], y [B, ...]).
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


def _any_size(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor with its static batch size forgotten, which would cost a trace for each size."""
    return tf.compat.v1.placeholder_with_default(tensor, [None, *tensor.shape[1:]])
