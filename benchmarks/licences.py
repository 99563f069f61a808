"""`make licences`: writes docs/licences.md from the metadata of what is installed from the lock."""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import locks

PAGE = locks.ROOT / "docs" / "licences.md"
LOCK = "requirements.lock"

# Words of the field `License` and ends of classifiers, by the identifier of SPDX that they mean.
# A classifier "BSD License" does not tell which of the BSD licences, so it stays one word.
_MEANING = {
    "Apache-2.0": (
        "apache 2",
        "apache 2.0",
        "apache license",
        "apache license 2.0",
        "apache license version 2.0",
        "apache license, version 2.0",
        "apache software license",
    ),
    "BSD": ("bsd", "bsd license"),
    "BSD-2-Clause": ("bsd 2-clause license", "bsd-2-clause license"),
    "BSD-3-Clause": (
        "3-clause bsd",
        "3-clause bsd license",
        "bsd 3-clause",
        "bsd 3-clause license",
        "modified bsd license",
        "new bsd",
    ),
    "ISC": ("isc license", "isc license (iscl)"),
    "MIT": ("mit license",),
    "MPL-2.0": ("mozilla public license 2.0 (mpl 2.0)", "mpl 2.0"),
    "PSF-2.0": ("psfl", "python software foundation license"),
    "Unlicense": ("the unlicense (unlicense)",),
}
_IDENTIFIERS = {
    *_MEANING,
    "CNRI-Python",
    "MIT-CMU",
}
_BY_WORD = {word: spdx for spdx, words in _MEANING.items() for word in words}

# Metadata without a licence; what stands here was read in the file the package comes with.
BY_FILE = {"namex": "Apache-2.0"}

UNKNOWN = "unknown"
COPYLEFT = ("AGPL", "CDDL", "EPL", "EUPL", "GPL", "LGPL", "MPL")

_INTRODUCTION = """# Licences of what is installed

`make licences` writes this page from the metadata of the packages in `requirements.lock`,
{number} in all; a test compares the two. What the licences mean for this project is told in
[supply-chain.md](supply-chain.md#licences).

{summary}

"BSD" stands where the metadata does not tell which of the BSD licences it is.

| package | version | licence |
| --- | --- | --- |
"""


@dataclass(frozen=True)
class Licensed:
    """A locked package and its licence.

    Attributes:
        name: Name of the package.
        version: Version that is locked.
        licence: Identifiers of SPDX, joined by AND and OR; `UNKNOWN` if nothing is told.
    """

    name: str
    version: str
    licence: str

    @property
    def copyleft(self) -> bool:
        """Whether a part of it must stay under its own licence when it is passed on."""
        words = re.split(r"[\s()]+", self.licence)
        return any(word.startswith(COPYLEFT) for word in words)


def licence(name: str, expression: str, field: str, classifiers: Sequence[str]) -> str:
    """The licence in one form.

    Args:
        name: Name of the package.
        expression: Its metadata's License-Expression; empty if it has none.
        field: Its metadata's License, which may be anything from a word to the whole text.
        classifiers: Its metadata's classifiers.
    """
    if expression:
        return expression
    first = (field.strip().splitlines() or [""])[0].strip()
    parts = re.split(r" (?:AND|OR) ", first)
    if first and all(part in _IDENTIFIERS for part in parts):
        return first
    # A classifier knows one BSD licence and one Apache licence, so the field comes first.
    if _spdx(first):
        return _spdx(first)
    ends = [each.split(" :: ")[-1] for each in classifiers if each.startswith("License ::")]
    told = dict.fromkeys(named for named in map(_spdx, ends) if named)
    return " OR ".join(told) or BY_FILE.get(name, UNKNOWN)


def _spdx(words: str) -> str:
    plain = words.strip()
    return plain if plain in _IDENTIFIERS else _BY_WORD.get(plain.lower(), "")


def read(pins: Mapping[str, locks.Pin]) -> list[Licensed]:
    """The licences of what is installed, in the order of the names.

    Args:
        pins: What is locked.

    Raises:
        ValueError: What is locked is not what is installed.
    """
    found = []
    for name, pin in sorted(pins.items()):
        try:
            told = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            raise ValueError(
                f"{name} {pin.version} must be installed, it is not. Run make install."
            ) from None
        if told["Version"] != pin.version:
            raise ValueError(
                f"{name} must be installed as {pin.version}, got {told['Version']}. "
                "Run make install."
            )
        expression, field, classifiers = (
            told.get_all(key) or [] for key in ("License-Expression", "License", "Classifier")
        )
        told_by = licence(name, "".join(expression[:1]), "".join(field[:1]), classifiers)
        found.append(Licensed(name, pin.version, told_by))
    return found


def page(found: Sequence[Licensed]) -> str:
    """The page, as Markdown.

    Args:
        found: Every locked package.
    """
    counts = Counter(each.licence for each in found)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    summary = "| licence | packages |\n| --- | --- |\n" + "\n".join(
        f"| {name} | {number} |" for name, number in ordered
    )
    rows = [
        f"| {each.name} | {each.version} | "
        + (f"**{each.licence}**" if each.copyleft else each.licence)
        + " |"
        for each in found
    ]
    return _INTRODUCTION.format(number=len(found), summary=summary) + "\n".join(rows) + "\n"


def main(path: Path = PAGE) -> int:
    """Write the page.

    Args:
        path: Where to.

    Returns:
        0 if it is written; 1 if the licence of a package is not known.
    """
    try:
        found = read(locks.read(LOCK))
    except ValueError as error:
        print(f"make licences: {error}", file=sys.stderr)
        return 1
    unknown = [each.name for each in found if each.licence == UNKNOWN]
    if unknown:
        print(
            f"make licences: every package must tell its licence, {', '.join(unknown)} does not. "
            "Read the file it comes with and add it to BY_FILE in benchmarks/licences.py.",
            file=sys.stderr,
        )
        return 1
    path.write_text(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
