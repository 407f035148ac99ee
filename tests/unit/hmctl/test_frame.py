"""A moving picture on a terminal of any size."""

from __future__ import annotations

import re

import pytest

from hmctl.frame import over_the_last

PICTURE = [f"line {number}" for number in range(10)]


def drawn(lines: list[str], columns: int, rows: int) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", over_the_last(lines, columns, rows, colour=False)).splitlines()


def test_what_fits_is_drawn_whole() -> None:
    assert drawn(PICTURE, 80, 10) == PICTURE


def test_what_does_not_fit_is_counted_in_the_last_row() -> None:
    assert drawn(PICTURE, 80, 9) == [*PICTURE[:8], "… 2 more lines"]
    assert drawn(PICTURE, 80, 4) == [*PICTURE[:3], "… 7 more lines"]
    assert drawn(PICTURE, 80, 1) == ["… 10 more lines"]


@pytest.mark.parametrize("rows", range(1, 14))
def test_a_line_that_is_wider_than_the_terminal_takes_the_rows_that_it_takes(rows: int) -> None:
    lines = ["\x1b[31m" + "w" * 25 + "\x1b[0m", "", *PICTURE[:8]]
    shown = drawn(lines, 10, rows)
    assert sum(max(1, -(-len(line) // 10)) for line in shown if not line.startswith("…")) + (shown[-1][0] == "…") <= rows
    assert (shown[-1][0] == "…") == (rows < 12)


def test_a_line_is_erased_behind_its_end_but_for_one_that_fills_its_row() -> None:
    assert over_the_last(["four", "", "eightish", "a"], 4, 9, colour=False) == "\x1b[Hfour\n\x1b[K\neightish\na\x1b[K\n\x1b[J"
