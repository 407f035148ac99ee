"""Everything that hmctl shows. Results go to stdout; progress, notes, warnings and errors to stderr.

With hmctl/live.py the only home of rich beside hmctl/cli, and it is imported only when a table or live progress is drawn. Colour and moving
pictures are for terminals: elsewhere (a pipe, NO_COLOR, TERM=dumb) the same words come as plain lines.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from typing import TYPE_CHECKING, TextIO

from hmcore.errors import Interrupted, UsageError
from hmctl.columns import Column, affordable, fits, left_out, paint, simple_table, stacked_table
from hmctl.document import Format, dump
from hmctl.failure import explain
from hmctl.text import Cell, Styled, plain, printable, style_of

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from hmctl.live import Progress
FEW = 20  # hosts, up to which a log gets each step of each
_STOPPED = "stopped as you asked; nothing was changed"
_ROOM = 20  # columns: with fewer of them, a text is not continued under its own beginning,
_HANGING = 4  # but this far from the left
_UNBOUNDED = 100_000  # columns of a table that no terminal shows: never wrapped, never cut


class Output:
    """Where a command's words go. One per run; commands get it in their context."""

    def __init__(
        self,
        *,
        format: Format = Format.TABLE,
        quiet: bool = False,
        verbose: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        stdin: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        environ = os.environ if environ is None else environ
        self.format = format
        self.quiet = quiet
        self.verbose = verbose
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._stdin = stdin or sys.stdin
        self._clock = clock
        fancy = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self.terminal = self._stdout.isatty()
        self._stdout_colour = fancy and self.terminal
        self._stderr_colour = fancy and self._stderr.isatty()
        self._live: Live | None = None

    # Results

    def result(self, document: object, human: Callable[[], None]) -> None:
        """The command's answer: `document` (anything msgspec can turn into JSON types) for machines, `human()` writes the other one."""
        if self.format is Format.TABLE:
            human()
        else:
            self._stdout.write(dump(document, self.format))
            self._stdout.flush()

    def item(self, document: object, *human: Cell) -> None:
        """One of a stream of answers that may never end: a line for people, a line of JSON, or one item of a YAML list."""
        match self.format:
            case Format.TABLE:
                self.line(*human)
            case Format.JSON:
                self._stdout.write(dump(document, Format.JSON, indent=None))
                self._stdout.flush()
            case Format.YAML:
                self._stdout.write(dump([document], Format.YAML))
                self._stdout.flush()

    def line(self, *cells: Cell) -> None:
        """One line of the human result; the cells are joined as they are."""
        self._stdout.write(paint(cells, self._stdout_colour) + "\n")
        self._stdout.flush()

    def raw(self, data: bytes) -> None:
        """Bytes of the human result, as they are."""
        self._stdout.flush()
        self._stdout.buffer.write(data)
        self._stdout.flush()

    def paragraph(self, *head: Cell, text: Cell) -> None:
        """`head`, then `text`; where a terminal is too narrow for it, broken at spaces and continued under its own beginning."""
        if not self.terminal:
            self.line(*head, text)
            return
        import textwrap

        indent = sum(len(plain(cell)) for cell in head)
        hanging = indent if self.width - indent >= _ROOM else min(indent, _HANGING)
        wrapper = textwrap.TextWrapper(self.width, " " * indent, " " * hanging, break_long_words=False, break_on_hyphens=False)
        for number, part in enumerate(wrapper.wrap(printable(plain(text))) or [" " * indent]):
            self.line(*(head if number == 0 else (" " * hanging,)), Styled(part[indent if number == 0 else hanging :], style_of(text)))

    def table(self, columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], *, indent: int = 0) -> None:
        """A table of the human result. On a terminal it fits the width, and says what it had no room for; elsewhere every row is one line
        with all, for grep and awk."""
        for line in self.table_lines(columns, rows, indent=indent):
            self._stdout.write(line + "\n")
        self._stdout.flush()
        if missing := left_out(columns, affordable(columns, rows, self.width - indent)[0]):
            self.paragraph(" " * indent, text=Styled(f"no room for {', '.join(missing)}", "dim"))

    def table_lines(self, columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], *, indent: int = 0) -> list[str]:
        width = self.width
        columns, rows = affordable(columns, rows, width - indent)
        if not fits(columns, rows, width - indent):
            return stacked_table(columns, rows, indent, width, self._stdout_colour)
        lines = simple_table(columns, rows, indent, width, self._stdout_colour)
        return self._fitted_table(columns, rows, indent) if lines is None else lines

    @property
    def width(self) -> int:
        """Columns that a result has."""
        return shutil.get_terminal_size().columns if self.terminal else _UNBOUNDED

    def _fitted_table(self, columns: Sequence[Column | str], rows: Sequence[Sequence[Cell]], indent: int) -> list[str]:
        from rich.padding import Padding
        from rich.table import Table

        from hmctl.live import console, rich_text

        drawn_on = console(self._stdout, colour=self._stdout_colour, width=None if self.terminal else _UNBOUNDED)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
        for column in (Column(item) if isinstance(item, str) else item for item in columns):
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                no_wrap=not column.wraps,
                overflow="fold" if column.wraps else "ellipsis",
            )
        for row in rows:
            table.add_row(*map(rich_text, row))
        with drawn_on.capture() as captured:
            drawn_on.print(Padding(table, (0, 0, 0, indent), expand=False))
        return [line.rstrip() for line in captured.get().splitlines()]

    @contextmanager
    def frame(self) -> Iterator[None]:
        """One picture of a moving result: on a terminal it is drawn over the one before, elsewhere below it."""
        if not self.terminal or self.format is not Format.TABLE:
            yield
            return
        screen, self._stdout = self._stdout, StringIO()
        try:
            yield
            lines = self._stdout.getvalue().splitlines()
        finally:
            self._stdout = screen
        from hmctl.frame import over_the_last

        size = shutil.get_terminal_size()
        screen.write(over_the_last(lines, size.columns, max(1, size.lines - 1), self._stdout_colour))
        screen.flush()

    # What goes on

    def note(self, *cells: Cell) -> None:
        """Something worth knowing on the way; silent with --quiet."""
        if not self.quiet:
            self._say(cells)

    def detail(self, *cells: Cell) -> None:
        """Only with --verbose."""
        if self.verbose:
            self._say(cells)

    def warn(self, text: str, *, fix: str | None = None) -> None:
        self._say((Styled("warning: ", "warning"), text))
        if fix:
            self._say((Styled("  fix: ", "accent"), fix))

    def error(self, error: BaseException) -> None:
        """What failed, where, why, and the line that mends it. An operator's no is no failure."""
        if isinstance(error, Interrupted):
            self.note(error.message)
            return
        for line in explain(error):
            head, _, rest = line.partition(": ")
            if head in ("  why", "  fix"):
                self._say((Styled(f"{head}: ", "accent" if head == "  fix" else "dim"), rest))
            elif line.startswith("  "):
                self._say((line,))
            else:
                self._say((Styled("error: ", "bad"), line))

    def confirm(self, question: str, *, yes: bool, fix: str = "give --yes to go ahead without being asked") -> None:
        """Goes on only with consent. Raises Interrupted when the answer is no, UsageError, with `fix`, where nobody can answer."""
        if yes:
            return
        if not self._stdin.isatty():
            raise UsageError(f"nobody can answer, for stdin is no terminal: {question}", fix=fix)
        self._stderr.write(paint((Styled(f"{question} [y/N] ", "strong"),), self._stderr_colour))
        self._stderr.flush()
        with _interruptible():
            answer = self._stdin.readline()
        if answer.strip().lower() not in ("y", "yes"):
            raise Interrupted(_STOPPED)

    @contextmanager
    def progress(self, title: str = "", *, hosts: int = 0) -> Iterator[Progress]:
        """Shows who is busy with what until the block ends. On a terminal one line per host; elsewhere a line per step, or, of many
        `hosts`, only what went wrong and every few seconds how far all are."""
        from hmctl.live import Progress

        if not self.quiet and not self._stderr_colour and hosts > FEW and not self.verbose:
            progress = Progress(self, self._clock, show="sums")
            yield progress
            progress.sum_up()
        elif self.quiet:
            yield Progress(self, self._clock, show=None)
        elif not self._stderr_colour:
            if title:
                self._say((title,))
            yield Progress(self, self._clock, show="lines")
        else:
            if title:
                self._say((Styled(title, "strong"),))
            progress = Progress(self, self._clock, show="live")
            with progress:
                yield progress

    def _say(self, cells: Sequence[Cell]) -> None:
        if self._live is not None:  # above the moving part, which is drawn again below it
            from hmctl.live import rich_line

            with suppress(OSError):
                self._live.console.print(rich_line(cells), soft_wrap=True, highlight=False)
        else:
            # A pipe that nobody reads any more, a terminal that was closed: what is under way has to come to its end all the same.
            with suppress(OSError):
                self._stderr.write(paint(cells, self._stderr_colour) + "\n")
                self._stderr.flush()

    def start_live(self, draw: Callable[[int, int], Text]) -> None:
        from rich.live import Live

        from hmctl.live import console

        drawn_on = console(self._stderr, colour=True, width=None)
        live = Live(
            console=drawn_on,
            get_renderable=lambda: draw(drawn_on.width, max(3, drawn_on.height - 3)),
            refresh_per_second=10,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        live.start()
        self._live = live

    def stop_live(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            with suppress(OSError):  # the terminal was closed
                live.stop()


@contextmanager
def _interruptible() -> Iterator[None]:
    """The event loop takes signals for itself, and stands still while somebody thinks about an answer: one Ctrl-C has to do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        raise Interrupted(_STOPPED)

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    kept = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
