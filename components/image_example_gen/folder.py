"""Layout of an image folder: which images it holds, by split and class.

Loads neither TFX nor TensorFlow.
"""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer_module.util.checks import UserError, require
from trainer_module.util.text import joined, listed, visible

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
IMAGE_SUFFIXES = READABLE_SUFFIXES | {".avif", ".heic", ".heif", ".jp2", ".jxl"}
"""Photos that cannot be read count as images, so that a run names them instead of leaving half of
a class out."""

MAX_CLASSES = 5000
MAX_DEPTH = 8
"""Parts of an image's path below the data folder."""

_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})
_LAYOUT = "Lay it out as <class>/<image>, or as train/, eval/ and test/ with <class>/ in each."
_READABLE = ", ".join(sorted(suffix[1:] for suffix in READABLE_SUFFIXES))
_MAX_LINES, _MAX_PATHS, _MAX_SUFFIXES, _MAX_SUFFIX = 10, 3, 5, 16


@dataclass(frozen=True)
class ImageFolder:
    """Images of a data folder."""

    root: Path
    """The data folder."""
    classes: tuple[str, ...]
    """Class names, sorted; Unicode in composed form (NFC)."""
    files: Mapping[str, tuple[str, ...]]
    """Paths relative to root, with "/", sorted, by split; without split folders all in "train"."""
    carved: tuple[str, ...]
    """Splits without a folder of their own: they are drawn from "train"."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Number of files below the class folders that are no images, by suffix in lower case."""

    def __len__(self) -> int:
        """Number of image files."""
        return sum(map(len, self.files.values()))


def scan(root: str | os.PathLike[str]) -> ImageFolder:
    """Lists a data folder without opening an image.

    Two layouts: `<split>/<class>/<image>`, where the split folders are train or training; val,
    valid, validation or eval; test or testing; and `<class>/<image>`. Images in folders below a
    class folder belong to that class. Hidden files and what desktops leave behind (Thumbs.db and
    the like) are passed over; files of other suffixes than `IMAGE_SUFFIXES` are left out, and
    counted below the class folders.

    Raises:
        UserError: The folder, a class or a file breaks a rule. The message lists all that do, up
            to a bound.
    """
    root = Path(root)
    what = "a file" if root.exists() else "nothing"
    require(root.is_dir(), f"{root}: the data folder must be a folder", what, "Check its path.")
    return _Scan(root).result()


def class_of(path: str) -> str:
    """Returns the class name of an image by its path below the data folder, composed (NFC).

    It is the first folder, or the second where the first is that of a split. `scan` lets no class
    folder that is named like a split have folders.
    """
    first, _, rest = path.partition("/")
    second, deeper, _ = rest.partition("/")
    is_split = deeper and first.casefold() in SPLIT_FOLDERS
    return unicodedata.normalize("NFC", second if is_split else first)


