"""What is going on, by host and step: pure state. hmctl/live.py shows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

from hmctl.text import Cell, Style, Styled, duration

Outcome = Literal["ok", "warning", "failed", "skipped"]

_MARK: dict[str, Styled] = {
    "ok": Styled("✓", "good"),
    "warning": Styled("!", "warning"),
    "failed": Styled("✗", "bad"),
    "skipped": Styled("-", "dim"),
}
_STYLE: dict[str, Style | None] = {"ok": None, "warning": "warning", "failed": "bad", "skipped": "dim"}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@dataclass(frozen=True, slots=True)
class Row:
    """One host (or other thing that is worked on). `step_began` is when its current step began, `began` when its first did."""

    key: str
    text: str
    detail: str
    began: float
    step_began: float
    ended: float | None = None
    outcome: Outcome = "ok"


@dataclass(frozen=True, slots=True)
class Board:
    """All rows, in the order in which they first appeared. Every change gives a new board."""

    title: str = ""
    rows: dict[str, Row] = field(default_factory=dict)

    def update(self, key: str, text: str, detail: str, now: float) -> Board:
        """`key` is now busy with `text`. The same text again keeps the step's start; `detail` may change as often as it likes."""
        known = self.rows.get(key)
        if known is None:
            row = Row(key, text, detail, now, now)
        else:
            step_began = known.step_began if known.text == text and known.ended is None else now
            row = replace(known, text=text, detail=detail, step_began=step_began, ended=None, outcome="ok")
        return replace(self, rows={**self.rows, key: row})

    def finish(self, key: str, text: str, outcome: Outcome, now: float) -> Board:
        known = self.rows.get(key) or Row(key, text, "", now, now)
        return replace(self, rows={**self.rows, key: replace(known, text=text, detail="", ended=now, outcome=outcome)})

    def sums(self) -> str:
        """How many rows are at what: `12 uploading the release, 88 done, 3 failed`."""
        busy = Counter(row.text for row in self.rows.values() if row.ended is None)
        ended = Counter("failed" if row.outcome == "failed" else "done" for row in self.rows.values() if row.ended is not None)
        return ", ".join(f"{count} {what}" for what, count in [*busy.items(), *sorted(ended.items())])

    def picture(self, now: float, height: int) -> list[tuple[Cell, ...]]:
        """Cells (mark, key, text, detail, elapsed), at most `height` lines. When there are more rows, those that need eyes
        (failed, then busy) come first and the others are counted."""
        rows = list(self.rows.values())
        hidden: list[Row] = []
        if len(rows) > height:
            urgency = sorted(rows, key=lambda row: (row.outcome != "failed", row.ended is not None))
            shown = {row.key for row in urgency[: max(1, height - 1)]}
            hidden = [row for row in rows if row.key not in shown]
            rows = [row for row in rows if row.key in shown]
        lines: list[tuple[Cell, ...]] = [_line(row, now) for row in rows]
        if hidden:
            done = sum(row.ended is not None for row in hidden)
            waiting = len(hidden) - done
            lines.append((" ", "", Styled(f"and {done} done" + (f", {waiting} busy" if waiting else ""), "dim"), "", ""))
        return lines


def _line(row: Row, now: float) -> tuple[Cell, ...]:
    if row.ended is None:
        spin = _SPINNER[int(now * 10) % len(_SPINNER)]
        return (
            Styled(spin, "accent"),
            Styled(row.key, "strong"),
            row.text,
            Styled(row.detail, "dim"),
            Styled(duration(now - row.step_began), "dim"),
        )
    elapsed = Styled(duration(row.ended - row.began), "dim")
    return _MARK[row.outcome], Styled(row.key, "strong"), Styled(row.text, _STYLE[row.outcome]), "", elapsed
