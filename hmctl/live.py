"""Who is busy with what, shown while it goes on: rows that move on a terminal, plain lines or sums elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from hmctl.progress import Board
from hmctl.text import Cell, Style, Styled, duration, plain, printable, style_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hmctl.progress import Outcome

SUM_EVERY = 2.0  # seconds
WORTH_SAYING = 0.1  # seconds: how long a step took is noise below that
_RICH: Mapping[Style, str] = {"good": "green", "warning": "yellow", "bad": "red", "dim": "dim", "strong": "bold", "accent": "cyan"}


class Shown(Protocol):
    """Where progress is shown (hmctl.output.Output). What `start_live` is given draws the rows, for so many columns and lines."""

    def note(self, *cells: Cell) -> None: ...
    def start_live(self, draw: Callable[[int, int], Text]) -> None: ...
    def stop_live(self) -> None: ...


class Progress:
    """Handed out by Output.progress(). Keys are host names, or whatever is worked on; each has one line."""

    def __init__(self, output: Shown, clock: Callable[[], float], *, show: Literal["live", "lines", "sums"] | None) -> None:
        self._output = output
        self._clock = clock
        self._show = show
        self._lock = threading.Lock()  # rich draws from a thread of its own
        self._board = Board()
        self._summed = clock() if show == "sums" else 0.0
        self._sum = ""

    def phase(self, title: str) -> None:
        """A headline: all that follows belongs to it."""
        if self._show:
            self._output.note(Styled(title, "strong"))

    def update(self, key: str, text: str, *, detail: str = "") -> None:
        """`key` is busy with `text`. `detail` (12.1 of 18.0 MB) may change often: only a terminal shows it."""
        with self._lock:
            known = self._board.rows.get(key)
            news = known is None or known.text != text or known.ended is not None
            self._board = self._board.update(key, printable(text), printable(detail, keep=""), self._clock())
        if news and self._show == "lines":
            self._output.note(f"{key}: {text}")
        if self._show == "sums" and self._clock() - self._summed >= SUM_EVERY:
            self.sum_up()

    def finish(self, key: str, text: str, *, outcome: Outcome = "ok") -> None:
        """`key` is done, for now or for good."""
        with self._lock:
            self._board = self._board.finish(key, printable(text), outcome, self._clock())
            row = self._board.rows[key]
        if self._show == "lines" or (self._show == "sums" and outcome in ("failed", "warning")):
            took = (row.ended or row.began) - row.began
            elapsed = f" ({duration(took)})" if took >= WORTH_SAYING else ""
            said = text if outcome == "ok" else f"{outcome}: {text}"
            self._output.note(f"{key}: {said}{elapsed}")

    def sum_up(self) -> None:
        """How far all are, if that is news."""
        with self._lock:
            said = self._board.sums()
        self._summed = self._clock()
        if said and said != self._sum:
            self._sum = said
            self._output.note(said)

    def __enter__(self) -> Progress:
        self._output.start_live(self._draw)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._output.stop_live()

    def _draw(self, width: int, height: int) -> Text:
        """One line a row. When the terminal is narrow, what is being done is cut short, never who does it nor for how long."""
        from rich.text import Text

        with self._lock:
            board = self._board
        rows = board.picture(self._clock(), height)
        names = max((len(plain(key)) for _, key, *_ in rows), default=0)
        lefts = [
            rich_line((mark, "  ", key, " " * (names - len(plain(key))), "  ", text, "  ", detail)) for mark, key, text, detail, _ in rows
        ]
        times = max((len(plain(elapsed)) for *_, elapsed in rows), default=0)
        column = min(max((left.cell_len for left in lefts), default=0), width - times - 3)
        lines = []
        for left, (*_, elapsed) in zip(lefts, rows, strict=True):
            left.truncate(max(1, column), overflow="ellipsis", pad=True)
            lines.append(Text.assemble(left, " " * (2 + times - len(plain(elapsed))), rich_text(elapsed)))
        return Text("\n", no_wrap=True, overflow="crop").join(lines)


def rich_text(cell: Cell) -> Text:
    """The cell as rich draws it, without what a terminal would obey."""
    from rich.text import Text

    style = style_of(cell)
    return Text(printable(plain(cell), keep="\n"), style=_RICH.get(style, "") if style else "")


def rich_line(cells: Sequence[Cell]) -> Text:
    """The cells beside each other."""
    from rich.text import Text

    return Text().join([rich_text(cell) for cell in cells])


def console(stream: TextIO, *, colour: bool, width: int | None) -> Console:
    from rich.console import Console

    return Console(
        file=stream,
        force_terminal=colour,
        no_color=not colour,
        color_system="auto" if colour else None,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
