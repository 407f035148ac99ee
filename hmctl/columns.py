"""Tables of text: which columns a terminal has room for, and how rows are laid out that need no wrapping. Pure.

What has to be wrapped or measured (output.py lets rich do it) is the exception: hundreds of plain rows are drawn here in no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hmctl.text import TINTS, Cell, Style, Styled, plain, printable, style_of

_SGR: Mapping[Style, str] = {
    "good": "32",
    "warning": "33",
    "bad": "31",
    "dim": "2",
    "strong": "1",
    "accent": "36",
    **dict(zip(TINTS, ("36", "35", "34", "32", "33", "96"), strict=True)),
}
_READABLE = 24  # columns that a text needs which may be broken over lines


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column. `wraps`: may be broken over lines when the terminal is narrow; others keep their width. `spared`: left out when
    even so the terminal is too narrow, the highest first; 0: never."""

    title: str
    right: bool = False
    wraps: bool = False
    spared: int = 0


def affordable(
    columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], width: int
) -> tuple[Sequence[Column | str], Sequence[Sequence[Cell]]]:
    """The columns that `width` has room for: of those that may be spared, as few as need be are."""
    made = [Column(item) if isinstance(item, str) else item for item in columns]
    if not any(column.spared for column in made):
        return columns, rows
    needed = []
    for column, title, *cells in zip(made, [column.title for column in made], *rows, strict=True):
        longest = max(len(plain(cell)) for cell in (title, *cells))
        needed.append(min(longest, _READABLE) if column.wraps else longest)
    kept = list(range(len(made)))
    for number in sorted(kept, key=lambda number: -made[number].spared):
        if made[number].spared and sum(needed[each] for each in kept) + 2 * (len(kept) - 1) > width:
            kept.remove(number)
    return [made[number] for number in kept], [[row[number] for number in kept] for row in rows]


def simple_table(
    columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], indent: int, width: int, colour: bool
) -> list[str] | None:
    """The table if nothing has to be cut, wrapped or measured: to load rich and have it draw hundreds of rows takes longer than to ask
    the nodes. None for any other."""
    made = [Column(item) if isinstance(item, str) else item for item in columns]
    texts = [[plain(cell) for cell in row] for row in rows]
    if not all(text.isascii() and text.isprintable() for row in texts for text in row):
        return None
    widths = [max(map(len, column)) for column in zip([column.title for column in made], *texts, strict=True)]
    if indent + sum(widths) + 2 * (len(widths) - 1) > width:
        return None
    head: Sequence[Cell] = [Styled(column.title, "strong") for column in made]
    lines = []
    for row in (head, *rows):
        gaps = [" " * (size - len(plain(cell))) for cell, size in zip(row, widths, strict=True)]
        parts = [(gap, cell) if column.right else (cell, gap) for column, cell, gap in zip(made, row, gaps, strict=True)]
        cells = [part for pair in parts for part in (*pair, "  ")]
        lines.append((" " * indent + paint(cells, colour)).rstrip())
    return lines


def paint(cells: Sequence[Cell], colour: bool) -> str:
    painted = []
    for cell in cells:
        text = printable(plain(cell))
        style = style_of(cell)
        painted.append(f"\x1b[{_SGR[style]}m{text}\x1b[0m" if colour and style else text)
    return "".join(painted)
