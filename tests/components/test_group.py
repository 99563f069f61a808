import itertools

import pytest

from components.group import groups


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([1, 1, 1, 1, 1], [[1, 1, 1], [1, 1]]),
        ([9, 1, 9, 1], [[9, 1], [9, 1]]),
        ([10, 1, 50], [[10], [1, 50]]),
        ([1, 1, 1], [[1, 1, 1]]),
    ],
)
def test_a_group_is_full_by_number_or_by_bytes(sizes: list[int], expected: list[list[int]]) -> None:
    assert list(groups(sizes, lambda size: size, most=3, most_bytes=10)) == expected


def test_no_more_is_taken_than_a_group_needs() -> None:
    endless = itertools.count()
    assert next(groups(endless, lambda _: 1, most=2, most_bytes=100)) == [0, 1]
    assert next(endless) == 2
