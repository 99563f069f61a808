"""Schedules against each other on CIFAR-10: the same accuracy in how many updates and seconds?

Every finished run is added to a file at once; an interrupted contest goes on where it stopped.
"""

import contextlib
import functools
import gc
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import cifar, hardware, plot, runs
from benchmarks.report import Result
from benchmarks.runs import Epoch, Run
from benchmarks.settings import Settings
from pipeline import presets
from pipeline.compare.statistics import Comparison as SideBySide
from pipeline.data import fingerprint
from trainer_module import train
from trainer_module.config import ImageFeatures, Precision, TrainConfig
from trainer_module.history import EpochRecord, History
from trainer_module.models import registry
from trainer_module.schedule.scaling import TrainingSpec
from trainer_module.schedule.strategy import StrategyName
from trainer_module.training import optimizer, precision
from trainer_module.training.data import Split, evaluation_dataset, training_factory

KERAS = "Keras ReduceLROnPlateau"
STRATEGIES: tuple[StrategyName, ...] = ("lr_decay", "batch_increase", "hybrid")
_CURVE_IMAGES = 1_000
_MIN_DELTA = 0.01
PART = "contest"


@dataclass(frozen=True)
class Course:
    """What every contestant runs over.

    Attributes:
        config: The training run: features, model, optimizer, schedule, batch.
        training: Training images.
        validation: Images that steer the schedule.
        test: Images the kept weights are judged by.
    """

    config: TrainConfig
    training: Split
    validation: Split
    test: Split

    @property
    def curve(self) -> Split:
        """Test images of the curves."""
        return Split(self.test.x[:_CURVE_IMAGES], self.test.y[:_CURVE_IMAGES])

    @property
    def spec(self) -> TrainingSpec:
        """What the update noise depends on beside learning rate and batch."""
        optimization = self.config.optimization
        return TrainingSpec(len(self.training.y), optimization.optimizer, optimization.momentum)

    def settings(self, settings: Settings) -> dict[str, Any]:
        """What two runs must have in common to be compared."""
        return {
            # JSON has no tuples: the settings must read back as they were written.
            "config": self.config.to_json(),
            "images": len(self.training.y),
            "validation_images": len(self.validation.y),
            "test_images": len(self.test.y),
            "quick": settings.quick,
            # Runs of older code are no part of the same contest.
            "code": fingerprint.of_sources(),
            "processor": hardware.describe()["processor"],
            "tensorflow": version("tensorflow"),
            "keras": version("keras"),
        }


def measure(settings: Settings) -> Result:
    """Run what is missing, then compare."""
    return compete(settings)[0]


def runs_file(part: str = PART) -> str:
    """Name of the file of a part's finished runs."""
    return f"{part}-runs.jsonl"


def figure_file(part: str) -> str:
    """Name of the file of a part's figure."""
    return f"{part}.png"


def compete(settings: Settings, part: str = PART) -> tuple[Result, SideBySide]:
    """Run what is missing; what it comes to, and the runs themselves.

    Args:
        settings: Images, seeds, folders.
        part: Name that results and runs are filed under.
    """
    course = _course(settings)
    common = course.settings(settings)
    finished = run_missing(settings, part, course, common, CONTESTANTS)
    targets = {"updates": 0.45, "seconds": 0.75, "accuracy": 1.0}
    rows = []
    for own, other, bounds in (
        ("batch_increase", "lr_decay", targets),
        ("batch_increase", KERAS, targets),
        ("hybrid", "lr_decay", {}),
        ("lr_decay", KERAS, {}),
    ):
        rows += runs.compare(finished, own, other, bounds)
        rows += runs.compare_on_the_way(finished, own, other)
    side_by_side = draw(settings, part, "Small CNN", course, finished)
    method = _method(course, settings, runs_file(part))
    return Result(part, method, rows, common, figure_file(part)), side_by_side


