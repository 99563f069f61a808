"""Which images a data folder holds and which split each belongs to.  No TFX, no TensorFlow."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
READABLE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)
UNREADABLE_SUFFIXES = frozenset({".avif", ".heic", ".heif", ".jp2", ".jxl"})
"""Photos that cannot be read: they are taken for images, so that a run names them as bad ones
instead of leaving half of a class out."""

IMAGE_SUFFIXES = READABLE_SUFFIXES | UNREADABLE_SUFFIXES
MAX_CLASSES = 5000
MAX_DEPTH = 8
"""Parts of an image's path below the data folder."""

_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})
_LAYOUT = "Lay it out as <class>/<image>, or as train/, eval/ and test/ with <class>/ in each."
_READABLE = ", ".join(sorted(suffix[1:] for suffix in READABLE_SUFFIXES))
_MAX_SHOWN, _MAX_PATHS, _MAX_SUFFIXES, _MAX_SUFFIX = 10, 3, 5, 16


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
        left_out: Number of files below the class folders that are no images, by suffix in lower
            case.
    """

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    carved: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

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
    """List a data folder without opening an image.

    Two layouts: `<split>/<class>/<image>`, where the split folders are train or training; val,
    valid, validation or eval; test or testing; and `<class>/<image>`. Images in folders below a
    class folder belong to that class. Hidden files and what desktops leave behind (Thumbs.db and
    the like) are passed over; files of other suffixes than `IMAGE_SUFFIXES` are left out, and
    counted below the class folders.

    Raises:
        ImageFolderError: The folder, a class or a file breaks a rule. The message lists all that
            do, up to a bound.
    """
    root = Path(root)
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        _fail(root, f"the data folder must be a folder, found {what}", "Check --data.")
    problems = _Problems()
    walker = _Walker(root.resolve(), problems)
    top = walker.folders(root, root)
    train = [f for f in top if SPLIT_FOLDERS.get(f.name.casefold()) == TRAIN]
    if any(walker.has_folders(f) for f in train):
        found = _scan_splits(walker, problems, root, top)
    else:
        if not top:
            problems.add(root, "the data folder must hold class folders, found none", _LAYOUT)
        for folder in top:
            if folder.name.casefold() in SPLIT_FOLDERS and walker.has_folders(folder):
                problems.add(folder, "split folders need a train/ folder beside them", _LAYOUT)
        found = {TRAIN: _scan_classes(walker, problems, root, top)}
    classes = tuple(sorted(found[TRAIN]))
    if len(classes) == 1:
        problems.add(
            root,
            f"there must be at least two classes to tell apart, found only {classes[0]!r}",
            "Add a folder of images for each further class. " + _LAYOUT,
        )
    if len(classes) > MAX_CLASSES:
        problems.add(
            root,
            f"there may be at most {MAX_CLASSES} classes, found {len(classes)}",
            "Check that --data is the folder right above the classes, or merge some.",
        )
    for split, by_class in found.items():
        for name in sorted(by_class.keys() - set(classes)):
            problems.add(
                root / by_class[name].folder,
                f"each class of {split}/ must be in train/ too, found {name!r} only here",
                f"Add images of {name!r} to train/, or remove the folder.",
            )
    problems.raise_if_any(root)
    files = {
        split: tuple(sorted(path for place in found[split].values() for path in place.paths))
        for split in SPLITS
        if split in found
    }
    carved = tuple(s for s in SPLITS if s not in found)
    return ImageFolder(root, classes, files, carved, walker.left_out)


def class_of(path: str) -> str:
    """Class name of an image by its path below the data folder, in composed form (NFC).

    It is the first folder, or the second where the first is that of a split. `scan` lets no class
    folder that is named like a split have folders.
    """
    first, _, rest = path.partition("/")
    second, deeper, _ = rest.partition("/")
    is_split = deeper and first.casefold() in SPLIT_FOLDERS
    return unicodedata.normalize("NFC", second if is_split else first)


def suffix_of(name: str) -> str:
    """Suffix of a file name or path in lower case, with its dot; empty where there is none."""
    name = name[name.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def counted(suffixes: Mapping[str, int]) -> str:
    """Numbers of files by suffix, in words: ".txt 12, .xml 3 and 2 others"."""
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(
        f"{visible(name)[:_MAX_SUFFIX]} {count:,}" for name, count in ordered[:_MAX_SUFFIXES]
    )
    others = sum(count for _, count in ordered[_MAX_SUFFIXES:])
    return f"{shown} and {others:,} others" if others else shown


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


@dataclass(frozen=True)
class _ClassFolder:
    """A class folder, and the paths of its images; both relative to the data folder."""

    folder: str
    paths: list[str]


class _Problems:
    """What breaks a rule, collected, so that a person can mend all of it at once."""

    def __init__(self) -> None:
        self._paths: dict[tuple[str, str], list[Path]] = {}

    @property
    def count(self) -> int:
        """Number of places."""
        return sum(map(len, self._paths.values()))

    def add(self, path: Path, rule: str, remedy: str) -> None:
        """Note that a path breaks a rule."""
        self._paths.setdefault((rule, remedy), []).append(path)

    def raise_if_any(self, root: Path) -> None:
        """Raise one error for all: a line for each rule, with the first paths that break it."""
        lines = []
        for (rule, remedy), paths in self._paths.items():
            shown = ", ".join(_shown(path) for path in paths[:_MAX_PATHS])
            more = f" and {len(paths) - _MAX_PATHS:,} more" if len(paths) > _MAX_PATHS else ""
            lines.append(f"{shown}{more}: {rule}. {remedy}")
        if not lines:
            return
        if len(lines) == 1:
            raise ImageFolderError(lines[0])
        rest = f"\n  (and {len(lines) - _MAX_SHOWN:,} more)" if len(lines) > _MAX_SHOWN else ""
        listed = "".join(f"\n  {line}" for line in lines[:_MAX_SHOWN])
        raise ImageFolderError(
            f"{_shown(root)}: no rule of a data folder may be broken, found {self.count:,} places:"
            f"{listed}{rest}"
        )


def _scan_splits(
    walker: "_Walker", problems: _Problems, root: Path, top: list[Path]
) -> dict[str, dict[str, _ClassFolder]]:
    found: dict[str, dict[str, _ClassFolder]] = {}
    for folder in top:
        split = SPLIT_FOLDERS.get(folder.name.casefold())
        if split is None:
            problems.add(
                folder,
                "beside train/ there may be only split folders",
                "Name it eval or test, move it into train/, or remove it.",
            )
            continue
        if split in found:
            problems.add(
                folder,
                f"each split may have one folder, found a second one for {split}",
                "Merge the two.",
            )
            continue
        classes = walker.folders(folder, root)
        if not classes:
            problems.add(
                folder,
                "a split must hold class folders, found none",
                "Fill it, or remove it to have the split drawn from train/.",
            )
        found[split] = _scan_classes(walker, problems, root, classes)
    return found


def _scan_classes(
    walker: "_Walker", problems: _Problems, root: Path, folders: list[Path]
) -> dict[str, _ClassFolder]:
    found: dict[str, _ClassFolder] = {}
    for folder in folders:
        place = folder.relative_to(root).as_posix()
        known = problems.count
        paths = list(walker.images(folder, place))
        if not paths and problems.count == known:
            problems.add(
                folder,
                f"a class folder must hold images ({_READABLE}), found none",
                "Add images of the class, or remove the folder.",
            )
        name = unicodedata.normalize("NFC", folder.name)
        if name in found:
            problems.add(
                folder,
                f"class names must differ, {name!r} is there twice, "
                "written with different Unicode characters",
                "Merge the two folders.",
            )
        found[name] = _ClassFolder(place, paths)
    return found


class _Walker:
    """Lists folders level by level, and never leaves the data folder.

    Attributes:
        left_out: Number of files that are no images, by suffix.
    """

    def __init__(self, root: Path, problems: _Problems) -> None:
        self._root = root
        self._problems = problems
        self.left_out: Counter[str] = Counter()

    def folders(self, folder: Path, root: Path) -> list[Path]:
        """The folders in a folder of folders, sorted; an image there is a problem."""
        found = []
        for entry in self._entries(folder):
            path = folder / entry.name
            if entry.is_dir():
                found.append(path)
            elif suffix_of(entry.name) in IMAGE_SUFFIXES:
                self._problems.add(
                    path,
                    "images must lie in a class folder",
                    f"Move it into the folder of its class below {_shown(folder)}/. {_LAYOUT}"
                    if folder != root
                    else _LAYOUT,
                )
        return found

    def has_folders(self, folder: Path) -> bool:
        return any(entry.is_dir() for entry in _Walker(self._root, _Problems())._entries(folder))

    def images(self, folder: Path, place: str) -> Iterator[str]:
        """The paths of the images in a class folder and in those below it, sorted by level."""
        for entry in self._entries(folder):
            name = entry.name
            if entry.is_dir():
                yield from self._nested(entry, folder / name, f"{place}/{name}")
            elif suffix_of(name) not in IMAGE_SUFFIXES:
                self.left_out[suffix_of(name) or "no suffix"] += 1
            elif not entry.is_file():
                self._problems.add(
                    folder / name,
                    "an image must be a regular file",
                    "Move it out of the folder.",
                )
            else:
                yield f"{place}/{name}"

    def _nested(self, entry: os.DirEntry[str], folder: Path, place: str) -> Iterator[str]:
        if entry.is_symlink():
            self._problems.add(
                folder,
                "below a class folder, links may lead to files only, this one leads to a folder",
                "Copy its images into the class folder in place of the link.",
            )
        elif place.count("/") + 2 > MAX_DEPTH:
            self._problems.add(
                folder,
                f"images may lie at most {MAX_DEPTH - 1} folders deep, found a folder below that",
                "Move its images up.",
            )
        else:
            yield from self.images(folder, place)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as listing:
                entries = [
                    entry
                    for entry in listing
                    if not entry.name.startswith(".") and entry.name.casefold() not in _JUNK
                ]
        except OSError as error:
            self._problems.add(
                folder,
                f"each folder must be readable ({error.strerror})",
                "Give yourself permission to list it.",
            )
            return []
        good = [entry for entry in entries if self._is_good(entry, folder)]
        return sorted(good, key=lambda entry: entry.name)

    def _is_good(self, entry: os.DirEntry[str], folder: Path) -> bool:
        """Whether an entry may be used; if not, it is a problem."""
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            self._problems.add(
                folder / entry.name,
                "names must be valid UTF-8",
                "Rename it (convmv does whole folders).",
            )
            return False
        # No control character is printable, and that is told a name at a time.
        if not entry.name.isprintable() and any(
            unicodedata.category(c) == "Cc" for c in entry.name
        ):
            self._problems.add(
                folder / entry.name,
                "names may hold no control characters",
                "Rename it.",
            )
            return False
        return not entry.is_symlink() or self._is_good_link(folder / entry.name)

    def _is_good_link(self, path: Path) -> bool:
        try:
            target = path.resolve(strict=True)
        # Links that lead in a circle.
        except (OSError, RuntimeError):
            self._problems.add(
                path,
                f"links must lead to something, this one leads to {str(path.readlink())!r}",
                "Remove it.",
            )
            return False
        if not target.is_relative_to(self._root):
            self._problems.add(
                path,
                f"links may not lead out of the data folder, this one leads to {_shown(target)}",
                "Copy the images into the folder in place of the link.",
            )
            return False
        return True


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:10]))
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _shown(path: Path) -> str:
    return visible(os.fsencode(path).decode(errors="backslashreplace"))


def _fail(path: Path, rule: str, remedy: str) -> NoReturn:
    raise ImageFolderError(f"{_shown(path)}: {rule}. {remedy}")
