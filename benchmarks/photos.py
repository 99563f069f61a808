"""Images by `plateau run --data FOLDER`, beside the plain Keras script of the tutorials.

`python -m benchmarks.photos` makes a folder of CIFAR-10's images, trains on it by both, one after
the other, and writes the page. `python -m benchmarks.photos script FOLDER EPOCHS` is the script.
"""

import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import child, report
from benchmarks.settings import ROOT
from components.evaluation import results
from trainer_module import history
from trainer_module.util import environment

WANTED = (0.65, 0.7)
"""Accuracies whose time is compared: that of the script, and that of Plateau."""

Curve = list[tuple[float, float]]
"""Seconds since the start of training, and accuracy on the validation images, after each epoch."""


@dataclass(frozen=True)
class PhotosConfig:
    """Compares a run on images with a plain Keras script, and writes a page."""

    data: Path = ROOT.parent / "shared" / "data" / "cifar10-images.tar.gz"
    """Archive of images, train/CLASS/NUMBER.jpg and test/CLASS/NUMBER.jpg."""
    images: int = 500
    """Images of each class to train on; a fifth as many are tested on."""
    epochs: int = 60
    """Epochs of the script."""
    output: Path = ROOT / "docs" / "results" / "images.md"
    """The page."""
    note: str = ""
    """Remark about the machine, for readers of the page."""


def script(folder: Path, epochs: int) -> Curve:
    """Trains as Keras's tutorials do: convolutions, flips and Adam."""
    import keras
    from keras import layers

    began = time.monotonic()
    training, test = (
        keras.utils.image_dataset_from_directory(
            folder / split, image_size=(32, 32), batch_size=32, seed=0, verbose=False
        ).cache()
        for split in ("train", "test")
    )
    blocks = [
        layer
        for filters in (32, 64, 128)
        for layer in (
            layers.Conv2D(filters, 3, padding="same", activation="relu"),
            layers.Conv2D(filters, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
        )
    ]
    model = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal"),
            *blocks,
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    curve: Curve = []

    def note(epoch: int, logs: dict[str, float]) -> None:
        curve.append((time.monotonic() - began, float(logs["val_accuracy"])))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=note)
    model.fit(training, validation_data=test, epochs=epochs, verbose=0, callbacks=[callback])
    return curve


def main() -> int:
    """Compares both and writes the page; 1 if data is missing or one of them fails."""
    config = tyro.cli(PhotosConfig, prog="python -m benchmarks.photos")
    environment.prepare()
    machine = report.machine() | {"note": config.note}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            extract(config, folder / "images")
            arguments = ["script", str(folder / "images"), str(config.epochs)]
            keras_curve = json.loads(child.run("benchmarks.photos", arguments, "the script"))
            began = time.monotonic()
            arguments = ["run", "--data", "images", "--output", "run"]
            child.run("pipeline.cli", arguments, "plateau run", cwd=folder)
            seconds = time.monotonic() - began
            (trained,) = (folder / "run/artifacts/Trainer/training_history").iterdir()
            (evaluated,) = (folder / "run/artifacts/Evaluator/evaluation").iterdir()
            record = history.read(trained / history.FILE_NAME)
            own = [(epoch.seconds, epoch.metrics["val_accuracy"]) for epoch in record.epochs]
            accuracy = results.read(str(evaluated)).candidate[results.ACCURACY]
            rows = {
                "Keras script": [*row(keras_curve), "", ""],
                "plateau run": [*row(own), f"{accuracy:.4f}", f"{seconds:.0f}"],
            }
            config.output.write_text(page(rows, config, machine))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(config.output)
    return 0


def row(curve: Curve) -> list[str]:
    """Returns epochs, best accuracy, seconds to the wanted accuracies, and seconds in all."""
    reached = [next((s for s, accuracy in curve if accuracy >= a), None) for a in WANTED]
    times = ["never" if seconds is None else f"{seconds:.0f}" for seconds in reached]
    best = max(accuracy for _, accuracy in curve)
    return [str(len(curve)), f"{best:.4f}", *times, f"{curve[-1][0]:.0f}"]


def page(rows: Mapping[str, Sequence[str]], config: PhotosConfig, machine: dict[str, Any]) -> str:
    """Returns the page."""
    times = [f"seconds to {accuracy:g}" for accuracy in WANTED]
    columns = ("epochs", "best validation accuracy", *times, "seconds of training")
    columns = (*columns, "test accuracy", "seconds of the command")
    parts = [
        "# Images: one command beside a plain Keras script",
        f"{10 * config.images:,} images of CIFAR-10, {config.images} of each class. The script is "
        "one as in Keras's tutorials: six convolutions, random flips, dropout, Adam, "
        f"{config.epochs} epochs; its validation images are the test images. `plateau run --data "
        "FOLDER` has no other flag; a tenth of its images are drawn for validation, and its test "
        "accuracy is that of the pushed model. Both ran one after the other.",
        report.hardware_line(machine),
        report.columns("", columns, rows),
        "## Repeat\n\n    python -m benchmarks.photos",
    ]
    return "\n\n".join(parts) + "\n"


def extract(config: PhotosConfig, folder: Path) -> None:
    """Extracts the first images of each class into FOLDER/SPLIT/CLASS."""
    limits = {"train": config.images, "test": config.images // 5}
    with tarfile.open(config.data) as archive:
        for member in archive:
            split, *names = member.name.split("/")
            if len(names) == 2 and names[1] and int(names[1].split(".")[0]) < limits[split]:
                archive.extract(member, folder, filter="data")


if __name__ == "__main__":
    if sys.argv[1:2] == ["script"]:
        environment.prepare()
        print(json.dumps(script(Path(sys.argv[2]), int(sys.argv[3]))))
        sys.exit(0)
    sys.exit(main())
