"""Strategies of tf.distribute, and what the workers of one share outside of the training steps."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_CHUNK = 2**22
"""int64 values that are sent at once: 32 MiB."""


def connect() -> tuple[tf.distribute.Strategy, Callable[[], float]]:
    """Connects to the workers of TF_CONFIG; returns the strategy and the chief's clock.

    Nothing may have used a device before. Other workers' clocks would end a time budget after
    other epochs.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return strategy, lambda: float(_of_chief(np.array([time.monotonic()]), strategy)[0])


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Returns True if the replicas of a strategy are in several processes."""
    return bool(strategy.num_replicas_in_sync > 1 and strategy.extended.experimental_between_graph)


def from_chief(content: bytes, strategy: tf.distribute.Strategy) -> bytes:
    """Returns the chief's bytes to all workers.

    Args:
        content: What the chief sends; of the other workers, ignored.
        strategy: Strategy of all workers.
    """
    size = int(_of_chief(np.array([len(content)], np.int64), strategy)[0])
    words = np.zeros(-(-size // 8), np.int64)
    if strategy.extended.should_checkpoint:
        words.view(np.uint8)[:size] = np.frombuffer(content, np.uint8)
    for start in range(0, len(words), _CHUNK):
        part = slice(start, start + _CHUNK)
        words[part] = _of_chief(words[part], strategy)
    return words.view(np.uint8)[:size].tobytes()


def _of_chief(values: np.ndarray[Any, Any], strategy: tf.distribute.Strategy) -> Any:
    """The chief's numbers, as a sum in which all others are zero."""
    first = strategy.extended.should_checkpoint

    def own(context: Any) -> tf.Tensor:
        mine = first and context.replica_id_in_sync_group == 0
        return tf.constant(values if mine else np.zeros_like(values))

    parts = strategy.experimental_distribute_values_from_function(own)
    return strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None).numpy()
