"""Batches of items, bounded in count and total size."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def groups(
    items: Iterable[_Item], size_of: Callable[[_Item], int], most: int, most_bytes: int
) -> Iterator[list[_Item]]:
    """Batches items by count and total size, and takes no more of them than a batch needs.

    A batch ends with the item that makes it full, so it may exceed `most_bytes` by that item.

    Args:
        items: In their order.
        size_of: Bytes of an item.
        most: Items in a batch, at most.
        most_bytes: Bytes at which a batch is full.
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
