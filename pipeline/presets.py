"""Presets: a data set, a model, a schedule and gates that belong together."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from trainer_module.config import (
    ImageFeatures,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    TableFeatures,
)
from trainer_module.schedule.plateau import PlateauConfig
from trainer_module.schedule.schedule import ScheduleConfig

from .config import GateConfig, RunConfig


class Preset(NamedTuple):
    """Preset as the command line lists it."""

    build: Callable[[], RunConfig]
    data: str
    """Data that it needs."""

    @property
    def purpose(self) -> str:
        """The first line of its function's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]


def images() -> RunConfig:
    """Your own images: one subfolder a class; size, colour and batch are taken from them."""
    return RunConfig(
        name="images",
        features=ImageFeatures(height=64, width=64, channels=3, augment="light"),
        network=NetworkConfig(model="cnn", dropout=0.2),
        optimization=OptimizerConfig(learning_rate=0.02),
        schedule=ScheduleConfig(plateau=PlateauConfig(patience=4), strategy="auto", max_epochs=60),
        loop=LoopConfig(batch_size=32),
    )


def of_images(features: ImageFeatures, count: int) -> RunConfig:
    """Returns the preset `images` for `count` images, as `data.images` describes them."""
    config = images()
    # Of larger images, a step of the whole network takes a CPU a second.
    is_small = max(features.height, features.width) <= 64
    network = replace(config.network, width_multiplier=1.0 if is_small else 0.5)
    batch_size = 2 ** round(math.log2(min(max(count / 128, 8), 64)))
    return replace(
        config, features=features, network=network, loop=replace(config.loop, batch_size=batch_size)
    )


def digits() -> RunConfig:
    """Handwritten digits, 8 x 8, grey: a complete run in under a minute."""
    return RunConfig(
        name="digits",
        features=ImageFeatures(height=8, width=8, channels=1, augment="light", flip=False),
        data_set="digits",
        network=NetworkConfig(model="cnn"),
        # Noisy enough that the first plateau is one of noise: for each of the seeds 0 to 9 the best
        # epoch came after it, with a validation loss 2 to 15 times lower.
        optimization=OptimizerConfig(learning_rate=0.2),
        schedule=ScheduleConfig(
            plateau=PlateauConfig(monitor="val_loss", mode="min", patience=3),
            factor=8,
            max_epochs=60,
        ),
        loop=LoopConfig(batch_size=16),
        gates=GateConfig(min_accuracy=0.95, min_class_accuracy=0.8, max_accuracy_drop=0.02),
    )


def cifar10() -> RunConfig:
    """CIFAR-10, 32 x 32, colour: a small convolutional net, sized for two cores."""
    return RunConfig(
        name="cifar10",
        features=ImageFeatures(height=32, width=32, channels=3, augment="light"),
        data_set="cifar10",
        network=NetworkConfig(model="cnn", width_multiplier=0.25),
        optimization=OptimizerConfig(learning_rate=0.025, weight_decay=1e-4),
        # A small first batch leaves room to grow.
        schedule=ScheduleConfig(plateau=PlateauConfig(patience=7), actions=4, max_epochs=150),
        loop=LoopConfig(batch_size=16),
        gates=GateConfig(min_accuracy=0.5, max_accuracy_drop=0.01),
    )


def cifar10_vgg16() -> RunConfig:
    """The published experiment: VGG16 on CIFAR-10, learning rate / 4 at two plateaus, then stop."""
    return RunConfig(
        name="cifar10-vgg16",
        features=ImageFeatures(height=32, width=32, channels=3),
        data_set="cifar10",
        network=NetworkConfig(model="vgg16"),
        optimization=OptimizerConfig(optimizer="sgd", learning_rate=0.001, momentum=0.9),
        schedule=ScheduleConfig(
            plateau=PlateauConfig(monitor="val_accuracy", mode="max", patience=5),
            strategy="lr_decay",
            factor=4.0,
            actions=2,
        ),
        loop=LoopConfig(batch_size=128),
        gates=GateConfig(min_accuracy=0.5, max_accuracy_drop=0.01),
    )


def taxi() -> RunConfig:
    """Chicago taxi trips, a table: does the tip exceed a fifth of the fare?"""
    return RunConfig(
        name="taxi",
        features=TableFeatures(
            numeric=("trip_miles", "fare", "trip_seconds"),
            bucketized=(
                "pickup_latitude",
                "pickup_longitude",
                "dropoff_latitude",
                "dropoff_longitude",
            ),
            categorical=(
                "payment_type",
                "company",
                "trip_start_month",
                "trip_start_hour",
                "trip_start_day",
                "pickup_community_area",
                "dropoff_community_area",
            ),
            vocabulary_size=100,
            label="tips",
            label_over="fare",
            label_ratio=0.2,
        ),
        classes=("small_tip", "big_tip"),
        data_set="taxi",
        network=NetworkConfig(model="mlp"),
        optimization=OptimizerConfig(learning_rate=0.02),
        schedule=ScheduleConfig(
            plateau=PlateauConfig(monitor="val_loss", mode="min", patience=3), max_epochs=30
        ),
        loop=LoopConfig(batch_size=128),
        gates=GateConfig(min_accuracy=0.85, min_class_accuracy=0.5, max_accuracy_drop=0.01),
    )


def table(features: TableFeatures, classes: tuple[str, ...], schema: str, rows: int) -> RunConfig:
    """Returns the config of a user's own table, as `data.inference` describes it."""
    # Room for the batch to grow, which ends at a tenth of the examples.
    batch_size = 2 ** round(math.log2(min(max(rows / 64, 8), 256)))
    return RunConfig(
        name="table",
        features=features,
        classes=classes,
        inferred_schema=schema,
        network=NetworkConfig(model="mlp", dropout=0.2),
        # On small tables as good from 0.0003 to 0.01, where SGD was from 0.001 to 0.01 only.
        optimization=OptimizerConfig(optimizer="adamw", learning_rate="auto"),
        schedule=ScheduleConfig(
            plateau=PlateauConfig(
                monitor="val_loss",
                mode="min",
                patience=8,
                # A small table's loss may fall for ever, by ever less.
                min_delta=0.01,
                min_delta_mode="relative",
            ),
            strategy="auto",
            max_epochs=200,
        ),
        loop=LoopConfig(batch_size=batch_size),
    )


DEFAULT = "images"
PRESETS: dict[str, Preset] = {
    "images": Preset(images, "your folder: --data PATH"),
    "digits": Preset(digits, "none, comes with scikit-learn"),
    "cifar10": Preset(cifar10, "CIFAR-10 as a folder: --data PATH"),
    "cifar10-vgg16": Preset(cifar10_vgg16, "CIFAR-10 as a folder: --data PATH"),
    "taxi": Preset(taxi, "none, comes with TFX"),
}


def get(name: str) -> Preset:
    """Returns the preset of that name."""
    if name not in PRESETS:
        raise ValueError(
            f"unknown preset {name!r}. Choose one of {', '.join(PRESETS)}; "
            "`plateau presets` says what each is for."
        )
    return PRESETS[name]
