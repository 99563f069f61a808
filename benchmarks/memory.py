"""Peak memory of a huge batch computed in micro-batches, against a small batch."""

import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from absl import logging

from benchmarks import child, cifar
from benchmarks.comparison import Comparison, ratios
from benchmarks.report import Result
from benchmarks.settings import Settings
from trainer_module.util import environment

_SMALL, _LARGE = 64, 4096


@dataclass(frozen=True)
class Epoch:
    """One epoch in a process of its own, which then prints its peak memory.

    Attributes:
        data: The archive of CIFAR-10.
        images: Training images.
        batch_size: Global batch size, in examples.
        micro_batch: Largest batch computed at once.
        width: Width multiplier of the small CNN.
    """

    data: Path
    images: int
    batch_size: int
    micro_batch: int
    width: float


def measure(settings: Settings) -> Result:
    """Train an epoch at either batch size, in turns, each in a new process."""
    rounds = 1 if settings.quick else min(settings.rounds, 3)
    small, large = (16, 256) if settings.quick else (_SMALL, _LARGE)
    images = 2 * large
    # Decoded here, so that no process is measured while it decodes.
    cifar.load(settings.data)
    peaks: dict[int, list[float]] = {small: [], large: []}
    for _ in range(rounds):
        for batch_size, values in peaks.items():
            values.append(_peak_of(Epoch(settings.data, images, batch_size, small, settings.width)))
    row = Comparison(
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


def _peak_of(epoch: Epoch) -> float:
    what = f"an epoch in batches of {epoch.batch_size:,}"
    told = child.last_line("benchmarks.memory", child.flags(epoch), what)
    return float(json.loads(told)["peak_mib"])


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


def peak_mib() -> float:
    """Peak resident memory of this process, in MiB."""
    # Linux hands ru_maxrss on through exec: a child would report its parent's peak, where that is
    # larger. VmHWM belongs to the process image.
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Train an epoch and print the peak memory as a line of JSON."""
    environment.prepare()
    logging.set_verbosity(logging.ERROR)
    _train(tyro.cli(Epoch))
    print(json.dumps({"peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
