"""A data folder of pictures, made of bytes: any names, links to anywhere, pipes."""

import os
import shutil
import unicodedata
from pathlib import Path

from components.image_example_gen import folder
from tests.fuzz.reader import Reader, refused, scratch
from trainer_module.util.checks import UserError

HOME = scratch()
ROOT, OUTSIDE = HOME / "data", HOME / "outside"
KINDS = ("folder", "image", "file", "inside", "outside", "loop", "nowhere", "pipe")
MOST = 40


def reader() -> Reader:
    OUTSIDE.mkdir()
    (OUTSIDE / "secret.png").write_bytes(b"secret")
    both = [entry(0, "a"), entry(1, "1.png", 1), entry(0, "b"), entry(1, "2.png", 2)]
    split = [
        entry(0, "train"),
        *(entry(0, name, 1) for name in "ab"),
        entry(1, "1.png", 2),
        entry(1, "é.jpg", 3),
        entry(0, "<script>"),
    ]
    odd = [
        entry(kind, name, 1)
        for kind in range(len(KINDS))
        for name in ("x.png", "a\nb", "\u202e.gif", "e\u0301", "..", "thumbs.db", "n" * 255)
    ]
    return Reader(check, [b"".join(both), b"".join(split), *(b"".join(both) + one for one in odd)])


def entry(kind: int, name: str, place: int = 0) -> bytes:
    """Bytes of an entry: its kind, the folder it lies in, the length of its name, the name."""
    encoded = name.encode()[:255]
    return bytes([kind, place, len(encoded)]) + encoded


def build(data: bytes) -> None:
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    folders = [ROOT]
    for _ in range(MOST):
        if len(data) < 3:
            return
        kind, place, length = data[:3]
        name, data = data[3 : 3 + length], data[3 + length :]
        name = name.replace(b"/", b"_").replace(b"\0", b"_")
        if name in (b"", b".", b".."):
            continue
        path = Path(os.fsdecode(os.fsencode(folders[place % len(folders)]) + b"/" + name))
        if os.path.lexists(path):
            continue
        make(KINDS[kind % len(KINDS)], path, folders)


def make(kind: str, path: Path, folders: list[Path]) -> None:
    if kind == "folder":
        path.mkdir()
        folders.append(path)
    elif kind in ("image", "file"):
        path.write_bytes(b"x")
        if kind == "image" and not path.suffix:
            path.rename(f"{path}.png"[: -4 if len(os.fsencode(path.name)) > 251 else None])
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        targets = {
            "inside": folders[-1],
            "outside": OUTSIDE / "secret.png",
            "loop": path,
            "nowhere": ROOT / "gone",
        }
        path.symlink_to(targets[kind])


def check(data: bytes) -> None:
    build(data)
    try:
        found = folder.scan(ROOT)
        folder.fingerprint(found)
    except UserError as error:
        refused(error)
        lines = str(error).splitlines()
        assert len(lines) <= 12
        assert all(line.startswith("  ") for line in lines[1:])
        return
    files = [path for paths in found.files.values() for path in paths]
    assert sum(len(shard) for shard in folder.shards(found, 3)) == len(files)
    assert len(found.classes) >= 2
    for path in files:
        assert (ROOT / path).resolve(strict=True).is_relative_to(ROOT.resolve())
        assert (ROOT / path).is_file()
        assert folder.class_of(path) in found.classes
        assert not any(unicodedata.category(c) == "Cc" for c in path)
        path.encode()
