"""Which pictures a data folder holds and which split each belongs to.  No TFX, no TensorFlow."""

import hashlib
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from components.text import visible

TRAIN, EVAL, TEST = SPLITS = ("train", "eval", "test")

SPLIT_FOLDERS: Mapping[str, str] = {
    "train": TRAIN,
    "training": TRAIN,
    "val": EVAL,
    "valid": EVAL,
    "validation": EVAL,
    "eval": EVAL,
    "test": TEST,
    "testing": TEST,
}
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif"})
MAX_CLASSES = 1000

_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})
_LAYOUT = "Lay it out as <class>/<picture>, or as train/, eval/ and test/ with <class>/ in each."


class ImageFolderError(ValueError):
    """A data folder that cannot be trained on; the message has path, rule and remedy."""


@dataclass(frozen=True)
class ImageFolder:
    """What `scan` found.

    Attributes:
        root: The data folder.
        classes: Class names, sorted; Unicode in composed form (NFC).
        files: Paths relative to root, with "/", sorted, by the split their folder names. Without
            split folders all are under "train".
        carved: Splits without a folder of their own: they are drawn from "train".
    """

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    carved: tuple[str, ...]

    def __len__(self) -> int:
        """Number of picture files."""
        return sum(map(len, self.files.values()))


@dataclass(frozen=True)
class Shard:
    """Pictures that are read together and written to one file for each split.

    Attributes:
        index: Number of the shard, from 0.
        files: (split named by the folder, path relative to the data folder).
    """

    index: int
    files: tuple[tuple[str, str], ...]


def scan(root: str | os.PathLike[str]) -> ImageFolder:
    """List a data folder without opening a picture.

    Two layouts: `<split>/<class>/<picture>`, where the split folders are train or training; val,
    valid, validation or eval; test or testing; and `<class>/<picture>`. Hidden files and what
    desktops leave behind (Thumbs.db and the like) are passed over, and so is any file outside the
    class folders that is no picture.

    Raises:
        ImageFolderError: The folder, a class or a file breaks a rule.
    """
    root = Path(root)
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        _fail(root, f"the data folder must be a folder, found {what}", "Check --data.")
    walker = _Walker(root.resolve())
    top = walker.folders(root, root)
    train = [f for f in top if SPLIT_FOLDERS.get(f.name.casefold()) == TRAIN]
    if any(walker.has_folders(f) for f in train):
        found = _scan_splits(walker, root, top)
    else:
        if not top:
            _fail(root, "the data folder must hold class folders, found none", _LAYOUT)
        stray = [f for f in top if f.name.casefold() in SPLIT_FOLDERS and walker.has_folders(f)]
        if stray:
            _fail(stray[0], "split folders need a train/ folder beside them", _LAYOUT)
        found = {TRAIN: _scan_classes(walker, root, top)}
    classes = tuple(sorted(found[TRAIN]))
    if len(classes) < 2:
        _fail(
            root,
            f"there must be at least two classes to tell apart, found only {classes[0]!r}",
            "Add a folder of pictures for each further class. " + _LAYOUT,
        )
    if len(classes) > MAX_CLASSES:
        _fail(
            root,
            f"there may be at most {MAX_CLASSES} classes, found {len(classes)}",
            "Check that --data is the folder right above the classes, or merge some.",
        )
    for split, by_class in found.items():
        for name in sorted(by_class.keys() - set(classes)):
            _fail(
                root / by_class[name][0],
                f"each class of {split}/ must be in train/ too, found {name!r} only here",
                f"Add pictures of {name!r} to train/, or remove the folder.",
            )
    files = {
        split: tuple(sorted(path for paths in found[split].values() for path in paths))
        for split in SPLITS
        if split in found
    }
    return ImageFolder(root, classes, files, tuple(s for s in SPLITS if s not in found))


def class_of(path: str) -> str:
    """Class name of a picture by its path: the folder it lies in, in composed form (NFC)."""
    folder, _, _ = path.rpartition("/")
    return unicodedata.normalize("NFC", folder[folder.rfind("/") + 1 :])


def shards(folder: ImageFolder, size: int) -> list[Shard]:
    """Cut a folder's files into shards of at most `size`, mixed, the same way each time.

    The order is that of the hashes of the paths, so records come with their classes mixed.
    """
    files = sorted(
        ((split, path) for split, paths in folder.files.items() for path in paths),
        key=lambda file: hashlib.sha256(file[1].encode()).digest(),
    )
    return [
        Shard(i, tuple(files[start : start + size]))
        for i, start in enumerate(range(0, len(files), size))
    ]


def fingerprint(folder: ImageFolder) -> str:
    """Hash that changes when a picture is added, removed, renamed, moved or written to.

    It reads no contents: it hashes paths, sizes and both times. The change time (ctime) shows a
    replacement that kept size and modification time.

    Raises:
        ImageFolderError: A picture vanished since the scan.
    """
    digest = hashlib.sha256()
    for split, paths in folder.files.items():
        for path in paths:
            try:
                stat = os.stat(f"{folder.root}/{path}")  # noqa: PTH116  (a quarter of the time)
            except OSError as error:
                _fail(
                    folder.root / path,
                    f"a picture must stay readable ({error.strerror})",
                    "Run again when nothing else writes to the folder.",
                )
            # No path holds a line feed, so that no two folders make the same lines.
            times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
            digest.update(f"{split} {stat.st_size} {times} {path}\n".encode())
    return digest.hexdigest()


