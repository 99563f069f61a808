"""Folders of as many pictures as are asked for, made of CIFAR-10's."""

import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image, ImageEnhance, ImageOps

from trainer_module.util.checks import require


def write(archive: Path, folder: Path, sizes: Sequence[int]) -> Mapping[int, Path]:
    """Write a folder by class for each size.

    A smaller folder holds the first pictures of each class of the larger ones, as hard links.
    Where the archive has fewer than are asked for, its pictures come again, mirrored or with
    another brightness, and so with other contents.

    Args:
        archive: A tar.gz archive of train/CLASS/*.jpg and test/CLASS/*.jpg.
        folder: Receives a folder for each size.
        sizes: Numbers of pictures, each a multiple of the number of classes.

    Returns:
        The folders by size.

    Raises:
        ValueError: There is no such archive, or a size cannot be shared among the classes.
    """
    require(
        archive.is_file(),
        "benchmarks need CIFAR-10 as a tar.gz archive of train/CLASS/*.jpg and test/CLASS/*.jpg",
        str(archive),
        "Name the archive with --data.",
    )
    found = _read(archive)
    for size in sizes:
        require(
            size > 0 and size % len(found) == 0,
            f"sizes must be multiples of the {len(found)} classes",
            size,
            "Try --sizes 1000 10000.",
        )
    largest, *smaller = sorted(sizes, reverse=True)
    made = {largest: folder / str(largest)}
    for name, originals in found.items():
        place = made[largest] / name
        place.mkdir(parents=True)
        for i, content in enumerate(_pictures(originals, largest // len(found))):
            (place / _file(i)).write_bytes(content)
    for size in smaller:
        made[size] = folder / str(size)
        for name in found:
            place = made[size] / name
            place.mkdir(parents=True)
            for i in range(size // len(found)):
                os.link(made[largest] / name / _file(i), place / _file(i))
    return made


def read(folder: Path) -> None:
    """Read all pictures of a folder, so that the page cache has them."""
    for path in folder.glob("*/*"):
        path.read_bytes()


def variation(content: bytes, number: int) -> bytes:
    """A picture encoded anew: mirrored where the number is odd, and brighter, the higher it is."""
    with Image.open(io.BytesIO(content)) as opened:
        image: Image.Image = ImageOps.mirror(opened) if number % 2 else opened.copy()
    image = ImageEnhance.Brightness(image).enhance(1 + number / 10)
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def _pictures(originals: Sequence[bytes], count: int) -> Iterator[bytes]:
    for i in range(count):
        number, which = divmod(i, len(originals))
        yield variation(originals[which], number) if number else originals[which]


def _read(archive: Path) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if member.isfile() and len(parts) == 3 and parts[0] in ("train", "test"):
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(parts[1], []).append(file.read())
    return found


def _file(i: int) -> str:
    return f"{i:06d}.jpg"
