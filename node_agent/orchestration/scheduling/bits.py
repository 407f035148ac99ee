"""Sets of nodes as whole numbers: bit n is the node with number n. To intersect two costs next to nothing, and so does the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def bits(numbers: Iterable[int], size: int) -> int:
    """`size`: more than any of the numbers."""
    row = bytearray((size + 7) >> 3)
    for number in numbers:
        row[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(row, "little")


def numbers(of: int) -> Iterator[int]:
    """In order."""
    while of:
        lowest = of & -of
        yield lowest.bit_length() - 1
        of ^= lowest


def first(of: int, start: int) -> int:
    """Of a set that is not empty: the first number from `start` on, after the last of them again from 0."""
    of = of >> start << start or of
    return (of & -of).bit_length() - 1