def run_missing(
    settings: Settings,
    part: str,
    course: Course,
    common: Mapping[str, Any],
    contestants: Sequence["Contestant"],
) -> list[Run]:
    """Run what the file of finished runs lacks; all runs, in turns within a seed.

    Args:
        settings: Seeds and folder.
        part: Name that the runs are filed under; each is added as it ends.
        course: What they run over.
        common: What runs must have in common to be compared.
        contestants: Who runs.
    """
    path, seeds = settings.output / runs_file(part), _seeds(settings)
    finished = runs.read(path, common)
    for seed in range(seeds):
        for contestant in contestants:
            if any((run.contestant, run.seed) == (contestant.name, seed) for run in finished):
                continue
            run = _run(course, contestant, seed, common)
            runs.append(path, run)
            finished.append(run)
            _say(run)
    return [run for run in finished if run.seed < seeds]


def _run(course: Course, contestant: "Contestant", seed: int, common: Mapping[str, Any]) -> Run:
    keras.backend.clear_session()
    gc.collect()
    keras.utils.set_random_seed(seed)
    with precision.policy(contestant.precision):
        model = registry.build(course.training.x.shape[1:], 10, course.config.network)
    clock = Clock()
    judge = Judge(model, course.curve, clock)
    epochs, stop_reason = contestant.train(course, model, judge, seed)
    final = Judge(model, course.test, clock)()
    return Run(contestant.name, seed, common, tuple(epochs), final, stop_reason)


def draw(
    settings: Settings, part: str, what: str, course: Course, finished: Sequence[Run]
) -> SideBySide:
    """Draw a part's figure; the runs as `plateau compare` shows them.

    Args:
        settings: Seeds and folder.
        part: Name that the figure is filed under.
        what: What was trained.
        course: What they ran over.
        finished: All runs.
    """
    lines = "mean and s.d. over seeds" if _seeds(settings) > 1 else "one run of each"
    title = f"{what}, {len(course.training.y):,} CIFAR-10 images; {lines}"
    side_by_side = runs.comparison(finished, course.spec)
    plot.draw(side_by_side, runs.TEST, settings.output / figure_file(part), title)
    return side_by_side


def which_seeds(settings: Settings) -> str:
    """Which seeds are run, in words."""
    seeds = _seeds(settings)
    return "Seed 0" if seeds == 1 else f"Seeds 0 to {seeds - 1}"


def _seeds(settings: Settings) -> int:
    return 1 if settings.quick else settings.seeds


class Clock:
    """Seconds that can be stopped while something is done that is no part of training."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._stopped = 0.0

    def __call__(self) -> float:
        return self._now() - self._stopped

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still inside the context."""
        start = self._now()
        try:
            yield
        finally:
            self._stopped += self._now() - start


class Judge:
    """Accuracy of a model on a split, off the clock."""

    def __init__(self, model: keras.Model, split: Split, clock: Clock) -> None:
        self.clock = clock
        self._dataset = evaluation_dataset(split, 256)

        def hits(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            logits = model(tf.cast(x, tf.float32), training=False)
            return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, -1), y), tf.float32))

        spec = self._dataset.element_spec
        self._hits = tf.function(hits, input_signature=spec, autograph=False)

    def __call__(self) -> float:
        with self.clock.paused():
            found = [(float(self._hits(x, y)), len(y)) for x, y in self._dataset]
            return sum(share * n for share, n in found) / sum(n for _, n in found)


