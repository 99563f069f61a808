"""Everything a training run needs to know, as one typed value that survives a trip through JSON."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from trainer_module.schedule.schedule import ScheduleConfig
from trainer_module.util.checks import require


@dataclass(frozen=True)
class ImageFeatures:
    """How pictures become a tensor [height, width, channels] of pixel values 0 to 255.

    Attributes:
        height: Rows every picture is resized to, in pixels.
        width: Columns every picture is resized to, in pixels.
        channels: 1 for grey, 3 for colour; other pictures are converted.
        augment: Random changes to training images, drawn anew each epoch: flip, left to right;
            crop, out of the image with zeros around it, an eighth of its height and width.
    """

    height: int = 64
    width: int = 64
    channels: Literal[1, 3] = 3
    augment: tuple[Literal["flip", "crop"], ...] = ()

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("height", "width"):
            value = getattr(self, name)
            require(
                8 <= value <= 1024,
                f"{name} must be 8 to 1024 pixels",
                value,
                f"Try {name}=32.",
            )


@dataclass(frozen=True)
class TableFeatures:
    """How the columns of a table become a vector, and which of them is the label.

    Attributes:
        numeric: Columns scaled to zero mean and unit variance.
        bucketized: Columns cut into `buckets` quantiles, each one-hot.
        categorical: Columns (text or integers) looked up in a vocabulary, each one-hot.
        buckets: Quantiles a bucketized column is cut into.
        vocabulary_size: Most frequent values kept for a categorical column.
        label: Column that holds the label, or the numerator where label_over is given.
        label_over: Where given, the label is whether `label` exceeds label_ratio x this column.
        label_ratio: Ratio above which an example is of the second class.
    """

    numeric: tuple[str, ...] = ()
    bucketized: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    buckets: int = 10
    vocabulary_size: int = 1000
    label: str = "label"
    label_over: str | None = None
    label_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Check that there is something to learn from, and ranges."""
        require(
            bool(self.numeric or self.bucketized or self.categorical),
            "a table needs at least one feature column",
            (),
            "Name some as numeric, bucketized or categorical.",
        )
        # Each is a column of what the model takes, for each of the table's own columns.
        require(
            2 <= self.buckets <= 1000,
            "buckets must be 2 to 1,000",
            self.buckets,
            "Try buckets=10.",
        )
        require(
            1 <= self.vocabulary_size <= 100_000,
            "vocabulary_size must be 1 to 100,000",
            self.vocabulary_size,
            "Try vocabulary_size=1000.",
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that the model's input is made of, each once."""
        return tuple(dict.fromkeys((*self.numeric, *self.bucketized, *self.categorical)))

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that the label is made of."""
        return (self.label,) if self.label_over is None else (self.label, self.label_over)


# Of a text in an error, and of what is wrong with it.
_SHOWN, _WRONG = 500, 3

Features: TypeAlias = ImageFeatures | TableFeatures
Precision: TypeAlias = Literal["float32", "mixed_bfloat16", "auto"]

MODELS = ("cnn", "mlp", "resnet", "vgg16")
"""Names of the built-in models, each a module of `trainer_module.models`."""

METRICS = ("loss", "accuracy")
"""What `entry.run_fn` measures on both splits; of the validation split as val_loss and so on."""


@dataclass(frozen=True)
class NetworkConfig:
    """The model.

    Attributes:
        model: cnn, vgg16, resnet, mlp, or the dotted path of your own
            `build(input_shape, num_classes, config) -> keras.Model`, which returns logits.
        width_multiplier: Multiplies the number of filters or units in each layer.
        dropout: Share of activations dropped before the last layer.
    """

    model: str = "cnn"
    width_multiplier: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            0.05 <= self.width_multiplier <= 16,
            "width_multiplier must be 0.05 to 16",
            self.width_multiplier,
            "Try width_multiplier=1.",
        )
        require(
            0 <= self.dropout < 1, "dropout must be in [0, 1)", self.dropout, "Try dropout=0.2."
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its first learning rate.

    Attributes:
        optimizer: Keras optimizer.
        learning_rate: Learning rate of the first epoch.
        momentum: Momentum of SGD.
        nesterov: Whether SGD's momentum is Nesterov's.
        weight_decay: Decoupled weight decay per step, relative to the learning rate.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            0 < self.learning_rate <= 100,
            "learning_rate must be in (0, 100]",
            self.learning_rate,
            "Try learning_rate=0.05.",
        )
        require(
            0 <= self.momentum < 1,
            "momentum must be in [0, 1)",
            self.momentum,
            "Try momentum=0.9.",
        )
        require(
            0 <= self.weight_decay < 1,
            "weight_decay must be in [0, 1)",
            self.weight_decay,
            "Try weight_decay=0.0005.",
        )


@dataclass(frozen=True)
class LoopConfig:
    """How the loop runs, apart from what the schedule decides.

    Attributes:
        batch_size: Global batch size of the first epoch, in examples.
        eval_batch_size: Batch size of validation, in examples; fixed for the whole run.
        micro_batch: Largest batch computed at once; a bigger one accumulates gradients.
        precision: Arithmetic of the model; auto tries both in a few steps where the hardware has
            bfloat16 and takes the faster one.
        steps_per_call: Training steps run by one call of the traced function.
        seed: Seed of weights, shuffling and augmentation.
        deterministic: Whether to use only kernels that give the same result each time, so that
            repeated and resumed runs are equal bit for bit.
        cache_mib: Decoded training data kept in memory up to this many MiB, on disk beyond it.
    """

    batch_size: int = 64
    eval_batch_size: int = 256
    micro_batch: int | None = None
    precision: Precision = "float32"
    steps_per_call: int = 8
    seed: int = 0
    deterministic: bool = True
    cache_mib: int = 4096

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            1 <= self.steps_per_call <= 256,
            "steps_per_call must be 1 to 256, for each is a part of the graph",
            self.steps_per_call,
            "Try steps_per_call=8.",
        )
        for name in ("batch_size", "eval_batch_size", "cache_mib"):
            value = getattr(self, name)
            require(
                value >= 1,
                f"{name} must be at least 1",
                value,
                f"Try {name}={getattr(type(self), name)}.",
            )
        require(
            self.micro_batch is None or self.micro_batch >= 1,
            "micro_batch must be at least 1",
            self.micro_batch,
            "Leave micro_batch out to compute each batch whole.",
        )
        require(self.seed >= 0, "seed must be at least 0", self.seed, "Try seed=0.")


@dataclass(frozen=True)
class TrainConfig:
    """One training run, whole.

    Attributes:
        features: How raw examples become tensors.
        classes: Class names in the order of the label indices.
        network: The model.
        optimization: The optimizer.
        schedule: What happens at a stall.
        loop: How the loop runs.
    """

    features: Features
    classes: tuple[str, ...]
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimization: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        """Check the class names."""
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
        """The config as canonical JSON: sorted keys, so equal configs give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def preprocessing_json(self) -> str:
        """The part that preprocessing depends on, as a config with defaults for the rest.

        Transform keys its cache on this text: a change of patience must not invalidate it.
        """
        return TrainConfig(features=self.features, classes=self.classes).to_json()

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Parse what `to_json` wrote.

        Raises:
            ValueError: Not JSON, an unknown or missing field, or a value out of range.
        """
        from pydantic import ValidationError

        try:
            parsed: TrainConfig = _adapter().validate_json(text)
        except ValidationError as error:
            wrong = "; ".join(
                ".".join(map(str, found["loc"])) + f": {found['msg']}"
                for found in error.errors(include_url=False)[:_WRONG]
            )
            raise ValueError(
                f"a saved config must be JSON with the fields of this version, got "
                f"{text[:_SHOWN]!r} ({wrong}). Write it anew, as `plateau compile` does."
            ) from error
        given, known = _flat(json.loads(text)), _flat(json.loads(parsed.to_json()))
        other = sorted(name for name in given | known if given.get(name) != known.get(name))
        require(
            not other,
            "a saved config must hold exactly the fields of this version",
            [name[:_SHOWN] for name in other[:_WRONG]],
            "Write it anew, as `plateau compile` does.",
        )
        return parsed


def _flat(fields: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values by dotted path."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        path = f"{above}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


@functools.cache
def _adapter() -> Any:
    """Reads a TrainConfig; made once, since that takes longer than any reading."""
    from pydantic import TypeAdapter

    return TypeAdapter(TrainConfig)


# What a tuner may set, and where it goes; the names are those of the flags.
_TUNED: Mapping[str, tuple[str, ...]] = {
    "learning_rate": ("optimization",),
    "batch_size": ("loop",),
    "patience": ("schedule", "plateau"),
    "width_multiplier": ("network",),
}


def tuned(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """A config with the hyperparameters that a tuner found.

    Args:
        config: Config with values for all else.
        values: The `values` of KerasTuner's HyperParameters: learning_rate, batch_size, patience,
            width_multiplier, or some of them.

    Raises:
        ValueError: A name that is none of these, or a value out of range.
    """
    unknown = sorted(set(values) - set(_TUNED))
    if unknown:
        raise ValueError(
            f"hyperparameters must be some of {', '.join(_TUNED)}, got {', '.join(unknown)}. "
            "Let the tuner search over those names, or set the others in the config."
        )
    fields = json.loads(config.to_json())
    for name, value in values.items():
        place = fields
        for step in _TUNED[name]:
            place = place[step]
        place[name] = value
    return TrainConfig.from_json(json.dumps(fields))