def suffix_of(name: str) -> str:
    """Returns the suffix of a file name or path in lower case, with its dot; empty without one."""
    name = name[name.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def counted(suffixes: Mapping[str, int]) -> str:
    """Returns numbers of files by suffix in words: ".txt 12, .xml 3 and 2 others"."""
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(
        f"{visible(name)[:_MAX_SUFFIX]} {count:,}" for name, count in ordered[:_MAX_SUFFIXES]
    )
    others = sum(count for _, count in ordered[_MAX_SUFFIXES:])
    return f"{text} and {others:,} others" if others else text


def shards(folder: ImageFolder, size: int) -> list[list[tuple[str, str]]]:
    """Cuts a folder's files into shards of at most `size`, the same way each time.

    The order is that of the hashes of the paths, so classes are mixed.

    Returns:
        Shards of (split named by the folder, path relative to the data folder).
    """
    files = sorted(
        ((split, path) for split, paths in folder.files.items() for path in paths),
        key=lambda file: hashlib.sha256(file[1].encode()).digest(),
    )
    return [files[start : start + size] for start in range(0, len(files), size)]


def fingerprint(folder: ImageFolder) -> str:
    """Returns a hash that changes when an image is added, removed, renamed, moved or written to.

    It reads no contents: it hashes paths, sizes and both times. The change time (ctime) shows a
    replacement that kept size and modification time.

    Raises:
        UserError: An image vanished since the scan.
    """
    digest = hashlib.sha256()
    for split, paths in folder.files.items():
        for path in paths:
            try:
                stat = os.stat(f"{folder.root}/{path}")  # noqa: PTH116  (a quarter of the time)
            except OSError as error:
                raise UserError(
                    f"{_printable(folder.root / path)}: images must stay readable",
                    error.strerror,
                    "Run again when nothing else writes to the folder.",
                ) from error
            # No path holds a line feed, so that no two folders make the same lines.
            times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
            digest.update(f"{split} {stat.st_size} {times} {path}\n".encode())
    return digest.hexdigest()


def check_split_counts(counts: Mapping[str, Mapping[str, int]], folder: ImageFolder) -> None:
    """Checks what is left after splitting and skipping.

    Args:
        counts: Images by split and class.
        folder: The data folder.

    Raises:
        UserError: A split is empty, or a class has no image left to train on.
    """
    for split in SPLITS:
        why = (
            f"{split} is drawn from train, about one image in ten, or one group of `group_by`"
            if split in folder.carved
            else "none of its images was good"
        )
        require(
            any(counts.get(split, {}).values()),
            f"{_printable(folder.root)}: no split may be empty ({why})",
            f"no image in {split} of {len(folder)}",
            f"Add images, or lay out train/ and {split}/ yourself.",
        )
    missing = [name for name in folder.classes if not counts[TRAIN].get(name)]
    require(
        not missing,
        f"{_printable(folder.root)}: each class needs an image in train",
        f"none left for {listed(missing)}",
        "Add good images of it, or remove its folder.",
    )


class _Scan:
    """A walk through a data folder that never leaves it and collects all errors.

    Paths are relative to the data folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._resolved = root.resolve()
        self._left_out: Counter[str] = Counter()
        # Paths by rule and remedy.
        self._errors: dict[tuple[str, str], list[str]] = {}

    def result(self) -> ImageFolder:
        """Returns the images, or raises one error for all that is wrong."""
        top = self._folders("")
        deep = [name for name in top if _split_of(name) and self._has_folders(name)]
        if any(_split_of(name) == TRAIN for name in deep):
            splits = self._splits(top)
        else:
            for name in deep:
                self._add(name, "split folders need a train/ folder beside them", _LAYOUT)
            splits = {TRAIN: self._classes(top)}
        classes = tuple(sorted(splits[TRAIN]))
        if not 2 <= len(classes) <= MAX_CLASSES:
            rule = f"there must be 2 to {MAX_CLASSES} class folders, got {len(classes)}"
            if len(classes) == 1:
                rule += f", {classes[0]!r}"
            self._add("", rule, f"Check that it is the folder right above the classes. {_LAYOUT}")
        self._raise_if_any()
        files = {
            split: tuple(sorted(path for paths in splits[split].values() for path in paths))
            for split in SPLITS
            if split in splits
        }
        carved = tuple(split for split in SPLITS if split not in splits)
        return ImageFolder(self._root, classes, files, carved, self._left_out)

    def _add(self, path: str, rule: str, remedy: str) -> None:
        self._errors.setdefault((rule, remedy), []).append(path)

    def _count(self) -> int:
        return sum(map(len, self._errors.values()))

    def _raise_if_any(self) -> None:
        lines = []
        for (rule, remedy), paths in self._errors.items():
            where = joined(paths, _MAX_PATHS, write=lambda path: _printable(self._root / path))
            lines.append(f"\n  {where}: {rule}. {remedy}")
        if len(lines) > _MAX_LINES:
            lines[_MAX_LINES:] = [f"\n  (and {len(lines) - _MAX_LINES:,} more)"]
        require(
            not lines,
            f"{_printable(self._root)}: the layout must be valid",
            f"{self._count():,} error{'s' * (self._count() > 1)}",
            f"Correct:{''.join(lines)}",
        )

    def _splits(self, top: Sequence[str]) -> dict[str, dict[str, list[str]]]:
        """Returns image paths by split and class."""
        splits: dict[str, dict[str, list[str]]] = {}
        # Train comes first: the classes of the others must be among its own.
        for folder in sorted(top, key=lambda name: _split_of(name) != TRAIN):
            split = _split_of(folder)
            if split is None:
                remedy = "Name it eval or test, move it into train/, or remove it."
                self._add(folder, "beside train/ there may be only split folders", remedy)
            elif split in splits:
                rule = f"each split may have one folder, got a second one for {split}"
                self._add(folder, rule, "Merge the two.")
            else:
                classes = self._folders(folder)
                if not classes:
                    remedy = "Fill it, or remove it to have the split drawn from train/."
                    self._add(folder, "a split must hold class folders, got none", remedy)
                splits[split] = self._classes(classes, splits.get(TRAIN))
        return splits

    def _classes(
        self, folders: Sequence[str], known: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, list[str]]:
        """Returns image paths by class, each of which must be among the known ones, if any."""
        classes: dict[str, list[str]] = {}
        for folder in folders:
            name = unicodedata.normalize("NFC", folder.rpartition("/")[2])
            if known is not None and name not in known:
                rule = f"each class must be in train/ too, got {name!r} only here"
                self._add(folder, rule, "Add images of it to train/, or remove the folder.")
            if name in classes:
                rule = f"class names must differ, got {name!r} twice in other Unicode characters"
                self._add(folder, rule, "Merge the two folders.")
            errors = self._count()
            classes[name] = list(self._images(folder))
            if not classes[name] and self._count() == errors:
                rule = f"a class folder must hold images ({_READABLE}), got none"
                self._add(folder, rule, "Add images of the class, or remove the folder.")
        return classes

    def _folders(self, folder: str) -> list[str]:
        """Returns the folders in a folder of folders, sorted; an image there is an error."""
        paths = []
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}".lstrip("/")
            if entry.is_dir():
                paths.append(path)
            elif suffix_of(entry.name) in IMAGE_SUFFIXES:
                place = f"Move it into the folder of its class below {folder}/. " if folder else ""
                self._add(path, "images must lie in a class folder", place + _LAYOUT)
        return paths

    def _has_folders(self, folder: str) -> bool:
        try:
            with os.scandir(self._root / folder) as entries:
                return any(entry.is_dir() and not _is_junk(entry.name) for entry in entries)
        except OSError:
            return False

    def _images(self, folder: str) -> Iterator[str]:
        """Yields the images in a class folder and in those below it, sorted by level."""
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}"
            if not entry.is_dir():
                if suffix_of(entry.name) not in IMAGE_SUFFIXES:
                    self._left_out[suffix_of(entry.name) or "no suffix"] += 1
                elif entry.is_file():
                    yield path
                else:
                    self._add(path, "images must be regular files", "Move it out of the folder.")
            elif entry.is_symlink():
                remedy = "Copy its images into the class folder in place of the link."
                self._add(path, "links below a class folder must lead to files", remedy)
            elif path.count("/") + 2 > MAX_DEPTH:
                rule = f"images may lie at most {MAX_DEPTH - 1} folders deep, got a deeper folder"
                self._add(path, rule, "Move its images up.")
            else:
                yield from self._images(path)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Returns what a folder holds, sorted, without what breaks a rule."""
        try:
            with os.scandir(self._root / folder) as scanned:
                entries = [e for e in scanned if not _is_junk(e.name) and self._is_valid(e, folder)]
        except OSError as error:
            rule = f"folders must be readable ({error.strerror})"
            self._add(folder, rule, "Give yourself permission to list it.")
            return []
        return sorted(entries, key=lambda entry: entry.name)

    def _is_valid(self, entry: os.DirEntry[str], folder: str) -> bool:
        path = f"{folder}/{entry.name}".lstrip("/")
        # Names that are no UTF-8 have surrogates (Cs). None of these characters is printable, and
        # `isprintable` is quick.
        if not entry.name.isprintable() and any(
            unicodedata.category(c) in ("Cc", "Cs") for c in entry.name
        ):
            remedy = "Rename it (convmv does whole folders)."
            self._add(path, "names must be valid UTF-8 without control characters", remedy)
            return False
        return not entry.is_symlink() or self._is_valid_link(path)

    def _is_valid_link(self, path: str) -> bool:
        link = self._root / path
        try:
            is_inside = link.resolve(strict=True).is_relative_to(self._resolved)
        # RuntimeError: links that lead in a circle.
        except (OSError, RuntimeError):
            is_inside = False
        if not is_inside:
            target = _printable(link.readlink())
            rule = f"links must lead to something in the data folder, got one to {target!r}"
            self._add(path, rule, "Copy the images into the folder in place of the link.")
        return is_inside


def _split_of(folder: str) -> str | None:
    return SPLIT_FOLDERS.get(folder.casefold())


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _JUNK


def _printable(path: Path) -> str:
    return visible(os.fsencode(path).decode(errors="backslashreplace"))
