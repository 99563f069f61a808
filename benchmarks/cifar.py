"""CIFAR-10 from its archive of JPEG files: as arrays, or as folders of any number of images."""

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from trainer_module.util.checks import require


class Cifar(NamedTuple):
    """Both splits, each in a random order that never changes.

    Attributes:
        train_x: uint8 [50000, 32, 32, 3], a memory map.
        train_y: int64 [50000].
        test_x: uint8 [10000, 32, 32, 3], a memory map.
        test_y: int64 [10000].
    """

    train_x: npt.NDArray[np.uint8]
    train_y: npt.NDArray[np.int64]
    test_x: npt.NDArray[np.uint8]
    test_y: npt.NDArray[np.int64]


def load(archive: Path) -> Cifar:
    """Returns the arrays, decoded once for each archive and kept in the temporary folder.

    Raises:
        ValueError: There is no such archive.
    """
    _check(archive)
    state = archive.stat()
    key = f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}"
    name = f"plateau-cifar10-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    if not folder.is_dir():
        _decode(archive, folder)
    # Arrays and not one .npz: they can be mapped, so a process holds only what it reads.
    return Cifar(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Cifar._fields))


def write_folders(archive: Path, folder: Path, sizes: Sequence[int]) -> Mapping[int, Path]:
    """Writes a folder by class for each number of images.

    A smaller folder holds the first images of each class of the larger ones, as hard links. Beyond
    the images of the archive, these come again, mirrored or with another brightness.

    Args:
        archive: A tar.gz archive of train/CLASS/*.jpg and test/CLASS/*.jpg.
        folder: Receives a folder for each size.
        sizes: Numbers of images, each a multiple of the number of classes.

    Raises:
        ValueError: There is no such archive, or a size is not such a multiple.
    """
    _check(archive)
    originals: dict[str, list[bytes]] = {}
    for _, label, content in _images(archive):
        originals.setdefault(label, []).append(content)
    for size in sizes:
        require(
            size > 0 and size % len(originals) == 0,
            f"`sizes` must be multiples of the {len(originals)} classes",
            size,
            "Try `sizes=1000 10000`.",
        )
    largest = max(sizes)
    folders = {size: folder / str(size) for size in sizes}
    for label, contents in originals.items():
        for path in folders.values():
            (path / label).mkdir(parents=True)
        for i in range(largest // len(originals)):
            number, which = divmod(i, len(contents))
            content = variation(contents[which], number) if number else contents[which]
            first = folders[largest] / label / f"{i:06d}.jpg"
            first.write_bytes(content)
            for size, path in folders.items():
                if size != largest and i < size // len(originals):
                    os.link(first, path / label / first.name)
    return folders


def variation(content: bytes, number: int) -> bytes:
    """An image encoded again: mirrored where the number is odd, and brighter, the higher it is."""
    with Image.open(io.BytesIO(content)) as opened:
        image: Image.Image = ImageOps.mirror(opened) if number % 2 else opened.copy()
    file = io.BytesIO()
    ImageEnhance.Brightness(image).enhance(1 + number / 10).save(file, "JPEG")
    return file.getvalue()


def _check(archive: Path) -> None:
    require(
        archive.is_file(),
        "benchmarks need CIFAR-10 as a tar.gz archive of train/CLASS/*.jpg and test/CLASS/*.jpg",
        str(archive),
        "Name the archive with --data.",
    )


def _images(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yields split, class and content of each file."""
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if member.isfile() and len(parts) == 3 and parts[0] in ("train", "test"):
                file = tar.extractfile(member)
                assert file is not None
                yield parts[0], parts[1], file.read()


def _decode(archive: Path, folder: Path) -> None:
    images = list(_images(archive))
    classes = sorted({label for _, label, _ in images})
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".plateau-") as temporary:
        part = Path(temporary) / folder.name
        part.mkdir()
        for name in ("train", "test"):
            split = [(label, content) for split, label, content in images if split == name]
            order = np.random.default_rng(0).permutation(len(split))
            x = [np.asarray(Image.open(io.BytesIO(split[i][1])).convert("RGB")) for i in order]
            np.save(part / f"{name}_x.npy", np.stack(x))
            y = np.array([classes.index(label) for label, _ in split], np.int64)
            np.save(part / f"{name}_y.npy", y[order])
        try:
            part.replace(folder)
        except OSError:
            # Another run finished first; what it wrote is the same.
            if not folder.is_dir():
                raise
