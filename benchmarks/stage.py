"""Cost of a change of stage: in our loop, and where step and iterator are defined again."""

import functools
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks import cifar
from benchmarks.report import Result, Row
from benchmarks.settings import Settings
from benchmarks.speed import OPTIMIZATION
from trainer_module.config import NetworkConfig
from trainer_module.models import registry
from trainer_module.training import optimizer
from trainer_module.training.batch import DatasetFactory, pieces
from trainer_module.training.data import Split, training_factory
from trainer_module.training.step import Steps

_IMAGES = 512


class Ours:
    """The loop's own steps: the rate is assigned, a bigger batch is another dataset."""

    def __init__(self, model: keras.Model, make_dataset: DatasetFactory, batch_size: int) -> None:
        self._make_dataset = make_dataset
        self._optimizer = optimizer.build(OPTIMIZATION)
        self._optimizer.build(model.trainable_variables)
        spec = pieces(make_dataset(batch_size, 1)).element_spec
        self.steps = Steps(model, self._optimizer, spec, steps_per_call=1)
        self.change_batch(batch_size)

    def change_rate(self, rate: float) -> None:
        self._optimizer.learning_rate.assign(rate)

    def change_batch(self, batch_size: int) -> None:
        self._calls = self.steps.train_epoch(pieces(self._make_dataset(batch_size, 1).repeat()))

    def step(self) -> None:
        next(self._calls).sums.numpy()


class Published:
    """The published method: `train_step` is defined again at each change.

    Its cheapest form: the optimizer and its slots are kept, so only tracing is paid for.
    """

    def __init__(self, model: keras.Model, make_dataset: DatasetFactory, batch_size: int) -> None:
        self._model = model
        self._make_dataset = make_dataset
        self._optimizer = optimizer.build(OPTIMIZATION)
        self._optimizer.build(model.trainable_variables)
        self._loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._metrics = (keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy())
        self.change_batch(batch_size)

    def change_rate(self, rate: float) -> None:
        self._optimizer.learning_rate.assign(rate)
        self._define()

    def change_batch(self, batch_size: int) -> None:
        self._batches = iter(self._make_dataset(batch_size, 1).repeat())
        self._define()

    def step(self) -> None:
        self._train_step(*next(self._batches)).numpy()

    def _define(self) -> None:
        @tf.function  # type: ignore[untyped-decorator]
        def train_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                logits = self._model(images, training=True)
                loss = self._loss(labels, logits)
            weights = self._model.trainable_variables
            self._optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self._metrics[0](loss)
            self._metrics[1](labels, logits)
            return loss

        self._train_step: Callable[..., Any] = train_step


class Cost(NamedTuple):
    """Seconds of a change with the first step after it, and of each ordinary step after that."""

    first: float
    ordinary: tuple[float, ...]

    @property
    def extra(self) -> float:
        """Seconds of the change beyond an ordinary step, but at least what can be resolved.

        That is half the interquartile range of ordinary steps.
        """
        low, _, high = quantiles(self.ordinary, n=4)
        return max(self.first - median(self.ordinary), (high - low) / 2, 1e-6)

    @property
    def extra_steps(self) -> float:
        """The same without that floor, in ordinary steps; below 0 within the noise."""
        return self.first / median(self.ordinary) - 1


def cost(step: Callable[[], None], change: Callable[[], None], steps: int) -> Cost:
    """Measures a change, with `steps` ordinary steps after the first."""
    times = []
    for index in range(steps + 1):
        start = time.perf_counter()
        if index == 0:
            change()
        step()
        times.append(time.perf_counter() - start)
    return Cost(times[0], tuple(times[1:]))


def measure(settings: Settings) -> Result:
    """Changes learning rate and batch of VGG16 in turns on both sides."""
    width = 0.05 if settings.quick else 1.0
    rounds = min(settings.rounds, 2) if settings.quick else settings.rounds
    small, large, steps = (8, 32, 4) if settings.quick else (16, 64, 6)
    data = cifar.load(settings.data)
    split = Split(np.array(data.train_x[:_IMAGES]), np.array(data.train_y[:_IMAGES]))
    make_dataset = training_factory(split, None, seed=0)

    def model() -> keras.Model:
        keras.utils.set_random_seed(0)
        network = NetworkConfig(model="vgg16", width_multiplier=width)
        return registry.build(split.x.shape[1:], 10, network)

    ours = Ours(model(), make_dataset, small)
    sides: dict[str, Ours | Published] = {
        "ours": ours,
        "published": Published(model(), make_dataset, small),
    }
    costs: dict[str, dict[str, list[Cost]]] = {
        kind: {name: [] for name in sides} for kind in ("learning rate", "batch")
    }
    for side in sides.values():
        side.step()
    for index in range(rounds):
        rate = OPTIMIZATION.learning_rate / 4 ** (index + 1)
        batch_size = small if index % 2 else large
        for name, side in sides.items():
            changes = {
                "learning rate": functools.partial(side.change_rate, rate),
                "batch": functools.partial(side.change_batch, batch_size),
            }
            for kind, change in changes.items():
                costs[kind][name].append(cost(side.step, change, steps))
    rows = [row for kind, by_name in costs.items() for row in _rows(kind, **by_name)]
    traces = float(ours.steps.traces()["train_step"])
    what = f"traces of our step after {2 * rounds} changes"
    rows.append(Row(what, "one trace", (traces,), "at most", 1.0))
    method = (
        f"VGG16 at width {width:g}, float32; learning rate divided by 4, batch {small} to {large} "
        f"and back, {rounds} changes of each kind (n), {steps} ordinary steps after each. The cost "
        "of a change is the time of the change and the first step after it, less an ordinary "
        "step; where ours is lost in the noise, the ratio takes the noise (half the interquartile "
        "range of a step) for it. The published method keeps its optimizer here, its cheapest form."
    )
    details = {
        kind: {name: [c._asdict() for c in each] for name, each in by_name.items()}
        for kind, by_name in costs.items()
    }
    return Result("stage", method, rows, details)


def _rows(kind: str, ours: list[Cost], published: list[Cost]) -> list[Row]:
    return [
        Row(
            f"cost of a change of {kind}, in ordinary steps",
            "an ordinary step",
            tuple(c.extra_steps for c in ours),
            "at most",
            1.0,
        ),
        Row(
            f"how much cheaper a change of {kind} is",
            "step and iterator defined again",
            tuple(b.extra / a.extra for a, b in zip(ours, published, strict=True)),
            "at least",
            5.0,
            f"there {median(c.extra_steps for c in published):.1f} ordinary steps",
        ),
    ]
