"""Peak memory of a large batch computed in micro-batches, compared with a small batch."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import child, cifar
from benchmarks.report import Result, Row, ratios
from benchmarks.settings import Settings
from trainer_module.util import environment

_SMALL, _LARGE = 64, 4096


@dataclass(frozen=True)
class Epoch:
    """One epoch in a process of its own, which prints its peak memory in MiB."""

    data: Path
    """Archive of CIFAR-10."""
    images: int
    """Training images."""
    batch_size: int
    """Global batch size, in examples."""
    micro_batch: int
    """Largest batch computed at once."""
    width: float
    """Width multiplier of the small CNN."""


def measure(settings: Settings) -> Result:
    """Trains an epoch at either batch size, in turns, each in a new process."""
    rounds = 1 if settings.quick else min(settings.rounds, 3)
    small, large = (16, 256) if settings.quick else (_SMALL, _LARGE)
    images = 2 * large
    # Decoded here, so that no process is measured while it decodes.
    cifar.load(settings.data)
    peaks: dict[int, list[float]] = {small: [], large: []}
    for _ in range(rounds):
        for batch_size, values in peaks.items():
            epoch = Epoch(settings.data, images, batch_size, small, settings.width)
            what = f"an epoch in batches of {batch_size:,}"
            output = child.run("benchmarks.memory", child.flags(epoch), what)
            values.append(float(output.splitlines()[-1]))
    row = Row(
        f"peak memory, batch {large:,} in micro-batches of {small}",
        f"batch {small}",
        ratios(peaks[large], peaks[small]),
        "at most",
        1.2,
    )
    method = (
        f"An epoch of {images:,} CIFAR-10 images and an evaluation, small CNN at width "
        f"{settings.width:g}, each in a process of its own; peak resident memory of that process."
    )
    return Result("memory", method, [row], {"peak_mib": {str(b): v for b, v in peaks.items()}})


def _train(epoch: Epoch) -> None:
    import keras
    import numpy as np

    from benchmarks.speed import OPTIMIZATION
    from trainer_module import ScheduleConfig, train
    from trainer_module.config import NetworkConfig
    from trainer_module.models import registry
    from trainer_module.training import optimizer
    from trainer_module.training.data import Split, evaluation_dataset, training_factory

    data = cifar.load(epoch.data)
    training = Split(np.array(data.train_x[: epoch.images]), np.array(data.train_y[: epoch.images]))
    validation = Split(np.array(data.test_x[:256]), np.array(data.test_y[:256]))
    keras.utils.set_random_seed(0)
    network = NetworkConfig(model="cnn", width_multiplier=epoch.width)
    train(
        registry.build(training.x.shape[1:], 10, network),
        optimizer.build(OPTIMIZATION),
        training_factory(training, None, seed=0),
        evaluation_dataset(validation, epoch.micro_batch),
        ScheduleConfig(max_epochs=1),
        num_examples=epoch.images,
        batch_size=epoch.batch_size,
        micro_batch=epoch.micro_batch,
    )


if __name__ == "__main__":
    environment.prepare()
    _train(tyro.cli(Epoch))
    print(child.memory_mib("VmHWM"))
