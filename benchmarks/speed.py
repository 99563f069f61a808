"""Images a second: our loop whole, against Keras `fit` and a bare loop."""

import functools
import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks import cifar
from benchmarks.bare import BareLoop
from benchmarks.race import OWN, EpochTimer, fastest, race
from benchmarks.report import Result, Row, ratios
from benchmarks.settings import Settings
from trainer_module import PlateauConfig, ScheduleConfig, train
from trainer_module.config import NetworkConfig, OptimizerConfig, Precision
from trainer_module.models import registry
from trainer_module.training import optimizer
from trainer_module.training.batch import DatasetFactory
from trainer_module.training.callbacks import Callback
from trainer_module.training.data import Split, evaluation_dataset, training_factory
from trainer_module.training.precision import BFLOAT16, FLOAT32, hardware_has_bfloat16, policy

OPTIMIZATION = OptimizerConfig(learning_rate=0.01, momentum=0.9)
_FIT = "Keras fit"
_FIT_BEST = "Keras fit, best steps_per_execution"
_BARE = "bare loop, fastest kind"
_BARE_KINDS: dict[str, int | None] = {
    "one step a call": 1,
    "8 steps a call": 8,
    "32 steps a call": 32,
    "whole epoch in a graph": None,
}
_LEAST = {32: 1.4, 128: 1.1, 512: 1.1}


class _Size(NamedTuple):
    """How much of what is trained in an epoch, and which kinds of rivals are tried first."""

    batches: tuple[int, ...]
    cnn_images: tuple[int, ...]
    vgg_batch: int
    vgg_images: int
    vgg_width: float
    steps_per_execution: tuple[int, ...]
    bare_kinds: tuple[str, ...]


# VGG16's epochs are a few steps only: two cores take about a second for each.
_FULL = _Size(
    (32, 128, 512), (10_240, 10_240, 20_480), 32, 512, 1.0, (2, 8, 32), tuple(_BARE_KINDS)
)
_QUICK = _Size((32,), (256,), 32, 64, 0.05, (8,), ("8 steps a call",))


@dataclass(frozen=True)
class Task:
    """What all contestants of a race train.

    Attributes:
        network: The model.
        training: Training images.
        validation: Images evaluated after each epoch.
        batch_size: Batch size of training and evaluation, in examples.
    """

    network: NetworkConfig
    training: Split
    validation: Split
    batch_size: int

    def model(self, precision: Precision = FLOAT32) -> keras.Model:
        """The model with its first weights, the same for each contestant."""
        keras.utils.set_random_seed(0)
        with policy(precision):
            return registry.build(self.training.x.shape[1:], 10, self.network)

    def factory(self) -> DatasetFactory:
        return training_factory(self.training, None, seed=0)

    def evaluation(self) -> tf.data.Dataset:
        return evaluation_dataset(self.validation, self.batch_size)


def measure(settings: Settings) -> Result:
    """Race the small CNN at each batch size, then VGG16 in each precision."""
    size = _QUICK if settings.quick else _FULL
    rounds = min(settings.rounds, 2) if settings.quick else settings.rounds
    data = cifar.load(settings.data)
    rows: list[Row] = []
    details: dict[str, Any] = {}
    for batch_size, images in zip(size.batches, size.cnn_images, strict=True):
        network = NetworkConfig(model="cnn", width_multiplier=settings.width)
        task = _task(data, network, images, batch_size)
        found, details[f"cnn {batch_size}"] = _small_cnn(task, rounds, size)
        rows += found
        _forget()
    network = NetworkConfig(model="vgg16", width_multiplier=size.vgg_width)
    task = _task(data, network, size.vgg_images, size.vgg_batch)
    found, details["vgg16"] = _vgg16(task, rounds)
    return Result("speed", _method(settings, size, rounds), rows + found, details)


def _small_cnn(task: Task, rounds: int, size: _Size) -> tuple[list[Row], dict[str, Any]]:
    fits = {str(steps): keras_epochs(task, steps) for steps in size.steps_per_execution}
    best_fit, fit_trials = fastest(fits)
    bares = {name: bare_epochs(task, _BARE_KINDS[name]) for name in size.bare_kinds}
    best_bare, bare_trials = fastest(bares)
    rivals = {
        _FIT: keras_epochs(task, 1),
        _FIT_BEST: fits[best_fit],
        _BARE: bares[best_bare],
    }
    del fits, bares
    with tempfile.TemporaryDirectory() as folder:
        own = functools.partial(own_run, task, rounds, folder=Path(folder))
        seconds = race(own, rivals)
    targets = {_FIT: _LEAST[task.batch_size], _FIT_BEST: 1.0, _BARE: 0.97}
    choices = {_FIT: "", _FIT_BEST: f"best: {best_fit}", _BARE: f"fastest: {best_bare}"}
    rows = [
        Row(
            f"small CNN, batch {task.batch_size}",
            rival,
            ratios(seconds[rival], seconds[OWN]),
            "at least",
            targets[rival],
            choices[rival],
        )
        for rival in rivals
    ]
    trials = {"steps_per_execution": fit_trials, "bare": bare_trials}
    return rows, {**_absolute(task, seconds), "trial_seconds": trials}