def check_split_counts(counts: Mapping[str, Mapping[str, int]], folder: ImageFolder) -> None:
    """Check what is left after splitting and skipping.

    Args:
        counts: Pictures by split and class.
        folder: What was scanned.

    Raises:
        ImageFolderError: A split is empty, or a class has no picture left to train on.
    """
    for split in SPLITS:
        if not any(counts.get(split, {}).values()):
            why = (
                f"{split} is drawn from train, about one picture in ten, or one group of --group-by"
                if split in folder.carved
                else "none of its pictures was good"
            )
            _fail(
                folder.root,
                f"no split may be empty, {split} got no picture out of {len(folder)} ({why})",
                f"Add pictures, or lay out train/ and {split}/ yourself.",
            )
    missing = [name for name in folder.classes if not counts[TRAIN].get(name)]
    if missing:
        _fail(
            folder.root,
            f"each class needs a picture in train, none left for {_some(missing)}",
            "Add good pictures of it, or remove its folder.",
        )


def _scan_splits(walker: "_Walker", root: Path, top: list[Path]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for folder in top:
        split = SPLIT_FOLDERS.get(folder.name.casefold())
        if split is None:
            _fail(
                folder,
                "beside train/ there may be only split folders",
                "Name it eval or test, move it into train/, or remove it.",
            )
        if split in found:
            _fail(
                folder,
                f"each split may have one folder, found a second one for {split}",
                "Merge the two.",
            )
        classes = walker.folders(folder, root)
        if not classes:
            _fail(
                folder,
                "a split must hold class folders, found none",
                "Fill it, or remove it to have the split drawn from train/.",
            )
        found[split] = _scan_classes(walker, root, classes)
    return found


def _scan_classes(walker: "_Walker", root: Path, folders: list[Path]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for folder in folders:
        place = folder.relative_to(root).as_posix()
        paths = [f"{place}/{name}" for name in walker.pictures(folder)]
        if not paths:
            _fail(
                folder,
                "a class folder must hold pictures, found none",
                "Add pictures of the class, or remove the folder.",
            )
        name = class_of(paths[0])
        if name in found:
            _fail(
                folder,
                f"class names must differ, {name!r} is there twice, "
                "written with different Unicode characters",
                "Merge the two folders.",
            )
        found[name] = paths
    return found


class _Walker:
    """Lists folders level by level, and never leaves the data folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folders(self, folder: Path, root: Path) -> list[Path]:
        """The folders in a folder of folders, sorted; a picture there is an error."""
        found = []
        for entry in self._entries(folder):
            path = folder / entry.name
            if entry.is_dir():
                found.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                _fail(
                    path,
                    "pictures must lie in a class folder",
                    f"Move it into the folder of its class below {folder.name}/. {_LAYOUT}"
                    if folder != root
                    else _LAYOUT,
                )
        return found

    def has_folders(self, folder: Path) -> bool:
        return any(entry.is_dir() for entry in self._entries(folder))

    def pictures(self, folder: Path) -> Iterator[str]:
        """The names of the files of a class folder, sorted."""
        for entry in self._entries(folder):
            name = entry.name
            if entry.is_dir():
                _fail(
                    folder / name,
                    "a class folder may hold pictures only, found a folder",
                    "Move its pictures up into the class folder, or remove it.",
                )
            if name[name.rfind(".") :].lower() not in IMAGE_SUFFIXES or not entry.is_file():
                _fail(
                    folder / name,
                    "a class folder may hold pictures only "
                    f"({', '.join(sorted(s[1:] for s in IMAGE_SUFFIXES))})",
                    "Convert it to PNG or JPEG, or move it out of the folder.",
                )
            yield name

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as listing:
                entries = [
                    entry
                    for entry in listing
                    if not entry.name.startswith(".") and entry.name.casefold() not in _JUNK
                ]
        except OSError as error:
            _fail(
                folder,
                f"each folder must be readable ({error.strerror})",
                "Give yourself permission to list it.",
            )
        for entry in entries:
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                _fail(
                    folder / entry.name,
                    "names must be valid UTF-8",
                    "Rename it (convmv does whole folders).",
                )
            # No control character is printable, and that is told a name at a time.
            if not entry.name.isprintable() and any(
                unicodedata.category(c) == "Cc" for c in entry.name
            ):
                _fail(
                    folder / entry.name,
                    f"names may hold no control characters, got {entry.name!r}",
                    "Rename it.",
                )
            if entry.is_symlink():
                self._check_link(folder / entry.name)
        return sorted(entries, key=lambda entry: entry.name)

    def _check_link(self, path: Path) -> None:
        try:
            target = path.resolve(strict=True)
        # Links that lead in a circle.
        except (OSError, RuntimeError):
            _fail(
                path,
                f"links must lead to something, this one leads to {str(path.readlink())!r}",
                "Remove it.",
            )
        if not target.is_relative_to(self._root):
            _fail(
                path,
                f"links may not lead out of the data folder, this one leads to {target}",
                "Copy the pictures into the folder in place of the link.",
            )


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:10]))
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _fail(path: Path, rule: str, remedy: str) -> NoReturn:
    shown = os.fsencode(path).decode(errors="backslashreplace")
    raise ImageFolderError(f"{visible(shown)}: {rule}. {remedy}")
