"""Strategies of tf.distribute, and values that the workers of one share."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_CHUNK = 2**22
"""int64 values that are sent at once: 32 MiB."""


def local(kind: str = "GPU") -> tf.distribute.Strategy | None:
    """Returns the strategy that uses all devices of a kind of this machine; None for less than two.

    Args:
        kind: Kind of device, as TensorFlow names it.
    """
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None


def connect() -> tuple[tf.distribute.Strategy, Callable[[], float]]:
    """Connects to the workers of TF_CONFIG; returns the strategy and the chief's clock.

    Nothing may have used a device before. Other workers' clocks would end a time budget after
    other epochs.
    """
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return strategy, lambda: float(_of_chief(np.array([time.monotonic()]), strategy)[0])


def is_lost_worker(error: Exception) -> bool:
    """Returns True if an error of TensorFlow says that another worker has left.

    A worker that comes back before the others have noticed gets one too.
    """
    kinds = ("AbortedError", "CancelledError", "DeadlineExceededError", "UnavailableError")
    return isinstance(error, tuple(getattr(tf.errors, kind) for kind in kinds))


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Returns True if the replicas of a strategy are in several processes."""
    return bool(strategy.num_replicas_in_sync > 1 and strategy.extended.experimental_between_graph)


def from_chief(content: bytes, strategy: tf.distribute.Strategy) -> bytes:
    """Returns the chief's bytes to all workers; those of other workers are ignored."""
    size = int(_of_chief(np.array([len(content)], np.int64), strategy)[0])
    words = np.zeros(-(-size // 8), np.int64)
    if strategy.extended.should_checkpoint:
        words.view(np.uint8)[:size] = np.frombuffer(content, np.uint8)
    for start in range(0, len(words), _CHUNK):
        part = slice(start, start + _CHUNK)
        words[part] = _of_chief(words[part], strategy)
    return words.view(np.uint8)[:size].tobytes()


def any_worker(happened: bool, strategy: tf.distribute.Strategy) -> bool:
    """Returns True on all workers if something happened on one of them."""
    return bool(_summed(np.array([int(happened)], np.int64), strategy)[0])


def _of_chief(values: np.ndarray[Any, Any], strategy: tf.distribute.Strategy) -> Any:
    """Returns the chief's numbers, as a sum in which all others are zero."""
    is_chief = strategy.extended.should_checkpoint
    return _summed(values if is_chief else np.zeros_like(values), strategy)


def _summed(values: np.ndarray[Any, Any], strategy: tf.distribute.Strategy) -> Any:
    """Returns the sum of the workers' numbers."""
    # Of the replicas of a worker, the first contributes.
    contributions = iter([values])

    def own(_: Any) -> tf.Tensor:
        return tf.constant(next(contributions, np.zeros_like(values)))

    parts = strategy.experimental_distribute_values_from_function(own)
    return strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None).numpy()
