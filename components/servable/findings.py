"""Findings about single answers of a model.  Pure: arrays in, findings out."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.servable import verdict
from components.servable.measurement import Finding
from components.servable.signature import Answer


class Difference(NamedTuple):
    """How two arrays differ.

    Attributes:
        largest: Largest difference of floating values, relative where they exceed 1.
        unequal: Number of other values that differ, or of all where the shapes do.
        size: Number of values.
    """

    largest: float
    unequal: int
    size: int

    def problem(self, tolerance: float) -> str:
        """Returns in words by how much they differ; "" within the tolerance."""
        if self.unequal:
            return f"{self.unequal:,} of {self.size:,} values differ"
        return "" if self.largest <= tolerance else f"differs by up to {self.largest:.2g}"


def difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Difference:
    """Compares two arrays; NaN equals NaN."""
    size = max(one.size, other.size)
    if one.shape != other.shape:
        return Difference(0.0, size, size)
    if not is_floating(one):
        return Difference(0.0, int((one != other).sum()), size)
    a, b = one.astype(np.float64), other.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        relative = np.abs(a - b) / np.maximum(1.0, np.abs(b))
    relative = np.where(same, 0.0, np.where(np.isfinite(relative), relative, np.inf))
    return Difference(float(relative.max(initial=0.0)), 0, size)


def is_floating(value: npt.NDArray[Any]) -> bool:
    """Returns whether an array holds floating values."""
    # NumPy does not count bfloat16 among its own floating types.
    return bool(tf.as_dtype(value.dtype).is_floating)


def compare(
    rule: str, subject: str, one: Answer, other: Answer, tolerance: float
) -> Iterator[Finding]:
    """Yields a finding for each output of `one`, which `other` must have too."""
    for name, value in one.items():
        changed = difference(value, other[name])
        problem = changed.problem(tolerance)
        yield Finding(rule, f"{subject}: {name}: {problem}" if problem else "", "", changed.largest)


def of_answer(subject: str, rows: int, answer: Answer, specs: Any) -> Iterator[Finding]:
    """Yields findings about types, shapes and values of an answer to a request of `rows` examples.

    Args:
        subject: Signature and request, in words.
        rows: Number of examples in the request.
        answer: The answer.
        specs: tf.TensorSpecs that the signature declares, by name.
    """
    for name, value in answer.items():
        spec = specs[name]
        declared = None if spec.shape.rank is None else spec.shape.as_list()
        dtype = tf.as_dtype(value.dtype).name
        if dtype == spec.dtype.name and _fits(value.shape, declared, rows):
            yield Finding(verdict.SHAPES)
        else:
            words = "" if declared is None else f" [{', '.join(_sizes(declared, rows))}]"
            problem = f"{name} is {dtype} {list(value.shape)}, not {spec.dtype.name}{words}"
            yield Finding(verdict.SHAPES, f"{subject}: {problem}")
        if rows:
            wrong = int((~np.isfinite(value)).sum()) if is_floating(value) else 0
            problem = f"{subject}: {wrong:,} of {value.size:,} values of {name}"
            yield Finding(verdict.FINITE, problem if wrong else "")


def _fits(shape: Sequence[int], declared: Sequence[int | None] | None, rows: int) -> bool:
    if declared is None:
        return True
    expected = [rows if i == 0 and size is None else size for i, size in enumerate(declared)]
    return len(expected) == len(shape) and all(
        size in (None, actual) for size, actual in zip(expected, shape, strict=True)
    )


def _sizes(declared: Sequence[int | None], rows: int) -> list[str]:
    return [
        str(rows if i == 0 and size is None else "any" if size is None else size)
        for i, size in enumerate(declared)
    ]


def of_refusal(rule: str, subject: str, error: Exception) -> Finding:
    """Returns a finding about a request that may be refused, but only clearly."""
    if isinstance(error, tf.errors.OpError) and error.message:
        return Finding(rule, refusal=message(error))
    return Finding(rule, f"{subject}: {message(error)}")


def message(error: Exception) -> str:
    """Returns the type of an error, and the line that says what happened, not where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Before it TensorFlow tells where the node was made, and after it which node it is.
    ends = [i for i, line in enumerate(lines) if i and line.startswith("[[")]
    line = lines[ends[0] - 1 if ends else 0] if lines else ""
    return f"{type(error).__name__}: {line[:300]}"
