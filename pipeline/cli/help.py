"""Layout of `--help`: tyro's text in groups, the common flags first."""

import re
import shutil
import textwrap
from collections.abc import Collection, Iterator

_COMMON = """
data output classes on-bad-image tune verbose height width channels augment flip numeric bucketized
dates categorical label task label-scale model strategy factor actions max-epochs time-budget
monitor mode patience learning-rate optimizer batch-size class-weight seed min-accuracy
min-class-accuracy max-accuracy-drop min-r2 max-mae max-r2-drop max-latency max-model-mib examples
strategies seeds image file target root pushed volume
"""
COMMON = frozenset(_COMMON.split())
"""Flags that `--help` explains for a command with many; `--help-all` explains all."""

_MANY = 20
_COLUMN = 26
# Where its output is no terminal, tyro draws no frames.
_RULE = re.compile(r"^ *-{3,} *$", re.M)
_TITLE = re.compile(r"^ (?=\S)", re.M)
_NO_DEFAULT = re.compile(r" \((?:default: (?:None)?|required)\)$")
_FLAG = re.compile(r"^  (?=--|\[?[A-Z_]+[\].]*(?:$|  ))", re.M)


def lay_out(text: str, show_all: bool, without: Collection[str] = ()) -> str:
    """Returns a help text of tyro in groups, for the width of the terminal.

    Args:
        text: Help as tyro prints it where there is no terminal.
        show_all: Whether to explain all flags of a command with many.
        without: Flags that the command refuses.
    """
    first, *rest = _TITLE.split(_RULE.sub("", text.replace("{None}|", "")))
    groups = [
        (_title(part), [flag for flag in _flags(part) if _name(flag[0]) not in without])
        for part in rest
    ]
    show_all = show_all or sum(len(flags) for _, flags in groups) <= _MANY
    width = max(40, shutil.get_terminal_size().columns - 1)
    usage, *about = first.strip().splitlines()
    lines = [usage, "", *textwrap.wrap(" ".join(about).strip(), width)]
    indent = " " * _COLUMN
    for title, flags in groups:
        listed = [flag for flag in flags if show_all or _name(flag[0]) in COMMON]
        lines += ["", title] if listed else []
        for head, explained in listed:
            start = f"  {head}".ljust(_COLUMN)
            if len(start) > _COLUMN or start[-2:].strip():
                lines.append(start.rstrip())
                start = indent
            lines += textwrap.wrap(explained, width, initial_indent=start, subsequent_indent=indent)
    lines += [] if show_all else ["", "--help-all explains every flag."]
    return "\n".join(lines) + "\n"


def error(text: str) -> str:
    """Returns an error of tyro without its title and rules."""
    _, *lines = filter(None, map(str.strip, _RULE.sub("", text).splitlines()))
    return "\n  ".join(lines)


def _title(group: str) -> str:
    """Returns "plateau flags" of the group "schedule.plateau options"."""
    title = group.splitlines()[0].strip()
    name = title.removesuffix("options").strip().rpartition(".")[2]
    return title if not title.endswith("options") else f"{name} flags".strip()


def _flags(group: str) -> Iterator[tuple[str, str]]:
    """Yields each flag with its explanation."""
    for part in _FLAG.split(group)[1:]:
        line, *more = part.splitlines()
        head, _, begin = line.partition("  ")
        words = " ".join([begin, *more]).split()
        yield head.strip(), _NO_DEFAULT.sub("", " ".join(words))


def _name(head: str) -> str:
    """Returns the name in "--no-nesterov" or "--patience INT"."""
    return head.split()[0].removeprefix("--").removeprefix("no-")
