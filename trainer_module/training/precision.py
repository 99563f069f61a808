"""Mixed precision: float32, or bfloat16 with float32 weights where it is faster."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import keras
import tensorflow as tf

from trainer_module.config import Precision
from trainer_module.training.batch import pieces
from trainer_module.training.step import Steps
from trainer_module.util import files

FLOAT32: Precision = "float32"
BFLOAT16: Precision = "mixed_bfloat16"
ROUNDS = 3
"""Timed steps in each precision; medians are compared."""

GAIN = 1.1
"""How many times faster bfloat16 must be to be worth its coarser arithmetic."""


def choose(
    wanted: Precision,
    build: Callable[[], tuple[keras.Model, keras.optimizers.Optimizer]],
    make_batches: Callable[[], tf.data.Dataset],
    *,
    file: Path | None = None,
    has_bfloat16: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Precision:
    """Returns the precision to train in.

    With "auto", a few steps are timed in both where the hardware has bfloat16. Kernels written
    for it decide: a processor with AMX doubles the speed of VGG16, and slows a small net with
    BatchNorm down.

    Args:
        wanted: float32, mixed_bfloat16 or auto.
        build: Makes a model and its optimizer under the Keras dtype policy then in force.
        make_batches: Makes training batches (x [B, ...], y [B]), of which the first is timed.
        file: File that keeps auto's choice, so that a resumed run makes the same one.
        has_bfloat16: Whether the hardware has bfloat16 arithmetic; looked up if not given.
        clock: Seconds.
    """
    if wanted != "auto":
        return wanted
    if file and file.exists():
        return BFLOAT16 if file.read_text().strip() == BFLOAT16 else FLOAT32
    choice = FLOAT32
    if (has_bfloat16 or hardware_has_bfloat16)():
        batches = make_batches()
        seconds = {name: _seconds(name, build, batches, clock) for name in (FLOAT32, BFLOAT16)}
        choice = BFLOAT16 if seconds[FLOAT32] >= GAIN * seconds[BFLOAT16] else FLOAT32
    if file:
        with files.atomic(file) as temporary:
            temporary.write_text(choice)
    return choice


@contextlib.contextmanager
def policy(name: Precision) -> Iterator[None]:
    """Sets a dtype policy of Keras within the context."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def hardware_has_bfloat16() -> bool:
    """Returns True if the GPU (compute capability 8.0 on), or else the processor, has bfloat16."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return tuple(details.get("compute_capability", (0, 0))) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _seconds(
    name: Precision,
    build: Callable[[], tuple[keras.Model, keras.optimizers.Optimizer]],
    batches: tf.data.Dataset,
    clock: Callable[[], float],
) -> float:
    """Returns the median seconds of a training step; the first, which traces, is left out."""
    with policy(name):
        model, optimizer = build()
    optimizer.build(model.trainable_variables)
    one = pieces(batches.take(1).cache())
    steps = Steps(model, optimizer, one.element_spec, steps_per_call=1)
    times = []
    for _ in range(1 + ROUNDS):
        started = clock()
        steps.means([call.sums for call in steps.train_epoch(one)])
        times.append(clock() - started)
    return median(times[1:])
