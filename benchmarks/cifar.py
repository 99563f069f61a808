"""CIFAR-10 out of its archive of JPEG files, decoded once into arrays on disk."""

import hashlib
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer_module.util.checks import require

Pictures = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Cifar(NamedTuple):
    """Both splits, each in a random order that never changes.

    Attributes:
        train_x: uint8 [50000, 32, 32, 3], a memory map.
        train_y: int64 [50000].
        test_x: uint8 [10000, 32, 32, 3], a memory map.
        test_y: int64 [10000].
    """

    train_x: Pictures
    train_y: Labels
    test_x: Pictures
    test_y: Labels


def load(archive: Path) -> Cifar:
    """Decode the archive, or find it decoded by an earlier run in the temporary folder.

    Raises:
        ValueError: There is no such archive.
    """
    require(
        archive.is_file(),
        "benchmarks need CIFAR-10 as a tar.gz archive of train/CLASS/*.jpg and test/CLASS/*.jpg",
        str(archive),
        "Name the archive with --data.",
    )
    folder = _cache_of(archive)
    if not folder.is_dir():
        _decode(archive, folder)
    return Cifar(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Cifar._fields))


def _cache_of(archive: Path) -> Path:
    # Arrays and not one .npz: they can be mapped, so a process holds only what it reads.
    state = archive.stat()
    key = f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}"
    name = f"plateau-cifar10-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    return Path(tempfile.gettempdir()) / name


def _decode(archive: Path, folder: Path) -> None:
    found: dict[str, list[tuple[str, Pictures]]] = {"train": [], "test": []}
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if not member.isfile() or len(parts) != 3 or parts[0] not in found:
                continue
            file = tar.extractfile(member)
            if file is not None:
                with Image.open(file) as image:
                    found[parts[0]].append((parts[1], np.asarray(image.convert("RGB"))))
    classes = sorted({label for label, _ in found["train"]})
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".plateau-") as temporary:
        part = Path(temporary) / folder.name
        part.mkdir()
        for split, examples in found.items():
            order = np.random.default_rng(0).permutation(len(examples))
            labels = np.array([classes.index(label) for label, _ in examples], np.int64)
            np.save(part / f"{split}_x.npy", np.stack([examples[i][1] for i in order]))
            np.save(part / f"{split}_y.npy", labels[order])
        try:
            part.replace(folder)
        except OSError:
            # Another run finished first; what it wrote is the same.
            if not folder.is_dir():
                raise
