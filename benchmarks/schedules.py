"""Schedules compared on CIFAR-10: accuracy, updates and seconds of each strategy and of Keras.

Every finished run is added to a file at once; an interrupted contest resumes from it.
"""

import functools
import gc
import itertools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from pydantic import TypeAdapter

from benchmarks import cifar, plot, report, speed
from benchmarks.report import Result, Row, ratios
from benchmarks.settings import MOST_IMAGES, Settings
from pipeline import presets
from pipeline.compare import statistics
from pipeline.compare.statistics import Comparison, Spread, Trial
from pipeline.data import fingerprint
from trainer_module import train
from trainer_module.config import ImageFeatures, NetworkConfig, Precision, TrainConfig
from trainer_module.history import History
from trainer_module.models import registry
from trainer_module.recorder import HistoryRecorder
from trainer_module.schedule.strategy import StrategyName
from trainer_module.training import optimizer
from trainer_module.training.data import Split, evaluation_dataset, training_factory
from trainer_module.training.precision import BFLOAT16, FLOAT32, policy

KERAS = "Keras ReduceLROnPlateau"
STRATEGIES: tuple[StrategyName, ...] = ("lr_decay", "batch_increase", "hybrid")
_MONITOR = "val_accuracy"
# An improvement below a standard error of the validation accuracy is chance.
_MIN_DELTA = 0.01
_TARGETS = {"updates": 0.45, "seconds": 0.75, "accuracy": 1.0}


@dataclass(frozen=True)
class Task:
    """What every contestant trains: one config on the same images.

    Attributes:
        config: Model, optimizer, schedule and first batch.
        training: Training images.
        validation: Images that drive the schedule.
        test: Images that the kept weights are judged by.
    """

    config: TrainConfig
    training: Split
    validation: Split
    test: Split

    def settings(self, quick: bool) -> dict[str, Any]:
        """What two runs must have in common to be compared, as JSON values."""
        return {
            "config": self.config.to_json(),
            "images": len(self.training.y),
            "validation_images": len(self.validation.y),
            "test_images": len(self.test.y),
            "quick": quick,
            # Runs of older code are not part of the same contest.
            "code": fingerprint.of_sources(),
            "processor": report.machine()["processor"],
            "tensorflow": version("tensorflow"),
            "keras": version("keras"),
        }


Train = Callable[[Task, keras.Model, int], History]


@dataclass(frozen=True)
class Contestant:
    """A name, a function that trains a model on a task from a seed, and its arithmetic."""

    name: str
    train: Train
    precision: Precision = FLOAT32


def plateau(task: Task, model: keras.Model, seed: int, *, strategy: StrategyName) -> History:
    """Trains with our loop."""
    config = task.config
    return train(
        model,
        optimizer.build(config.optimization),
        training_factory(task.training, config.features, seed),
        evaluation_dataset(task.validation, config.loop.eval_batch_size),
        replace(config.schedule, strategy=strategy),
        num_examples=len(task.training.y),
        batch_size=config.loop.batch_size,
        steps_per_call=config.loop.steps_per_call,
        verbose=False,
    )


