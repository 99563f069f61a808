"""Throughput gain of a larger batch: its examples per second over those of the present one."""

from collections.abc import Callable

import tensorflow as tf

from trainer_module.distributed import strategies
from trainer_module.training.batch import DatasetFactory, cut_to, distributed
from trainer_module.training.checkpoint import undone
from trainer_module.training.step import Steps

BATCHES = 8
"""Batches of the larger size that are timed, fewer where an epoch has fewer."""

ROUNDS = 2
"""Times that each size is timed. The fastest counts, since other programs only take time."""


def gain(
    steps: Steps,
    make_dataset: DatasetFactory,
    batch_size: int,
    larger: int,
    *,
    num_examples: int,
    micro_batch: int | None,
    clock: Callable[[], float],
) -> float:
    """Returns the throughput gain of a larger batch, 0 if it does not fit in memory.

    As many examples are trained on in batches of both sizes, input pipeline included. Weights,
    optimizer and random states are then as before. Several workers measure together, and take the
    chief's result.

    Args:
        steps: Training step of the run.
        make_dataset: Batches of an epoch.
        batch_size: Global batch size of the run, in examples.
        larger: Global batch size that it may grow to.
        num_examples: Training examples in an epoch.
        micro_batch: Largest batch a replica computes at once. A batch that is cut gains nothing.
        clock: Seconds, monotonic.
    """
    strategy = steps.strategy
    if cut_to(larger, micro_batch, int(strategy.num_replicas_in_sync)):
        return 1.0
    several = strategies.has_several_workers(strategy)
    count = max(min(BATCHES, num_examples // larger), 1)
    try:
        with undone(steps.model, steps.optimizer):
            if several:
                # A step that fails on one worker breaks the connection of all: each first tries
                # alone.
                elements = distributed(make_dataset(larger, 1), strategy)
                if strategies.any_worker(not steps.gradients_fit(elements, micro=False), strategy):
                    return 0.0
            # Kernels are chosen when a size is first met.
            _seconds(steps, make_dataset(larger, 1).take(1), clock)
            sizes = {batch_size: count * larger // batch_size, larger: count}
            rounds = [
                {
                    size: _seconds(steps, make_dataset(size, 1).take(n), clock)
                    for size, n in sizes.items()
                }
                for _ in range(ROUNDS)
            ]
    except tf.errors.ResourceExhaustedError:
        return 0.0
    present, grown = (min(each[size] for each in rounds) for size in sizes)
    ratio = present / grown
    if several:
        ratio = float(strategies.from_chief(repr(ratio).encode(), strategy))
    return ratio


def _seconds(steps: Steps, batches: tf.data.Dataset, clock: Callable[[], float]) -> float:
    """Trains on batches; returns seconds per example."""
    began = clock()
    known = int(batches.cardinality().numpy())
    elements = distributed(batches, steps.strategy)
    calls = steps.train_epoch(elements, batches=known if known >= 0 else None)
    # Reading a sum waits for the device.
    sums = [call.sums for call in calls]
    examples = sum(float(value[-1]) for value in sums)
    return (clock() - began) / examples
