"""Runs of a comparison, as tests need them."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from pipeline.compare.statistics import Trial
from trainer_module.history import EpochRecord, History


def epoch(number: int = 1, **changes: Any) -> EpochRecord:
    """An epoch of 10 updates and a second."""
    record = EpochRecord(
        epoch=number,
        metrics={"val_accuracy": 0.9},
        learning_rate=0.1,
        batch_size=32,
        update_noise=1.0,
        simple_noise_scale=None,
        updates=10 * number,
        examples=320 * number,
        seconds=float(number),
        action="none",
        reason="no better for 3 epochs",
        best=True,
    )
    return dataclasses.replace(record, **changes)


def trial(
    strategy: str,
    seed: int = 0,
    epochs: Iterable[EpochRecord] = (epoch(action="stop"),),
    test: float = 0.9,
    monitor: str = "val_accuracy",
    stop_reason: str = "done",
) -> Trial:
    """A run of one epoch, if no others are given."""
    return Trial(strategy, seed, History({}, monitor, "max", tuple(epochs), stop_reason), test)