def keras_callbacks(task: Task, model: keras.Model, seed: int) -> History:
    """Trains with Keras's callbacks: the same batches, optimizer, factor, patience and cuts."""
    config, schedule = task.config, task.config.schedule
    count, batch_size = len(task.training.y), config.loop.batch_size
    factory = training_factory(task.training, config.features, seed)
    model.compile(
        optimizer.build(config.optimization),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    monitor = {"monitor": _MONITOR, "mode": "max"}
    patience, min_delta = schedule.plateau.patience, schedule.plateau.min_delta
    with tempfile.TemporaryDirectory() as folder:
        recorder = HistoryRecorder(folder, batch_size=batch_size, **monitor)
        model.fit(
            concatenated([factory(batch_size, e + 1) for e in range(schedule.max_epochs)]),
            steps_per_epoch=max(count // batch_size, 1),
            epochs=schedule.max_epochs,
            validation_data=evaluation_dataset(task.validation, config.loop.eval_batch_size),
            verbose=0,
            callbacks=[
                recorder,
                keras.callbacks.ReduceLROnPlateau(
                    **monitor,
                    factor=1 / schedule.factor,
                    patience=patience,
                    min_delta=min_delta,
                    min_lr=config.optimization.known_rate / schedule.factor**schedule.actions,
                ),
                # Both callbacks count the same epochs. Where no cut helps, the run ends once each
                # has had its patience, as our stop rule has it.
                keras.callbacks.EarlyStopping(
                    **monitor,
                    min_delta=min_delta,
                    patience=(schedule.actions + 1) * patience,
                    restore_best_weights=True,
                ),
            ],
        )
    return with_actions(recorder.history)


def with_actions(history: History) -> History:
    """A record of `fit` with what the callbacks did after each epoch, seen from the rates."""
    rates = [record.learning_rate for record in history.epochs]
    actions = ["lr_decay" if b < a else "none" for a, b in itertools.pairwise(rates)]
    epochs = [
        replace(record, action=action, reason="" if action == "none" else f"no better {_MONITOR}")
        for record, action in zip(history.epochs, [*actions, "stop"], strict=True)
    ]
    return replace(history, epochs=tuple(epochs))


CONTESTANTS = (
    *(Contestant(name, functools.partial(plateau, strategy=name)) for name in STRATEGIES),
    Contestant(KERAS, keras_callbacks),
)
PRECISIONS = tuple(
    Contestant(name, functools.partial(plateau, strategy="lr_decay"), name)
    for name in (FLOAT32, BFLOAT16)
)


def contest(settings: Settings, part: str = "contest") -> Result:
    """Compares the strategies and Keras's callbacks on the small CNN."""
    return compete(settings, part)[0]


def full(settings: Settings) -> Result:
    """The contest with as many images as there are, one run of each contestant."""
    return contest(replace(settings, images=MOST_IMAGES, seeds=1), "full")


def compete(settings: Settings, part: str = "contest") -> tuple[Result, Comparison]:
    """Runs what is missing; returns the result, and the runs themselves."""
    task = _small_cnn(settings)
    comparison = _run_missing(settings, part, task, CONTESTANTS)
    found = []
    for own, other, targets in (
        ("batch_increase", "lr_decay", _TARGETS),
        ("batch_increase", KERAS, _TARGETS),
        ("hybrid", "lr_decay", {}),
        ("lr_decay", KERAS, {}),
    ):
        found += rows(comparison, own, other, targets)
    more = (
        f" {KERAS} gets the same batches as lr_decay, as many cuts by the same factor at the same "
        "patience and least improvement, and EarlyStopping with room for every cut and the best "
        "weights restored."
    )
    return _result(settings, part, "Small CNN", task, comparison, found, more), comparison


def precision(settings: Settings) -> Result:
    """Compares VGG16 in float32 and bfloat16 on the same schedule."""
    task = _vgg16(settings)
    comparison = _run_missing(settings, "precision", task, PRECISIONS)
    found = rows(comparison, BFLOAT16, FLOAT32, {"accuracy": 1.0})
    return _result(settings, "precision", "VGG16", task, comparison, found)


def rows(comparison: Comparison, own: str, other: str, targets: Mapping[str, float]) -> list[Row]:
    """Updates, seconds and test accuracy of a contestant, compared with another.

    Args:
        comparison: Runs of both.
        own: Contestant whose figures are the numerators.
        other: The contestant it is compared with.
        targets: Upper bounds of the ratios of "updates" and "seconds", and of how much "accuracy"
            may lag, in standard deviations over the seeds. They count from two seeds on.
    """
    mine, others = comparison.of(own), comparison.of(other)
    bounds = targets if len(comparison.seeds) > 1 else {}
    units: tuple[statistics.Unit, ...] = ("updates", "seconds")
    found = [
        Row(
            f"{unit} of a whole run, {own}",
            other,
            ratios([a.cost(unit) for a in mine], [b.cost(unit) for b in others]),
            "at most",
            bounds.get(unit),
        )
        for unit in units
    ]
    a, b = (Spread(tuple(trial.test_score for trial in side)) for side in (mine, others))
    change = statistics.difference(a, b)
    what, note = f"test accuracy that {own} lacks", f"{a.mean:.4f} against {b.mean:.4f}"
    if change.by_chance is None:
        return [*found, Row(what, other, (0.0 - change.value,), "at most", note=note)]
    lag = change.deviations if change.deviations is not None else math.inf if change.value else 0.0
    values = (math.copysign(lag, 0.0 - change.value),)
    what += ", in standard deviations over seeds"
    return [*found, Row(what, other, values, "at most", bounds.get("accuracy"), note)]


def append(path: Path, settings: Mapping[str, Any], trial: Trial) -> None:
    """Adds a finished run to a JSON Lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        # An interrupted write left half a line, which must not swallow this one.
        if file.tell():
            file.seek(-1, os.SEEK_END)
        broken = file.read(1) not in (b"", b"\n")
        line = json.dumps({"settings": settings, "trial": asdict(trial)}, sort_keys=True)
        file.write(("\n" * broken + line + "\n").encode())


def read(path: Path, settings: Mapping[str, Any]) -> list[Trial]:
    """The runs in a file that were made with these settings; ignores a line that was cut short."""
    trials = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            data = json.loads(line)
        except json.JSONDecodeError:
            continue
        if data["settings"] == dict(settings) and "trial" in data:
            trials.append(TypeAdapter(Trial).validate_python(data["trial"]))
    return trials


def concatenated(datasets: list[tf.data.Dataset]) -> tf.data.Dataset:
    """Datasets one after another, as a balanced tree: a chain of a hundred nests too deeply."""
    if len(datasets) == 1:
        return datasets[0]
    middle = len(datasets) // 2
    return concatenated(datasets[:middle]).concatenate(concatenated(datasets[middle:]))


def _run_missing(
    settings: Settings, part: str, task: Task, contestants: Sequence[Contestant]
) -> Comparison:
    """Runs what the part's file lacks, seed by seed; returns all runs."""
    path, common = settings.output / f"{part}-runs.jsonl", task.settings(settings.quick)
    finished = {(trial.strategy, trial.seed): trial for trial in read(path, common)}
    trials = []
    for seed, contestant in itertools.product(range(_seeds(settings)), contestants):
        trial = finished.get((contestant.name, seed))
        if trial is None:
            trial = _run(task, contestant, seed)
            append(path, common, trial)
            print(
                f"  {trial.strategy}, seed {seed}: {trial.cost('updates'):,} updates, "
                f"{trial.cost('seconds'):.0f} s, test accuracy {trial.test_score:.4f}",
                file=sys.stderr,
                flush=True,
            )
        trials.append(trial)
    return Comparison(tuple(trials))


def _run(task: Task, contestant: Contestant, seed: int) -> Trial:
    keras.backend.clear_session()
    gc.collect()
    keras.utils.set_random_seed(seed)
    with policy(contestant.precision):
        model = registry.build(task.training.x.shape[1:], 10, task.config.network)
    history = contestant.train(task, model, seed)
    hits = [
        np.sum(np.argmax(model(tf.cast(x, tf.float32), training=False), -1) == y.numpy())
        for x, y in evaluation_dataset(task.test, 256)
    ]
    return Trial(contestant.name, seed, history, float(sum(hits)) / len(task.test.y))


def _seeds(settings: Settings) -> int:
    return 1 if settings.quick else settings.seeds


def _small_cnn(settings: Settings) -> Task:
    preset, width = presets.cifar10(), 0.1 if settings.quick else settings.width
    schedule = replace(
        preset.schedule, plateau=replace(preset.schedule.plateau, min_delta=_MIN_DELTA)
    )
    if settings.quick:
        faster = replace(schedule.plateau, patience=1)
        schedule = replace(schedule, max_epochs=6, plateau=faster, max_batch_size=256)
    config = replace(
        preset,
        # With augmentation so few images take far more epochs to reach a plateau.
        features=ImageFeatures(height=32, width=32, channels=3),
        classes=tuple(map(str, range(10))),
        network=replace(preset.network, width_multiplier=width),
        schedule=schedule,
    )
    return _task(settings, config.train_config())


def _vgg16(settings: Settings) -> Task:
    preset, width, max_epochs = presets.cifar10(), 0.25, 60
    if settings.quick:
        width, max_epochs = 0.05, 3
    config = replace(
        preset,
        features=ImageFeatures(height=32, width=32, channels=3),
        classes=tuple(map(str, range(10))),
        network=NetworkConfig(model="vgg16", width_multiplier=width),
        optimization=speed.OPTIMIZATION,
        schedule=replace(
            preset.schedule,
            actions=2,
            max_epochs=max_epochs,
            plateau=replace(preset.schedule.plateau, patience=3),
        ),
        loop=replace(preset.loop, batch_size=64),
    )
    return _task(settings, config.train_config())


def _task(settings: Settings, config: TrainConfig) -> Task:
    """The first of CIFAR-10's images; a fifth as many further ones drive the schedule."""
    data = cifar.load(settings.data)
    images, tests = (256, 256) if settings.quick else (settings.images, len(data.test_y))

    def split(name: str, part: slice) -> Split:
        x, y = getattr(data, f"{name}_x"), getattr(data, f"{name}_y")
        return Split(np.array(x[part]), np.array(y[part]))

    rest = slice(images, images + images // 5)
    first, test = slice(images), slice(tests)
    return Task(config, split("train", first), split("train", rest), split("test", test))


def _result(
    settings: Settings,
    part: str,
    what: str,
    task: Task,
    comparison: Comparison,
    found: Sequence[Row],
    more: str = "",
) -> Result:
    config, runs, seeds = task.config, f"{part}-runs.jsonl", _seeds(settings)
    schedule, optimization = config.schedule, config.optimization
    figure = settings.output / f"{part}.png"
    lines = "mean and s.d. over seeds" if seeds > 1 else "one run of each"
    title = f"{what}, {len(task.training.y):,} CIFAR-10 images; {lines}"
    plot.draw(comparison, figure, title)
    method = (
        f"{what} at width {config.network.width_multiplier:g} on {len(task.training.y):,} of "
        f"CIFAR-10's 50,000 training images in batches of {config.loop.batch_size}, "
        f"{optimization.optimizer.upper()} with learning rate {optimization.learning_rate:g}, "
        f"patience {schedule.plateau.patience}, min_delta {schedule.plateau.min_delta:g}, factor "
        f"{schedule.factor:g}, {schedule.actions} actions, at most {schedule.max_epochs} epochs, "
        f"no augmentation; {len(task.validation.y):,} other images drive the schedule, "
        f"{len(task.test.y):,} test images judge the kept weights. {seeds} seeds; contestants take "
        "turns within a seed. Seconds are of training and validation without the first epoch, "
        f"which builds the graphs.{more} Every run: [{runs}]({runs})."
    )
    return Result(part, method, found, task.settings(settings.quick), figure.name)
