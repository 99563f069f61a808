"""Text from outside, such as names of classes and files, made readable."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

# Embeddings, overrides and isolates: what follows them is shown in another direction.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str, keep: str = "") -> str:
    """Returns a text with control characters, and those that change its direction, escaped.

    Args:
        text: Any text.
        keep: Control characters to leave alone, such as line feeds in a message.
    """
    if text.isprintable():
        return text
    return "".join(
        repr(c)[1:-1]
        if c in _DIRECTIONS or (unicodedata.category(c) == "Cc" and c not in keep)
        else c
        for c in text
    )


def listed(values: Sequence[object], most: int = 10) -> str:
    """Returns values as literals, such as "'a', 'b' and 3 more"."""
    return joined(values, most, write=repr)


def joined(
    values: Sequence[T], most: int, separator: str = ", ", write: Callable[[T], str] = str
) -> str:
    """Returns the first values as text, such as "a, b and 3 more"."""
    text = separator.join(map(write, values[:most]))
    return f"{text} and {len(values) - most:,} more" if len(values) > most else text
