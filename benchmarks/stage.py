"""What a change of stage costs: ours, against defining step and iterator anew."""

import functools
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from benchmarks import cifar
from benchmarks.comparison import Comparison
from benchmarks.report import Result
from benchmarks.settings import Settings
from benchmarks.speed import OPTIMIZATION
from trainer_module.config import NetworkConfig
from trainer_module.models import registry
from trainer_module.training import optimizer
from trainer_module.training.batch import DatasetFactory, pieces
from trainer_module.training.data import Split, training_factory
from trainer_module.training.step import Steps

_IMAGES = 512


class Trainee(Protocol):
    """Something that trains step by step and can change its stage between two steps."""

    def change_rate(self, rate: float) -> None: ...

    def change_batch(self, batch_size: int) -> None: ...

    def step(self) -> None:
        """One update, waited for."""


class Ours:
    """The loop's own steps: the rate is assigned, a bigger batch is another data set."""

    def __init__(self, model: keras.Model, make_dataset: DatasetFactory, batch_size: int) -> None:
        self._make_dataset = make_dataset
        self._optimizer = optimizer.build(OPTIMIZATION)
        self._optimizer.build(model.trainable_variables)
        spec = pieces(make_dataset(batch_size, 1)).element_spec
        self._steps = Steps(model, self._optimizer, spec, steps_per_call=1)
        self.change_batch(batch_size)

    def change_rate(self, rate: float) -> None:
        self._optimizer.learning_rate.assign(rate)

    def change_batch(self, batch_size: int) -> None:
        dataset = self._make_dataset(batch_size, 1).repeat()
        self._calls = self._steps.train_epoch(pieces(dataset))

    def step(self) -> None:
        next(self._calls).sums.numpy()

    @property
    def traces(self) -> int:
        return self._steps.traces()["train_step"]


class Published:
    """The published method: `train_step` is defined anew at each change.

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
    """One change, measured.

    Attributes:
        first: Seconds of the change and the first step after it.
        ordinary: Seconds of each step after that.
    """

    first: float
    ordinary: tuple[float, ...]

    @property
    def extra(self) -> float:
        """Seconds the change cost beyond an ordinary step, but no less than can be resolved."""
        return max(self.first - median(self.ordinary), self.resolution)

    @property
    def extra_steps(self) -> float:
        """The same without that floor, in ordinary steps; below 0 within the noise."""
        return self.first / median(self.ordinary) - 1

    @property
    def resolution(self) -> float:
        """Half the interquartile range of ordinary steps, in seconds."""
        low, _, high = quantiles(self.ordinary, n=4)
        return max((high - low) / 2, 1e-6)


def cost(trainee: Trainee, change: Callable[[], None], steps: int) -> Cost:
    """Measure a change, with `steps` ordinary steps after it."""
    times = []
    for index in range(steps + 1):
        start = time.perf_counter()
        if index == 0:
            change()
        trainee.step()
        times.append(time.perf_counter() - start)
    return Cost(times[0], tuple(times[1:]))


def measure(settings: Settings) -> Result:
    """Change learning rate and batch of VGG16 in turns on both sides."""
    width = 0.05 if settings.quick else 1.0
    rounds = min(settings.rounds, 2) if settings.quick else settings.rounds
    small, large, steps = (8, 32, 4) if settings.quick else (16, 64, 6)
    data = cifar.load(settings.data)
    split = Split(np.array(data.train_x[:_IMAGES]), np.array(data.train_y[:_IMAGES]))
    make_dataset = training_factory(split, None, seed=0)

    def model() -> keras.Model:
        keras.utils.set_random_seed(0)
        return registry.build(
            split.x.shape[1:], 10, NetworkConfig(model="vgg16", width_multiplier=width)
        )

    ours = Ours(model(), make_dataset, small)
    published = Published(model(), make_dataset, small)
    found: dict[str, dict[str, list[Cost]]] = {
        kind: {"ours": [], "published": []} for kind in ("learning rate", "batch")
    }
    trainees: dict[str, Trainee] = {"ours": ours, "published": published}
    ours.step()
    published.step()
    for index in range(rounds):
        rate = OPTIMIZATION.learning_rate / 4 ** (index + 1)
        batch_size = small if index % 2 else large
        for name, trainee in trainees.items():
            changes: dict[str, Callable[[], None]] = {
                "learning rate": functools.partial(trainee.change_rate, rate),
                "batch": functools.partial(trainee.change_batch, batch_size),
            }
            for kind, change in changes.items():
                found[kind][name].append(cost(trainee, change, steps))
    rows = [row for kind, costs in found.items() for row in _rows(kind, costs)]
    rows.append(
        Comparison(
            f"traces of our step after {2 * rounds} changes",
            "one trace",
            (float(ours.traces),),
            "at most",
            1.0,
        )
    )
    method = (
        f"VGG16 at width {width:g}, float32; learning rate divided by 4, batch {small} to {large} "
        f"and back, {rounds} changes of each kind (n), {steps} ordinary steps after each. What a "
        "change costs is the time of the change and the first step after it, less an ordinary "
        "step; where ours is lost in the noise, the ratio takes the noise (half the interquartile "
        "range of a step) for it. The published method keeps its optimizer here, its cheapest form."
    )
    details = {
        kind: {name: [c._asdict() for c in costs] for name, costs in by.items()}
        for kind, by in found.items()
    }
    return Result("stage", method, rows, details)


def _rows(kind: str, costs: dict[str, list[Cost]]) -> list[Comparison]:
    ours, published = costs["ours"], costs["published"]
    return [
        Comparison(
            f"cost of a change of {kind}, in ordinary steps",
            "an ordinary step",
            tuple(c.extra_steps for c in ours),
            "at most",
            1.0,
        ),
        Comparison(
            f"how much cheaper a change of {kind} is",
            "step and iterator defined anew",
            tuple(b.extra / a.extra for a, b in zip(ours, published, strict=True)),
            "at least",
            5.0,
            f"there {median(c.extra_steps for c in published):.1f} ordinary steps",
        ),
    ]
