"""One run of the pipeline as one typed value: the single source of every flag of `plateau run`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from components.image_example_gen.split import check_expression
from trainer_module.config import (
    METRICS,
    Features,
    ImageFeatures,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    TableFeatures,
    TrainConfig,
)
from trainer_module.schedule.scaling import TrainingSpec
from trainer_module.schedule.schedule import ScheduleConfig, forecast
from trainer_module.schedule.state import Stage
from trainer_module.util.checks import require

from .evaluation import GateConfig
from .metadata.database import MetadataConfig
from .runners.beam import BeamConfig

MONITORS = (*METRICS, *(f"val_{name}" for name in METRICS))
"""Metrics that the Trainer measures after each epoch."""


@dataclass(frozen=True)
class RunConfig:
    """What a run needs to know. Every field is a flag; a preset gives the defaults.

    Attributes:
        name: Name of the preset, from which the pipeline and the committed schema are named.
        features: How raw examples become tensors.
        output: Folder for all that a run writes: artifacts, metadata, pushed models, logs. If not
            given, runs/ and the name of the preset; for a preset without a data set of its own
            (images), the name of the data folder.
        data: Folder with one subfolder of pictures a class, or for a table a folder of CSV files.
        schema: TFMD schema (.pbtxt) the data must satisfy; if not given, the preset's committed
            one, or for pictures one written from the class names.
        classes: Class names in the order of the label indices; if not given, the names of the
            subfolders in alphabetical order.
        on_bad_image: What to do about a picture that cannot be decoded: stop and name it, or
            leave it out and count it.
        on_missing_label: What to do about rows of a table that have no label: stop and name them,
            or leave them out and count them.
        group_by: Regular expression that finds in an image's path below the data folder what its
            group is called: a person, say, or a burst. The images of a group lie in one split.
        warm_start: Start from the weights of the last blessed model, if there is one.
        tune: Trials of a search for learning rate, first batch, patience and model width; 0 for no
            search.
        verbose: Show the log on the console too.
        network: The model.
        optimization: The optimizer.
        schedule: What happens at a plateau.
        loop: How the loop runs.
        gates: What a model must reach to be pushed.
        beam: Where Apache Beam runs the data steps.
        metadata: Where ML Metadata keeps the runs.
        data_set: Name of the data set: that of its committed schema, and of the built-in data
            used where `data` is not given.
    """

    name: tyro.conf.Suppress[str]
    features: Features
    output: Path | None = None
    data: Path | None = None
    schema: Path | None = None
    classes: tuple[str, ...] = ()
    on_bad_image: Literal["fail", "skip"] = "fail"
    on_missing_label: Literal["fail", "skip"] = "fail"
    group_by: str | None = None
    warm_start: bool = False
    tune: int = 0
    verbose: bool = False
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimization: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    gates: GateConfig = field(default_factory=GateConfig)
    beam: BeamConfig = field(default_factory=BeamConfig)
    metadata: MetadataConfig = field(default_factory=MetadataConfig)
    data_set: tyro.conf.Suppress[str] = ""

    def __post_init__(self) -> None:
        """Check what involves more than one field."""
        require(
            not isinstance(self.features, TableFeatures) or len(self.classes) >= 2,
            "a table needs the names of its classes, two at least",
            self.classes,
            "Name them with --classes, in the order of the label values.",
        )
        require(
            isinstance(self.features, TableFeatures) or self.on_missing_label == "fail",
            "on_missing_label is for tables",
            self.on_missing_label,
            "Leave it out: the label of an image is the name of its folder.",
        )
        if self.group_by is not None:
            require(
                isinstance(self.features, ImageFeatures),
                "group_by is for images",
                self.group_by,
                "Leave it out: the rows of a table are split by their contents.",
            )
            check_expression(self.group_by)
        require(self.tune >= 0, "tune must be at least 0 trials", self.tune, "Try --tune 10.")
        monitor = self.schedule.plateau.monitor
        require(
            monitor in MONITORS,
            f"monitor must be one of {', '.join(MONITORS)}",
            monitor,
            "Try --monitor val_loss --mode min.",
        )
        self.forecast(sys.maxsize)

    @property
    def folder(self) -> Path:
        """The output folder: the one given, or the default one."""
        if self.output is not None:
            return self.output
        if self.data_set or self.data is None:
            return Path("runs") / self.name
        try:
            name = self.data.expanduser().resolve().name
        # The first look at the data says what is wrong with it.
        except (OSError, RuntimeError):
            name = ""
        # The root of the file system has no name.
        return Path("runs") / (name or self.name)

    def forecast(self, num_examples: int) -> tuple[Stage, ...]:
        """What the schedule will do at each plateau.

        Args:
            num_examples: Training examples in an epoch.

        Raises:
            ValueError: Learning rate or batch size do not fit the schedule's bounds or the data.
        """
        optimization = self.optimization
        spec = TrainingSpec(num_examples, optimization.optimizer, optimization.momentum)
        return forecast(self.schedule, spec, optimization.learning_rate, self.loop.batch_size)

    def train_config(self) -> TrainConfig:
        """The part that the Trainer reads.

        Raises:
            ValueError: Fewer than two classes; for pictures they are known once the data folder
                has been scanned (`pipeline.data.dataset.resolve`).
        """
        return TrainConfig(
            features=self.features,
            classes=self.classes,
            network=self.network,
            optimization=self.optimization,
            schedule=self.schedule,
            loop=self.loop,
        )
