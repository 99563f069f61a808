"""Split assignment by hash: more images move none of those already there.

Loads neither TFX nor TensorFlow.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from components.image_example_gen.folder import EVAL, SPLITS, TEST, TRAIN, ImageFolder
from trainer_module.util.checks import UserError, require
from trainer_module.util.text import listed

RULE = 2
"""Version of the rule by which images are assigned: a parameter of ImageExampleGen, so that no
cache returns the splits of another rule."""

ENOUGH = 10
"""Images (or groups) from which on a class has at least one in each split."""

# Hundredths of the images: those below TEST's bound are test, those below EVAL's are eval.
_TEST_BELOW, _EVAL_BELOW = 10, 20

SHARES: Mapping[str, float] = {TEST: _TEST_BELOW / 100, EVAL: (_EVAL_BELOW - _TEST_BELOW) / 100}
"""Expected share of the images in each split that is drawn from train."""


def key_of(content: bytes, path: str, group_by: str | None) -> int:
    """Returns the hash that decides an image's split: of its group, or of its bytes.

    Args:
        content: The file.
        path: Path relative to the data folder.
        group_by: Regular expression as `group_of` takes it; None to split image by image.
    """
    text = content if group_by is None else (group_of(path, group_by) or path).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def group_of(path: str, group_by: str) -> str | None:
    """Returns the group of an image: what the expression's groups match, or all that it matches.

    Args:
        path: Path relative to the data folder.
        group_by: Regular expression, searched for in the path.

    Returns:
        The group; None where nothing matches, or only an empty text.
    """
    match = re.search(group_by, path)
    if match is None:
        return None
    # A separator that is in no path keeps ("ab", "c") apart from ("a", "bc").
    return "\n".join(part or "" for part in match.groups() or (match[0],)).strip("\n") or None


def check_expression(group_by: str) -> None:
    """Raises UserError unless a text is a regular expression."""
    try:
        re.compile(group_by)
    except re.error as error:
        raise UserError(
            f"`group_by` must be a regular expression ({error})",
            group_by,
            r"Try '(\w+)_\d+\.jpg$', which groups anna_1.jpg with anna_2.jpg.",
        ) from None


def check_groups(folder: ImageFolder, group_by: str) -> None:
    """Checks that each image has a group, and that no group lies in two split folders.

    Args:
        folder: The data folder.
        group_by: Regular expression as `group_of` takes it.

    Raises:
        UserError: The expression does not match an image, or the images of a group lie in more
            than one split folder.
    """
    first: dict[str, tuple[str, str]] = {}
    unmatched: list[str] = []
    for split, paths in folder.files.items():
        for path in paths:
            group = group_of(path, group_by)
            if group is None:
                unmatched.append(path)
                continue
            other, its_split = first.setdefault(group, (path, split))
            require(
                its_split == split,
                f"{folder.root}: the images of a group must lie in one split folder",
                f"{other} and {path}, both of the group {group!r}",
                "Move them into one folder, or change `group_by`.",
            )
    require(
        not unmatched,
        f"{folder.root}: `group_by` must match in the path of each image, "
        f"{group_by!r} does in {len(folder) - len(unmatched)} of {len(folder)}",
        f"no match in {listed(unmatched)}",
        "Change the expression, or rename the images.",
    )


def split_of(key: int, carved: Collection[str]) -> str:
    """Returns the split that a key alone decides: 10 % test, 10 % eval, the rest train.

    Args:
        key: As `key_of` gives it.
        carved: Splits that are drawn from train; images of the others stay in train.
    """
    hundredth = key % 100
    drawn = TEST if hundredth < _TEST_BELOW else EVAL if hundredth < _EVAL_BELOW else TRAIN
    return drawn if drawn in carved else TRAIN


def stand_ins(keys: Mapping[str, Collection[int]], carved: Sequence[str]) -> dict[int, str]:
    """Returns the keys that have to leave their split, because a class would lack one.

    Each class has a key in train. A class of `ENOUGH` keys or more has one in each split, and so
    has the data set; unless each key that could be taken is another class's only one in its split.

    No rule that sees the present images only can promise that and never move an image. This one
    takes what it needs from train, and only from the ends of the order of keys, so that with more
    images a stand-in may go back to train, but no image leaves train. (A class with fewer than
    three keys in train by the hash is the exception: one in 10,000 of those with ten keys.)

    Args:
        keys: Keys by class; one may be there several times.
        carved: Splits that are drawn from train.

    Returns:
        The split of each key for which it is not `split_of`.
    """
    drawn = (TRAIN, *(split for split in SPLITS if split in carved))
    counts = {
        name: Counter(split_of(k, carved) for k in of_class) for name, of_class in keys.items()
    }
    # Sets of all keys would take more memory than all else, and are hardly ever needed.
    if all(
        counts[name][split]
        for name, of_class in keys.items()
        for split in (drawn if len(of_class) >= ENOUGH else drawn[:1])
    ) and all(any(count[split] for count in counts.values()) for split in drawn):
        return {}

    classes = {name: set(keys[name]) for name in sorted(keys)}
    # The whole data set too, by a name that no folder has.
    classes[""] = set[int]().union(*classes.values())
    counts = {n: Counter(split_of(k, carved) for k in own) for n, own in classes.items()}

    def required(name: str) -> tuple[str, ...]:
        return drawn if len(classes[name]) >= ENOUGH else drawn[:1] if name else ()

    owners: defaultdict[int, list[str]] = defaultdict(list)
    for name, own in classes.items():
        for key in own:
            owners[key].append(name)
    moved: dict[int, str] = {}

    def now(key: int) -> str:
        return moved.get(key) or split_of(key, carved)

    def is_spared(key: int) -> bool:
        split = now(key)
        return all(counts[n][split] > 1 or split not in required(n) for n in owners[key])

    for split in (TRAIN, TEST, EVAL):
        sign = 1 if split == TEST else -1
        for name, own in classes.items():
            if counts[name][split] or split not in required(name):
                continue
            # Only what is in train by the hash is stable; and each class must be trained on.
            candidates = [key for key in own if is_spared(key)]
            if not candidates and split == TRAIN:
                candidates = list(own)
            if not candidates:
                continue
            key = min(candidates, key=lambda k: (now(k) != TRAIN, sign * (k % 100), sign * k))
            for owner in owners[key]:
                counts[owner][now(key)] -= 1
                counts[owner][split] += 1
            moved[key] = split
    return {key: split for key, split in moved.items() if split != split_of(key, carved)}
