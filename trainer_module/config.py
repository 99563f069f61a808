"""Configuration of one training run, as typed values that survive a round trip through JSON."""

import dataclasses
import functools
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Interval

from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.util.checks import UserError, check_fields, require


@dataclass(frozen=True)
class ImageFeatures:
    """How images become a tensor [height, width, channels] of pixel values 0 to 255."""

    height: Annotated[int, Interval(ge=8, le=1024)] = 64
    """Rows every image is resized to, in pixels."""
    width: Annotated[int, Interval(ge=8, le=1024)] = 64
    """Columns every image is resized to, in pixels."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for colour; other images are converted."""
    augment: Literal["none", "light", "strong"] = "none"
    """Random changes to training images, drawn anew each epoch. light crops them out of the image
    with zeros around it, an eighth of its height and width, and flips. strong shifts them by as
    much, flips, rotates by up to 18 degrees, zooms by up to a fifth, and changes contrast and
    brightness; what comes in from outside mirrors the image."""
    flip: bool = True
    """Whether augmentation also flips images left to right. Where the mirror image means something
    else, as that of a letter does, it should not."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        check_fields(self)


@dataclass(frozen=True)
class TableFeatures:
    """How the columns of a table become a vector, and which of them is the label."""

    numeric: tuple[str, ...] = ()
    """Columns scaled to zero mean and unit variance."""
    bucketized: tuple[str, ...] = ()
    """Columns cut into `buckets` quantiles, each one-hot."""
    categorical: tuple[str, ...] = ()
    """Columns (text or integers) looked up in a vocabulary, each one-hot."""
    dates: tuple[str, ...] = ()
    """Columns of dates, as in 2026-01-31 or 2026-01-31T18:30:00 (ISO 8601), each of which becomes
    the day, scaled, and month, weekday and time of day as points on circles."""
    # Buckets and vocabulary are columns of the model's input, for each column of the table.
    buckets: Annotated[int, Interval(ge=2, le=1000)] = 10
    """Quantiles a bucketized column is cut into."""
    vocabulary_size: Annotated[int, Interval(ge=1, le=100_000)] = 1000
    """Most frequent values kept for a categorical column."""
    label: str = "label"
    """Column that holds the label, or the numerator where label_over is given."""
    task: Literal["classification", "regression"] = "classification"
    """What is predicted: the class of a row, or a number."""
    label_scale: Literal["linear", "log"] = "linear"
    """Scale on which a number is learned, standardised: linear, or log(1 + label) for labels of 0
    or more with a long tail."""
    label_over: str | None = None
    """Where given, the label is whether `label` exceeds label_ratio x this column."""
    label_ratio: float = 0.0
    """Ratio above which an example is of the second class."""

    def __post_init__(self) -> None:
        """Checks ranges, and that there is a feature column."""
        check_fields(self)
        require(
            bool(self.inputs),
            "a table must have at least one feature column",
            (),
            "Name some as `numeric`, `bucketized`, `categorical` or `dates`.",
        )
        if self.task == "classification":
            require(
                self.label_scale == "linear",
                "`label_scale` is for regression",
                self.label_scale,
                "Leave it out, or set `task=regression`.",
            )
        else:
            require(
                self.label_over is None,
                "`label_over` is for classification",
                self.label_over,
                "Leave it out: a regression predicts the column `label` itself.",
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that the model's input is made of, each once."""
        names = (*self.numeric, *self.bucketized, *self.categorical, *self.dates)
        return tuple(dict.fromkeys(names))

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that the label is made of."""
        return (self.label,) if self.label_over is None else (self.label, self.label_over)


Features: TypeAlias = ImageFeatures | TableFeatures
Precision: TypeAlias = Literal["float32", "mixed_bfloat16", "auto"]

MODELS = ("cnn", "mlp", "resnet", "vgg16")
"""Names of the built-in models, each a module of `trainer_module.models`."""

_PLACEHOLDER = 0.01


def is_regression(features: Features) -> bool:
    """Returns whether the model predicts a number, not a class."""
    return isinstance(features, TableFeatures) and features.task == "regression"


def metrics(features: Features) -> tuple[str, ...]:
    """Returns what `run_fn.run_fn` measures on both splits; of validation as val_loss and so on.

    The loss of a regression is of the standardised target, its `mae` in units of the label.
    """
    return ("loss", "mae") if is_regression(features) else ("loss", "accuracy")


@dataclass(frozen=True)
class NetworkConfig:
    """The model."""

    model: str = "cnn"
    """cnn, vgg16, resnet, mlp, or the dotted path of your own `build(input_shape, num_classes,
    config) -> keras.Model`, which returns logits."""
    width_multiplier: Annotated[float, Interval(ge=0.05, le=16)] = 1.0
    """Multiplies the number of filters or units in each layer."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of activations dropped before the last layer."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        check_fields(self)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its first learning rate."""

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Keras optimizer."""
    learning_rate: Annotated[float, Interval(gt=0, le=100)] | Literal["auto"] = 0.05
    """Learning rate of the first epoch; auto finds it by a range test (Smith 2017): about a hundred
    updates at growing rates, which are undone."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Whether SGD's momentum is Nesterov's."""
    weight_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decoupled weight decay per step, relative to the learning rate."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        check_fields(self)

    @property
    def known_rate(self) -> float:
        """The learning rate, or for auto a number in its place until it is found."""
        return _PLACEHOLDER if self.learning_rate == "auto" else self.learning_rate


