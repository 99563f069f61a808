"""Two answers, held against each other."""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf


def difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> tuple[float, int, int]:
    """Hold two arrays against each other.

    Returns:
        The largest difference of floating values, relative where they exceed 1 (NaN equals NaN);
        the number of other values that differ, or of all where the shapes do; the number of all.
    """
    size = max(one.size, other.size)
    if one.shape != other.shape:
        return 0.0, size, size
    if not is_floating(one):
        return 0.0, int((one != other).sum()), size
    a, b = one.astype(np.float64), other.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        relative = np.abs(a - b) / np.maximum(1.0, np.abs(b))
    relative = np.where(same, 0.0, np.where(np.isfinite(relative), relative, np.inf))
    return float(relative.max(initial=0.0)), 0, size


def is_floating(value: npt.NDArray[Any]) -> bool:
    """Whether an array holds floating values."""
    # NumPy does not count bfloat16 among its own floating types.
    return bool(tf.as_dtype(value.dtype).is_floating)