def _vgg16(task: Task, rounds: int) -> tuple[list[Row], dict[str, Any]]:
    rows: list[Row] = []
    details: dict[str, Any] = {}
    auto = auto_precision()
    for precision, what, target in ((FLOAT32, FLOAT32, 1.0), (auto, "precision auto", 1.8)):
        if what != FLOAT32 and precision == FLOAT32:
            # The race just run was this one; only the target is another.
            note = f"auto is {precision}: the processor has neither amx_bf16 nor avx512_bf16"
        else:
            rivals = {_FIT: keras_epochs(task, 1)}
            own = functools.partial(own_run, task, rounds, precision=precision)
            seconds = race(own, rivals)
            details[precision] = _absolute(task, seconds)
            note = "" if what == FLOAT32 else f"auto is {precision}"
            _forget()
        values = ratios(seconds[_FIT], seconds[OWN])
        against = f"{_FIT}, float32"
        rows.append(Row(f"VGG16, {what}", against, values, "at least", target, note))
    return rows, details


def auto_precision() -> Precision:
    """The precision that `precision auto` of the loop stands for on this machine."""
    return BFLOAT16 if hardware_has_bfloat16() else FLOAT32


def own_run(
    task: Task,
    rounds: int,
    callback: Callback,
    *,
    folder: Path | None = None,
    precision: Precision = FLOAT32,
) -> None:
    """Train with our loop for a warm-up epoch and `rounds` more, whatever the metric does."""
    epochs = rounds + 1
    schedule = ScheduleConfig(plateau=PlateauConfig(patience=epochs), max_epochs=epochs)
    train(
        task.model(precision),
        optimizer.build(OPTIMIZATION),
        task.factory(),
        task.evaluation(),
        schedule,
        num_examples=len(task.training.y),
        batch_size=task.batch_size,
        directory=folder,
        callbacks=[callback],
    )


def keras_epochs(task: Task, steps_per_execution: int) -> EpochTimer:
    """Epochs of `fit` on the batches our loop gets; its set-up before the epoch is not counted."""
    model = task.model()
    model.compile(
        optimizer.build(OPTIMIZATION),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    make_dataset, validation = task.factory(), task.evaluation()

    def epoch(number: int) -> float:
        watch = _Watch()
        dataset = make_dataset(task.batch_size, number)
        model.fit(dataset, validation_data=validation, verbose=0, callbacks=[watch])
        return watch.seconds

    return epoch


def bare_epochs(task: Task, steps_per_call: int | None) -> EpochTimer:
    """Epochs of a bare loop on the batches our loop gets."""
    loop = BareLoop(
        task.model(),
        OPTIMIZATION.known_rate,
        OPTIMIZATION.momentum,
        steps_per_call=steps_per_call,
    )
    make_dataset, validation = task.factory(), task.evaluation()

    def epoch(number: int) -> float:
        dataset = make_dataset(task.batch_size, number)
        start = time.perf_counter()
        sums = loop.train_epoch(dataset), loop.evaluate(validation)
        for value in sums:
            value.numpy()
        return time.perf_counter() - start

    return epoch


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Seconds from the begin to the end of the last epoch."""

    seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds = time.perf_counter() - self._start


def _task(data: cifar.Cifar, network: NetworkConfig, images: int, batch_size: int) -> Task:
    held_out = max(images // 10, 1)
    return Task(
        network,
        Split(np.array(data.train_x[:images]), np.array(data.train_y[:images])),
        Split(np.array(data.test_x[:held_out]), np.array(data.test_y[:held_out])),
        batch_size,
    )


def _absolute(task: Task, seconds: dict[str, list[float]]) -> dict[str, Any]:
    images = len(task.training.y)
    return {
        "seconds": seconds,
        "images_per_second": {name: round(images / median(s), 1) for name, s in seconds.items()},
    }


def _forget() -> None:
    keras.backend.clear_session()
    gc.collect()


def _method(settings: Settings, size: _Size, rounds: int) -> str:
    images = ", ".join(map("{:,}".format, size.cnn_images))
    return (
        f"Whole epochs of real CIFAR-10 images and an evaluation on a tenth as many: "
        f"{images} for the small CNN at its batches (the registry's cnn at width "
        f"{settings.width:g}; our side also keeps history and checkpoints), "
        f"{size.vgg_images:,} in batches of "
        f"{size.vgg_batch} for VGG16 at width {size.vgg_width:g} (no checkpoints). Same model, "
        "batches, SGD with momentum and metrics for all, and for the bare loop our kernels; `fit` "
        "is timed from the begin to the end of its epoch, and no rival's data set is made on the "
        "clock, while ours is. "
        f"{rounds} rounds after one of warm-up, n is their number. "
        "The ratio is the rival's seconds over ours."
    )
