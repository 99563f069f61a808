"""The record of a run: every epoch and every decision, as JSON Lines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer_module.schedule.scaling import TrainingSpec, update_noise
from trainer_module.schedule.strategy import FORMER_ACTIONS
from trainer_module.util import files
from trainer_module.util.checks import UserError, require

FORMAT = "plateau-training-history"
VERSION = 1
FILE_NAME = "history.jsonl"
RANGE_TEST = "range_test"
"""Key of a learning rate range test in the config of a history."""

MAX_BYTES = 256 * 1024**2
"""Largest file that is read; an epoch takes about half a KiB."""

_FORMER_FIELDS = {"noise_scale": "update_noise", "gradient_noise": "simple_noise_scale"}
_EXCERPT = 300


@dataclass(frozen=True)
class EpochRecord:
    """Record of an epoch and of the decision after it.

    Attributes:
        epoch: Epoch, from 1.
        metrics: Training and validation values by name, such as loss, accuracy, val_accuracy.
        learning_rate: Learning rate during the epoch.
        batch_size: Global batch size during the epoch, in examples.
        update_noise: Update noise g of the schedule during the epoch (schedule/scaling.py).
        simple_noise_scale: B_simple in examples (McCandlish et al. 2018), the batch size at which
            noise and signal of the gradient are equal, as last measured; None while not measured,
            infinity where noise hid the signal.
        updates: Optimizer updates since the start of the run.
        examples: Training examples seen since the start of the run.
        seconds: Seconds of training since the start of the run, resumed parts added up.
        action: What the schedule did after the epoch: none, lr_decay, batch_increase, stop, ...
        reason: Why, in words.
        best: Whether the monitored value is the best so far.
    """

    epoch: int
    metrics: Mapping[str, float]
    learning_rate: float
    batch_size: int
    update_noise: float
    simple_noise_scale: float | None
    updates: int
    examples: int
    seconds: float
    action: str
    reason: str
    best: bool

    @classmethod
    def after(
        cls,
        past: "EpochRecord | None",
        spec: TrainingSpec,
        *,
        metrics: Mapping[str, float],
        learning_rate: float,
        batch_size: int,
        updates: int,
        examples: int,
        seconds: float,
        best: bool,
        action: str = "none",
        reason: str = "",
        simple_noise_scale: float | None = None,
    ) -> "EpochRecord":
        """Returns the record of the epoch after `past`; updates and examples are its own."""
        return cls(
            epoch=past.epoch + 1 if past else 1,
            metrics=metrics,
            learning_rate=learning_rate,
            batch_size=batch_size,
            update_noise=update_noise(learning_rate, batch_size, spec),
            simple_noise_scale=simple_noise_scale,
            updates=updates + (past.updates if past else 0),
            examples=examples + (past.examples if past else 0),
            seconds=seconds,
            action=action,
            reason=reason,
            best=best,
        )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "EpochRecord":
        """Returns the record of `asdict`, also of version 0.1, which had other names."""
        fields = {_FORMER_FIELDS.get(name, name): value for name, value in fields.items()}
        return cls(**fields | {"action": FORMER_ACTIONS.get(fields["action"], fields["action"])})


@dataclass(frozen=True)
class History:
    """A whole run.

    Attributes:
        config: Config of the run, as parsed JSON.
        monitor: Metric that steered the schedule.
        mode: Whether more (max) or less (min) of it is better.
        epochs: Records, in order.
        stop_reason: Why the run ended; empty while it has not.
        traces: How often each graph was traced.
    """

    config: Mapping[str, Any]
    monitor: str
    mode: str
    epochs: Sequence[EpochRecord] = ()
    stop_reason: str = ""
    traces: Mapping[str, int] = field(default_factory=dict)

    @property
    def best(self) -> EpochRecord | None:
        """The last record marked best, whose weights are the ones exported."""
        return next((record for record in reversed(self.epochs) if record.best), None)

    @property
    def decisions(self) -> tuple[EpochRecord, ...]:
        """The records after which the schedule did something."""
        return tuple(record for record in self.epochs if record.action != "none")

    def to_dict(self) -> dict[str, Any]:
        """Returns the run as plain values, as `json.dumps` takes them."""
        return asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row an epoch, each metric a column, for `pandas.DataFrame(history.rows())`."""
        fields = [asdict(record) for record in self.epochs]
        return [{**record.pop("metrics"), **record} for record in fields]


def write(history: History, path: Path) -> None:
    """Writes a history atomically: a header line, a line an epoch, a closing line."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": history.config,
        "monitor": history.monitor,
        "mode": history.mode,
    }
    end = {"stop_reason": history.stop_reason, "traces": dict(history.traces)}
    lines = [header, *(asdict(record) for record in history.epochs), end]
    with files.atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def read(path: Path) -> History:
    """Reads what `write` wrote.

    Raises:
        UserError: The file is no history, or of another version.
        OSError: The file cannot be read.
    """
    # Its import takes a while, and most programs read no history.
    from pydantic import TypeAdapter

    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        header, *records, end = map(json.loads, content.decode().splitlines())
        format_and_version = header.pop("format"), header.pop("version")
        if format_and_version != (FORMAT, VERSION):
            raise ValueError(f"format and version {format_and_version}")
        epochs = tuple(asdict(EpochRecord.from_dict(record)) for record in records)
        return TypeAdapter(History).validate_python({**header, **end, "epochs": epochs})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = " ".join(str(error)[:_EXCERPT].split())
        raise UserError(
            f"a training history must be a {FORMAT} file of version {VERSION} ({problem})",
            str(path),
            "Train again to write a new one.",
        ) from error


def measured(logs: Mapping[str, Any] | None, monitor: str) -> dict[str, float]:
    """Returns the metrics that `fit` passes to a callback after an epoch.

    Raises:
        UserError: The monitored metric is not among it.
    """
    values = {name: float(value) for name, value in (logs or {}).items()}
    require(
        monitor in values,
        f"`monitor` must be a metric of each epoch of fit ({', '.join(values)})",
        monitor,
        "Give fit validation_data and leave validation_freq at 1, or set another monitor.",
    )
    return values
