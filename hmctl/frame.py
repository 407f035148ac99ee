"""A picture that is drawn over the one before, on a terminal of any size. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hmctl.columns import paint
from hmctl.text import Styled, plural

_PAINT = re.compile(r"\x1b\[[0-9;]*m")


def over_the_last(lines: Sequence[str], columns: int, rows: int, colour: bool) -> str:
    """What draws `lines` from the top. Of those that `rows` have no room for, the last row says how many they are.

    Home, each line erased behind its end, then all below: nothing flickers as it would if the screen were cleared first. Behind a line that
    fills its row there is nothing, and a terminal would take its last character for that.
    """
    shown = _cut(lines, columns, rows, colour)
    return "\x1b[H" + "".join(line + ("" if _fills(line, columns) else "\x1b[K") + "\n" for line in shown) + "\x1b[J"


def _cut(lines: Sequence[str], columns: int, rows: int, colour: bool) -> Sequence[str]:
    taken = [max(1, -(-_length(line) // columns)) for line in lines]  # the terminal goes on with a long line in the next row
    if sum(taken) <= rows:
        return lines
    fit = next(number for number in range(len(lines), -1, -1) if sum(taken[:number]) < max(1, rows))
    return [*lines[:fit], paint((Styled(f"… {plural(len(lines) - fit, 'more line')}", "dim"),), colour)]


def _fills(line: str, columns: int) -> bool:
    return _length(line) > 0 and _length(line) % columns == 0


def _length(line: str) -> int:
    return len(_PAINT.sub("", line))
