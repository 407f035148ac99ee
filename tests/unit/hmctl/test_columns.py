"""Tables where there is little room."""

from __future__ import annotations

import pytest

from hmctl.columns import Column, abreast, affordable, fits, left_out, stacked_table
from hmctl.text import Cell, Styled, plain

NODES: list[Column | str] = ["NODE", Column("ADDRESS", spared=1), "STATE", Column("HEALTH", right=True), Column("RTT", spared=2)]
ROWS: list[list[Cell]] = [
    ["a-node-with-a-long-name", "198.18.0.11", Styled("unreachable", "bad"), "-", "-"],
    ["b", "198.18.0.12", Styled("ready", "good"), "100%", "1.2 ms"],
]


def test_what_was_left_out_is_known_by_its_title() -> None:
    assert left_out(NODES, affordable(NODES, ROWS, 100)[0]) == []
    assert left_out(NODES, affordable(NODES, ROWS, 58)[0]) == ["RTT"]
    assert left_out(NODES, affordable(NODES, ROWS, 20)[0]) == ["ADDRESS", "RTT"]


def test_a_row_that_does_not_fit_goes_on_in_the_next_line_and_nothing_is_cut() -> None:
    columns, rows = affordable(NODES, ROWS, 30)
    assert not fits(columns, rows, 30)
    assert stacked_table(columns, rows, 0, 30, colour=False) == [
        "NODE",
        "  STATE        HEALTH",
        "a-node-with-a-long-name",
        "  unreachable       -",
        "b",
        "  ready          100%",
    ]


def test_what_is_longer_than_a_line_is_broken_at_its_hyphens_and_keeps_its_colour() -> None:
    rows: list[list[Cell]] = [[Styled("a-node-with-a-long-name", "strong"), "ready"]]
    assert stacked_table(["NODE", "STATE"], rows, 2, 22, colour=True) == [
        "  \x1b[1mNODE\x1b[0m",
        "    \x1b[1mSTATE\x1b[0m",
        "  \x1b[1ma-node-with-a-\x1b[0m",
        "  \x1b[1mlong-name\x1b[0m",
        "    ready",
    ]


@pytest.mark.parametrize("width", range(1, 80))
def test_no_letter_is_lost_at_any_width(width: int) -> None:
    words = "the reason, which is long enough to be broken over lines"
    columns: list[Column | str] = ["NODE", Column("HEALTH", right=True), Column("WHY", wraps=True)]
    lines = stacked_table(columns, [["a-node-with-a-long-name", "100%", words]], 0, width, colour=False)
    text = "".join("".join(lines).split())
    assert sorted(text) == sorted("".join(f"NODE HEALTH WHY a-node-with-a-long-name 100% {words}".split()))
    assert all(len(line) <= max(width, 10) for line in lines)


def test_a_text_that_may_be_broken_needs_no_more_than_some_room() -> None:
    columns = ["NODE", Column("WHY", wraps=True)]
    assert fits(columns, [["node1", "words " * 9]], 15)
    assert not fits(columns, [["node1", "words " * 9]], 14)


TITLES = ["SETTING", "DEVELOPMENT", "HIGH-PERFORMANCE", "HIGH-RELIABILITY"]
VALUES = [["raft.heartbeat", "1 s", "2 s", "3 s"]]


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (200, [["SETTING", "DEVELOPMENT", "HIGH-PERFORMANCE", "HIGH-RELIABILITY"]]),
        (63, [["SETTING", "DEVELOPMENT", "HIGH-PERFORMANCE", "HIGH-RELIABILITY"]]),
        (62, [["", "", "HIGH-", "HIGH-"]]),
        (53, [["", "", "HIGH-", "HIGH-"]]),
        (52, [["", "", "HIGH-"], ["", "HIGH-"]]),
        (39, [["SETTING", "DEVELOPMENT"], ["", "HIGH-"], ["", "HIGH-"]]),
        (10, [["SETTING", "DEVELOPMENT"], ["", "HIGH-"], ["", "HIGH-"]]),
    ],
)
def test_columns_that_are_all_wanted_are_shown_in_as_many_tables_as_it_takes(width: int, heads: list[list[str]]) -> None:
    tables = abreast(TITLES, VALUES, width)
    assert [[column if isinstance(column, str) else column.title for column in columns] for columns, _ in tables] == heads
    assert all(plain(rows[-1][0]) == "raft.heartbeat" for _, rows in tables)
    assert [plain(cell) for _, rows in tables for cell in rows[-1][1:]] == ["1 s", "2 s", "3 s"]
    if heads[0][0] == "":
        assert [plain(cell) for cell in tables[0][1][0]][:3] == ["SETTING", "DEVELOPMENT", "PERFORMANCE"]
