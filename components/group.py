"""Things one after the other, cut into groups that fit the memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def groups(
    items: Iterable[_Item], size_of: Callable[[_Item], int], most: int, most_bytes: int
) -> Iterator[list[_Item]]:
    """Cut into groups: many small items, few large ones.

    A group ends with the item that makes it full, so it may have that item's bytes more than
    `most_bytes`.

    Args:
        items: In their order; no more are taken than the group at hand needs.
        size_of: Bytes of an item.
        most: Items in a group, at most.
        most_bytes: Bytes at which a group is full.
    """
    group: list[_Item] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if len(group) == most or size >= most_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group
