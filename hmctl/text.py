"""Words for people: durations, sizes, counts, and text from elsewhere made safe to print. Pure, and imports nothing heavy."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Style = Literal["good", "warning", "bad", "dim", "strong", "accent", "tint0", "tint1", "tint2", "tint3", "tint4", "tint5"]
TINTS: tuple[Style, ...] = ("tint0", "tint1", "tint2", "tint3", "tint4", "tint5")  # to tell hosts apart; they mean nothing


@dataclass(frozen=True, slots=True)
class Styled:
    """A piece of text and what it means; the colour is the terminal's business, and the words must do without it."""

    text: str
    style: Style | None = None


Cell = str | Styled


def plain(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def style_of(cell: Cell) -> Style | None:
    return None if isinstance(cell, str) else cell.style


def printable(text: str, *, keep: str = "\t\n") -> str:
    """`text` without control characters (but `keep`): what a host or a log says must not be able to steer the terminal."""
    if text.isprintable():
        return text
    return "".join(char for char in text if char in keep or unicodedata.category(char) not in {"Cc", "Cf", "Cs"})


def duration(seconds: float) -> str:
    """0.42 s, 12.3 s, 4m 05s, 3h 12m, 5d 04h: two figures are enough for people."""
    if seconds < 0:
        return "0.00 s"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def size(count: int) -> str:
    """18.0 MB: decimal units, as disks and networks have them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def rate(per_second: float) -> str:
    """1.2 MB/s; below one a second it is not nothing."""
    return f"{size(round(per_second))}/s" if per_second >= 1 or not per_second else "<1 B/s"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """a, b and c; past `most` names: a, b, c, d, e and 12 more."""
    if not names:
        return "none"
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def bar(began: float, length: float, total: float, width: int) -> str:
    """Where [began, began + length] lies in [0, total], drawn `width` characters wide. Anything that took time shows at least one mark."""
    if total <= 0 or width <= 0:
        return ""
    first = min(int(began / total * width), width - 1)
    marks = max(1, round(length / total * width))
    marks = min(marks, width - first)
    return " " * first + "━" * marks + " " * (width - first - marks)
