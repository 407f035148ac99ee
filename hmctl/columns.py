"""Tables of text: which columns a terminal has room for, and how rows are laid out that need no wrapping, or no longer fit. Pure.

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
_NARROWEST = 8  # with fewer of them, such a text is put on lines of its own
_HANGING = 2  # columns by which what continues a row is indented


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
    made = _made(columns)
    if not any(column.spared for column in made):
        return columns, rows
    needed = _needed(made, rows, _READABLE)
    kept = list(range(len(made)))
    for number in sorted(kept, key=lambda number: -made[number].spared):
        if made[number].spared and _total([needed[each] for each in kept]) > width:
            kept.remove(number)
    return [made[number] for number in kept], [[row[number] for number in kept] for row in rows]


def left_out(columns: Sequence[Column | str], kept: Sequence[Column | str]) -> list[str]:
    """The titles of the columns that a terminal had no room for."""
    titles = {column.title for column in _made(kept)}
    return [column.title for column in _made(columns) if column.title not in titles]


def fits(columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], width: int) -> bool:
    """Whether each row has room beside one another for all that must not be broken, and for something of what may be."""
    return _total(_needed(_made(columns), rows, _NARROWEST)) <= width


def stacked_table(columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], indent: int, width: int, colour: bool) -> list[str]:
    """The table if a row does not fit a line: it goes on in the next one, indented, at the same column in every row. Nothing is cut;
    only what is longer than a whole line is broken."""
    made = _made(columns)
    room = max(_NARROWEST, width - indent - _HANGING)
    sizes = [min(size, room) for size in _needed(made, rows, room)]
    groups: list[list[int]] = [[]]
    for number, size in enumerate(sizes):
        if groups[-1] and _total([*(sizes[each] for each in groups[-1]), size]) > room:
            groups.append([])
        groups[-1].append(number)
    lines = []
    head: Sequence[Cell] = [Styled(column.title, "strong") for column in made]
    for row in (head, *rows):
        for group in groups:
            hanging = " " * (indent if group is groups[0] else indent + _HANGING)
            parts = [_broken(row[number], room) for number in group]
            for line in range(max(map(len, parts))):
                cells: list[Cell] = []
                for number, part in zip(group, parts, strict=True):
                    cell = part[line] if line < len(part) else ""
                    gap = " " * (sizes[number] - len(plain(cell)))
                    cells += [gap, cell, "  "] if made[number].right else [cell, gap, "  "]
                if any(plain(cell).strip() for cell in cells):
                    lines.append(hanging + _trimmed(cells, colour))
    return lines


def abreast(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[tuple[list[Column | str], list[Sequence[Cell]]]]:
    """A table whose columns are all wanted, as one or several that fit: each has the first column, which says what a row is of, and as
    many of the others as there is room for. Where that makes one table of it, titles are broken at their hyphens."""
    columns: list[Column | str] = [titles[0], *(Column(title, right=True) for title in titles[1:])]
    if fits(columns, rows, width):
        return [(columns, list(rows))]
    heads = [title.rpartition("-") for title in titles]
    upper, lower = [f"{before}{hyphen}" for before, hyphen, _ in heads], [last for *_, last in heads]
    sizes = [max(map(len, cells)) for cells in zip(upper, lower, *rows, strict=True)]
    groups: list[list[int]] = [[0]]
    for number in range(1, len(titles)):
        if len(groups[-1]) > 1 and _total([sizes[each] for each in (*groups[-1], number)]) > width:
            groups.append([0])
        groups[-1].append(number)
    tables: list[tuple[list[Column | str], list[Sequence[Cell]]]] = []
    for group in groups:
        two = any(upper[number] for number in group)
        first, *rest = [(upper if two else lower)[number] for number in group]
        body: list[Sequence[Cell]] = [[row[number] for number in group] for row in rows]
        second: list[Sequence[Cell]] = [[Styled(lower[number], "strong") for number in group]] if two else []
        tables.append(([first, *(Column(title, right=True) for title in rest)], second + body))
    return tables


def _made(columns: Sequence[Column | str]) -> list[Column]:
    return [Column(item) if isinstance(item, str) else item for item in columns]


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], enough: int) -> list[int]:
    """How wide each column has to be, when `enough` is for one that may be broken over lines."""
    needed = []
    for column, *cells in zip(columns, *rows, strict=True):
        longest = max(len(plain(cell)) for cell in (column.title, *cells))
        needed.append(min(longest, max(enough, len(column.title))) if column.wraps else longest)
    return needed


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _broken(cell: Cell, width: int) -> list[Cell]:
    import textwrap

    text = printable(plain(cell), keep="\n")
    return [Styled(part, style_of(cell)) for line in text.splitlines() for part in textwrap.wrap(line, width)] or [""]


def _trimmed(cells: Sequence[Cell], colour: bool) -> str:
    """`cells` painted, without what is blank behind the last word."""
    shown = list(cells)
    while shown and not plain(shown[-1]).strip():
        shown.pop()
    return paint(shown, colour)


def simple_table(
    columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], indent: int, width: int, colour: bool
) -> list[str] | None:
    """The table if nothing has to be cut, wrapped or measured: to load rich and have it draw hundreds of rows takes longer than to ask
    the nodes. None for any other."""
    made = _made(columns)
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