class _Curve:
    """A history writer that judges the model after each epoch of our loop."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.epochs: list[Epoch] = []

    def start(self, history: History) -> None:
        """Nothing: every run is fresh."""

    def batch(self, done: int, steps: int | None) -> None:
        """Nothing: a point an epoch."""

    def epoch(self, record: EpochRecord) -> None:
        self.epochs.append(
            Epoch(
                record.epoch,
                record.updates,
                record.seconds,
                record.metrics["val_accuracy"],
                self._judge(),
                record.learning_rate,
                record.batch_size,
                record.action,
            )
        )

    def note(self, text: str) -> None:
        """Nothing: nobody watches."""

    def close(self, history: History) -> None:
        """Nothing to close."""


def plateau(
    course: Course, model: keras.Model, judge: Judge, seed: int, *, strategy: StrategyName
) -> tuple[list[Epoch], str]:
    """Train with our loop; the epochs, and why it stopped."""
    config, curve = course.config, _Curve(judge)
    history = train(
        model,
        optimizer.build(config.optimization),
        training_factory(course.training, config.features, seed),
        evaluation_dataset(course.validation, config.loop.eval_batch_size),
        replace(config.schedule, strategy=strategy),
        num_examples=len(course.training.y),
        batch_size=config.loop.batch_size,
        steps_per_call=config.loop.steps_per_call,
        writers=[curve],
        clock=judge.clock,
    )
    return curve.epochs, history.stop_reason


def _keras(course: Course, model: keras.Model, judge: Judge, seed: int) -> tuple[list[Epoch], str]:
    """The same batches, optimizer, factor, patience and number of cuts, by Keras's callbacks."""
    config, schedule = course.config, course.config.schedule
    count, batch_size = len(course.training.y), config.loop.batch_size
    factory = training_factory(course.training, config.features, seed)
    batches = concatenated([factory(batch_size, e + 1) for e in range(schedule.max_epochs)])
    model.compile(
        optimizer.build(config.optimization),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    monitor = {"monitor": "val_accuracy", "mode": "max"}
    curve = _KerasCurve(judge, batch_size)
    patience = schedule.plateau.patience
    model.fit(
        batches,
        steps_per_epoch=max(count // batch_size, 1),
        epochs=schedule.max_epochs,
        validation_data=evaluation_dataset(course.validation, config.loop.eval_batch_size),
        verbose=0,
        callbacks=[
            curve,
            keras.callbacks.ReduceLROnPlateau(
                **monitor,
                factor=1 / schedule.factor,
                patience=patience,
                min_delta=schedule.plateau.min_delta,
                min_lr=config.optimization.learning_rate / schedule.factor**schedule.actions,
            ),
            # Both callbacks count the same epochs. Where no cut helps, the run ends once each has
            # had its patience, as our one stop rule has it.
            keras.callbacks.EarlyStopping(
                **monitor,
                min_delta=schedule.plateau.min_delta,
                patience=(schedule.actions + 1) * patience,
                restore_best_weights=True,
            ),
        ],
    )
    return curve.marked(), "plateau" if len(curve.epochs) < schedule.max_epochs else "max_epochs"


class _KerasCurve(keras.callbacks.Callback):  # type: ignore[misc]
    """Judges the model after each epoch of `fit`."""

    def __init__(self, judge: Judge, batch_size: int) -> None:
        super().__init__()
        self._judge = judge
        self._batch_size = batch_size
        self.epochs: list[Epoch] = []

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._start = self._judge.clock()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._rate = float(self.model.optimizer.learning_rate.numpy())

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.epochs.append(
            Epoch(
                epoch + 1,
                int(self.model.optimizer.iterations.numpy()),
                self._judge.clock() - self._start,
                float((logs or {})["val_accuracy"]),
                self._judge(),
                self._rate,
                self._batch_size,
                "none",
            )
        )

    def marked(self) -> list[Epoch]:
        """The epochs with what the callbacks did after each, seen from the rates."""
        rates = [epoch.learning_rate for epoch in self.epochs]
        actions = ["lr_decay" if b < a else "none" for a, b in itertools.pairwise(rates)]
        return [
            replace(epoch, action=action)
            for epoch, action in zip(self.epochs, [*actions, "stop"], strict=True)
        ]


@dataclass(frozen=True)
class Contestant:
    """Who runs.

    Attributes:
        name: Name in tables and files.
        train: Trains a model; the epochs, and why it stopped.
        precision: Arithmetic of the model.
    """

    name: str
    train: Callable[[Course, keras.Model, Judge, int], tuple[list[Epoch], str]]
    precision: Precision = precision.FLOAT32


CONTESTANTS = (
    *(Contestant(name, functools.partial(plateau, strategy=name)) for name in STRATEGIES),
    Contestant(KERAS, _keras),
)


def concatenated(datasets: list[tf.data.Dataset]) -> tf.data.Dataset:
    """Datasets one after another, as a balanced tree: a chain of a hundred nests too deeply."""
    if len(datasets) == 1:
        return datasets[0]
    middle = len(datasets) // 2
    return concatenated(datasets[:middle]).concatenate(concatenated(datasets[middle:]))


def _course(settings: Settings) -> Course:
    data = cifar.load(settings.data)
    preset = presets.cifar10()
    config = replace(
        preset,
        # With augmentation so few images take far more epochs to stall than an hour has room for.
        features=ImageFeatures(height=32, width=32, channels=3),
        classes=tuple(map(str, range(10))),
        # Less than a standard error of the validation accuracy is chance.
        schedule=replace(
            preset.schedule, plateau=replace(preset.schedule.plateau, min_delta=_MIN_DELTA)
        ),
    ).train_config()
    images, test_images = settings.images, len(data.test_y)
    width, schedule = settings.width, config.schedule
    if settings.quick:
        images, test_images, width = 256, 256, 0.1
        schedule = replace(
            schedule,
            max_epochs=6,
            plateau=replace(schedule.plateau, patience=1),
            max_batch_size=256,
        )
    config = replace(
        config, network=replace(config.network, width_multiplier=width), schedule=schedule
    )
    return course_of(data, config, images, test_images)


def course_of(data: cifar.Cifar, config: TrainConfig, images: int, test_images: int) -> Course:
    """A course on the first of CIFAR-10's images; a fifth as many further ones steer the schedule.

    Args:
        data: CIFAR-10.
        config: The training run.
        images: Training images.
        test_images: Test images.
    """
    rest = slice(images, images + images // 5)
    return Course(
        config,
        Split(np.array(data.train_x[:images]), np.array(data.train_y[:images])),
        Split(np.array(data.train_x[rest]), np.array(data.train_y[rest])),
        Split(np.array(data.test_x[:test_images]), np.array(data.test_y[:test_images])),
    )


def _say(run: Run) -> None:
    print(
        f"  {run.contestant}, seed {run.seed}: {len(run.epochs)} epochs, {run.updates:,} updates, "
        f"{run.seconds:.0f} s, test accuracy {run.test_accuracy:.4f} ({run.stop_reason})",
        file=sys.stderr,
        flush=True,
    )


def _method(course: Course, settings: Settings, file: str) -> str:
    schedule, network = course.config.schedule, course.config.network
    return (
        f"The cifar10 preset (patience {schedule.plateau.patience}, an improvement counts from "
        f"{schedule.plateau.min_delta:g}, factor {schedule.factor:g}, "
        f"{schedule.actions} actions, batch {course.config.loop.batch_size}, learning "
        f"rate {course.config.optimization.learning_rate:g}, "
        f"{asdict(course.config.optimization)['optimizer'].upper()}) with its CNN at width "
        f"{network.width_multiplier:g}, without augmentation and on {len(course.training.y):,} of "
        f"the 50,000 training images; {len(course.validation.y):,} others steer the schedule, "
        f"{len(course.test.y):,} test images judge the kept weights, the first "
        f"{len(course.curve.y):,} of them the curves. {which_seeds(settings)}; contestants take "
        "turns within a seed. Seconds hold tracing, training and validation, not the test "
        f"evaluations. {KERAS} gets the same batches as lr_decay, as many cuts by the same factor "
        "at the same patience and least improvement, and EarlyStopping at "
        f"{schedule.actions + 1} times that patience, room for every cut, with the best weights "
        f"restored. Every run: [{file}]({file})."
    )