@dataclass(frozen=True)
class LoopConfig:
    """How the loop runs, apart from what the schedule decides."""

    batch_size: Annotated[int, Ge(1)] = 64
    """Global batch size of the first epoch, in examples."""
    eval_batch_size: Annotated[int, Ge(1)] = 256
    """Batch size of validation, in examples; fixed for the whole run."""
    micro_batch: Annotated[int | None, Ge(1)] = None
    """Largest batch computed at once; a bigger one accumulates gradients."""
    precision: Precision = "float32"
    """Arithmetic of the model; auto tries both in a few steps where the hardware has bfloat16 and
    takes the faster one."""
    # Each step of a call is a part of the traced graph.
    steps_per_call: Annotated[int, Interval(ge=1, le=256)] = 8
    """Training steps run by one call of the traced function."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced gives each class the same weight in the training loss, however many examples it has;
    validation is not weighted."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of weights, shuffling and augmentation."""
    deterministic: bool = True
    """Whether to use only kernels that give the same result each time, so that repeated and resumed
    runs are equal bit for bit."""
    cache_mib: Annotated[int, Ge(1)] = 4096
    """Decoded training data kept in memory up to this many MiB, on disk beyond it."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        check_fields(self)


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    features: Features
    """How raw examples become tensors."""
    classes: tuple[str, ...]
    """Class names in the order of the label indices; none for a regression."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The model."""
    optimization: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """What happens at a plateau."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """How the loop runs."""

    def __post_init__(self) -> None:
        """Checks the class names."""
        if is_regression(self.features):
            require(
                not self.classes,
                "a regression has no `classes`",
                self.classes,
                "Leave them out, or set `task=classification`.",
            )
            require(
                self.loop.class_weight == "none",
                "`class_weight` is for classification",
                self.loop.class_weight,
                "Leave it out: a regression has no classes.",
            )
        else:
            require(
                len(self.classes) >= 2,
                "there must be at least two classes",
                self.classes,
                "Add a folder (or label value) for each class to tell apart.",
            )
        require(
            len(set(self.classes)) == len(self.classes),
            "class names must differ",
            self.classes,
            "Rename one of the equal ones.",
        )

    def to_json(self) -> str:
        """Returns the config as canonical JSON: sorted keys, so equal configs give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def preprocessing_json(self) -> str:
        """Returns the part that preprocessing depends on, with defaults for the rest.

        Transform keys its cache on this text: a change of patience must not invalidate it.
        """
        return TrainConfig(features=self.features, classes=self.classes).to_json()

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Parses what `to_json` wrote.

        Raises:
            UserError: Not JSON, an unknown or missing field, or a value out of range.
        """
        from pydantic import ValidationError

        try:
            config: TrainConfig = _adapter().validate_json(text)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in error.errors(include_url=False)[:_LISTED]
            )
            raise UserError(
                f"a saved config must be JSON with the fields of this version ({problems})",
                text[:_EXCERPT],
                _WRITE_AGAIN,
            ) from error
        # Pydantic fills in what is missing, and a default may have another meaning than then.
        saved, parsed = flat(json.loads(text)), flat(json.loads(config.to_json()))
        other = sorted(name for name in saved | parsed if saved.get(name) != parsed.get(name))
        require(
            not other,
            "a saved config must hold exactly the fields of this version",
            [name[:_EXCERPT] for name in other[:_LISTED]],
            _WRITE_AGAIN,
        )
        return config


_EXCERPT, _LISTED = 500, 3
_WRITE_AGAIN = "Write it again, as `plateau compile` does."


def flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values by dotted path."""
    values: dict[str, Any] = {}
    for name, value in fields.items():
        path = f"{prefix}{name}"
        values |= flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return values


@functools.cache
def _adapter() -> Any:
    """Returns the parser; made once, since that takes longer than any parsing."""
    from pydantic import TypeAdapter

    return TypeAdapter(TrainConfig)


# Hyperparameters by the names of their flags, and the part of the config that holds them.
_TUNED: Mapping[str, tuple[str, ...]] = {
    "learning_rate": ("optimization",),
    "batch_size": ("loop",),
    "patience": ("schedule", "plateau"),
    "width_multiplier": ("network",),
}


def tuned(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Returns a config with the hyperparameters of a tuner.

    Args:
        config: Config with values for all else.
        values: The `values` of KerasTuner's HyperParameters: learning_rate, batch_size, patience,
            width_multiplier, or some of them.

    Raises:
        ValueError: A name that is none of these, or a value out of range.
    """
    unknown = sorted(set(values) - set(_TUNED))
    require(
        not unknown,
        f"hyperparameters must be some of {', '.join(_TUNED)}",
        unknown,
        "Let the tuner search over those names, or set the others in the config.",
    )
    fields = dataclasses.asdict(config)
    for name, value in values.items():
        part = functools.reduce(operator.getitem, _TUNED[name], fields)
        part[name] = value
    result: TrainConfig = _adapter().validate_python(fields)
    return result
