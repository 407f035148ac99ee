"""What reaches stdout and stderr, on a terminal and elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hmcore.errors import Interrupted, Unreachable, UsageError
from hmctl.columns import Column
from hmctl.document import Format, dump
from hmctl.output import Output
from hmctl.progress import Board
from hmctl.text import Styled, plain


class Screen(StringIO):
    """A stream that says that it is a terminal, when it shall."""

    def __init__(self, text: str = "", *, terminal: bool) -> None:
        super().__init__(text)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@dataclass
class Made:
    output: Output
    out: Screen
    err: Screen


def make(
    *,
    terminal: bool = False,
    environ: dict[str, str] | None = None,
    typed: str | None = None,
    format: Format = Format.TABLE,
    quiet: bool = False,
    clock: Callable[[], float] = lambda: 0.0,
) -> Made:
    out, err = Screen(terminal=terminal), Screen(terminal=terminal)
    stdin = Screen(typed or "", terminal=typed is not None)
    return Made(Output(format=format, quiet=quiet, stdout=out, stderr=err, stdin=stdin, environ=environ or {}, clock=clock), out, err)


class Colour(StrEnum):
    RED = "red"


class Thing(msgspec.Struct):
    name: str
    colour: Colour
    size: int | None = None


def test_json_and_yaml_are_the_same_document_on_stdout_and_nothing_else() -> None:
    thing = Thing("a", Colour.RED)
    for format, parse in ((Format.JSON, json.loads), (Format.YAML, yaml.safe_load)):
        made = make(format=format)
        made.output.result(thing, lambda: pytest.fail("the human view was drawn"))
        assert parse(made.out.getvalue()) == {"name": "a", "colour": "red", "size": None}
        assert made.err.getvalue() == ""


@pytest.mark.long
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_any_document_survives_yaml(document: object) -> None:
    assert yaml.safe_load(dump(document, Format.YAML)) == document


@pytest.mark.parametrize("text", ["1234e567", "12e45", "0o17", "0x1f", "1.", ".5", "-3", "on", "22:22", "null", "~", "", "2026-11-22"])
def test_strings_that_look_like_something_else_are_quoted_in_yaml(text: str) -> None:
    """YAML 1.1 and 1.2 readers alike must find a string: a release's digest may well be 1234e567."""
    written = dump({"digest": text}, Format.YAML).removeprefix("digest: ").strip()
    assert written[0] in "'\"", written


def test_a_table_in_a_pipe_is_one_uncut_line_a_row_without_colour() -> None:
    made = make()
    made.output.table(["NODE", Column("UPTIME", right=True)], [[Styled("n" * 300, "good"), "3 s"], ["b", "12 s"]])
    lines = made.out.getvalue().splitlines()
    assert lines[1] == "n" * 300 + "     3 s"
    assert len(lines) == 3
    assert "\x1b" not in made.out.getvalue()
    assert all(line == line.rstrip() for line in lines)


def test_a_table_on_a_terminal_fits_it_and_has_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    made = make(terminal=True, environ={"TERM": "xterm"})
    made.output.table(["NODE", Column("NOTE", wraps=True)], [[Styled("node1", "good"), "words " * 20]])
    text = made.out.getvalue()
    assert "\x1b[32mnode1" in text
    assert len(text.splitlines()) > 3


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_and_no_motion_when_unwanted(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's own switch; ours decides
    made = make(terminal=True, environ=environ)
    made.output.line(Styled("good", "good"))
    made.output.table(["A"], [[Styled("b", "bad")]])
    made.output.error(Unreachable("silent", host="node1", fix="wait"))
    with made.output.progress("Deploying") as progress:
        progress.update("node1", "connect")
        progress.finish("node1", "done")
    assert "\x1b" not in made.out.getvalue() + made.err.getvalue()
    assert made.err.getvalue().splitlines() == [
        "error: node1: silent",
        "  fix: wait",
        "Deploying",
        "node1: connect",
        "node1: done",
    ]


def test_progress_in_a_pipe_says_each_step_once() -> None:
    now = iter([0.0, 1.0, 2.0, 3.0, 4.5, 5.0, 6.0])
    made = make(clock=lambda: next(now))
    with made.output.progress() as progress:
        progress.update("node1", "upload", detail="1 MB")
        progress.update("node1", "upload", detail="2 MB")
        progress.update("node2", "upload")
        progress.finish("node2", "no sudo", outcome="failed")
        progress.finish("node1", "healthy")
        progress.update("node1", "upload")
    assert made.err.getvalue().splitlines() == [
        "node1: upload",
        "node2: upload",
        "node2: failed: no sudo (1.00 s)",
        "node1: healthy (4.50 s)",
        "node1: upload",
    ]
    assert made.out.getvalue() == ""


def test_progress_on_a_terminal_is_redrawn_in_place_and_notes_stand_above() -> None:
    made = make(terminal=True, environ={"TERM": "xterm"})
    with made.output.progress("Deploying") as progress:
        progress.update("node1", "upload")
        made.output.note("beware")
        progress.finish("node1", "healthy")
    text = made.err.getvalue()
    assert "\x1b[?25l" in text  # the cursor is hidden while it moves
    assert text.rindex("\x1b[?25h") > text.rindex("healthy")  # and comes back at the end
    assert "beware" in text


def test_live_progress_in_a_narrow_terminal_cuts_what_is_done_and_keeps_who_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    made = make(terminal=True, environ={"TERM": "xterm"})
    with made.output.progress() as progress:
        progress.update("node1", "a long way of saying what is going on here")
        progress.finish("node1", "a long way of saying what was going on here", outcome="failed")
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", made.err.getvalue()).rstrip().splitlines()[-1].strip("\r")
    assert last.startswith("✗  node1  a long way")
    assert last.endswith("…  0.00 s")
    assert len(last) < 40


def test_the_cursor_comes_back_when_the_work_fails() -> None:
    made = make(terminal=True, environ={"TERM": "xterm"})

    def work() -> None:
        with made.output.progress() as progress:
            progress.update("node1", "connect")
            raise Unreachable("silent")

    with pytest.raises(Unreachable):
        work()
    assert made.err.getvalue().rindex("\x1b[?25h") > made.err.getvalue().rindex("\x1b[?25l")


def test_quiet_leaves_results_warnings_and_errors() -> None:
    made = make(quiet=True)
    made.output.note("a note")
    with made.output.progress("Deploying") as progress:
        progress.update("node1", "upload")
    made.output.line("a result")
    made.output.warn("an even number", fix="add one")
    assert made.out.getvalue() == "a result\n"
    assert made.err.getvalue() == "warning: an even number\n  fix: add one\n"


def test_confirm_never_guesses() -> None:
    made = make()
    with pytest.raises(UsageError) as refused:
        made.output.confirm("Remove everything from 3 hosts?", yes=False)
    assert "--yes" in (refused.value.fix or "")
    made.output.confirm("Remove everything from 3 hosts?", yes=True)
    assert made.err.getvalue() == ""


@pytest.mark.parametrize("typed", ["y\n", "YES\n", " yes \n"])
def test_consent(typed: str) -> None:
    made = make(typed=typed)
    made.output.confirm("Go on?", yes=False)
    assert made.err.getvalue() == "Go on? [y/N] "


@pytest.mark.parametrize("typed", ["\n", "n\n", "yep\n", ""])
def test_anything_else_is_a_no(typed: str) -> None:
    with pytest.raises(Interrupted):
        make(typed=typed).output.confirm("Go on?", yes=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_answers_a_question_though_the_event_loop_keeps_them_for_itself(number: signal.Signals) -> None:
    class Thinking(Screen):
        def readline(self, size: int | None = -1, /) -> str:
            signal.raise_signal(number)
            return "y\n"  # typed in ignorance

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        for kept in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(kept, lambda: None)
        made = make(typed="")
        made.output._stdin = Thinking(terminal=True)
        made.output.confirm("Go on?", yes=False)

    before = signal.getsignal(number)
    with asyncio.Runner() as runner, pytest.raises(Interrupted, match="nothing was changed"):
        runner.run(ask())
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("terminal", [False, True])
def test_words_that_nobody_can_read_any_more_stop_no_work(terminal: bool) -> None:
    made, gone = make(terminal=terminal), 0

    def write(text: str) -> int:
        nonlocal gone
        gone += 1
        raise BrokenPipeError if not terminal else OSError(5, "Input/output error")

    with made.output.progress() as progress:
        made.err.write = write  # type: ignore[method-assign, assignment]
        progress.update("node1", "restarting the agent")
        progress.finish("node1", "restarted")
        made.output.warn("one node is down")
    assert gone > 0


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    made = make(terminal=True, environ={"TERM": "xterm"})
    made.output.line("\x1b[2Jgone")
    made.output.table(["A"], [["\x1b[2Jgone [red]kept[/red]"]])
    assert "\x1b[2J" not in made.out.getvalue()
    assert "[red]kept[/red]" in made.out.getvalue()


def test_a_frame_is_drawn_over_the_last_on_a_terminal_and_below_it_elsewhere() -> None:
    made = make(terminal=True, environ={"NO_COLOR": "1"})
    with made.output.frame():
        made.output.line("one")
        assert made.out.getvalue() == ""  # at once, or it flickers
    assert made.out.getvalue() == "\x1b[Hone\x1b[K\n\x1b[J"
    piped = make()
    with piped.output.frame():
        piped.output.line("one")
    assert piped.out.getvalue() == "one\n"


def test_a_long_text_is_continued_under_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    made = make(terminal=True, environ={"NO_COLOR": "1"})
    made.output.paragraph("! quorum  ", text="two of three voters are connected, and no more")
    assert made.out.getvalue() == "! quorum  two of three voters are\n          connected, and no more\n"
    piped = make()
    piped.output.paragraph("! quorum  ", text="two of three voters are connected, and no more")
    assert piped.out.getvalue().count("\n") == 1


def test_where_too_little_room_is_left_under_its_beginning_a_text_is_continued_at_the_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "26")
    made = make(terminal=True, environ={"NO_COLOR": "1"})
    made.output.paragraph("! quorum  ", text="two of three voters are connected, and no more")
    assert made.out.getvalue() == "! quorum  two of three\n    voters are connected,\n    and no more\n"


def picture(board: Board, now: float, height: int) -> list[str]:
    return [" ".join(plain(cell) for cell in line).strip() for line in board.picture(now, height)]


def test_the_board_shows_each_host_with_its_step_and_how_long() -> None:
    board = (
        Board()
        .update("node1", "connect", "", 0.0)
        .update("node1", "upload", "1 of 18 MB", 2.0)
        .update("node1", "upload", "2 of 18 MB", 3.0)
    )
    assert picture(board, 4.0, 10) == ["⠋ node1 upload 2 of 18 MB 2.00 s"]
    assert picture(board.finish("node1", "healthy", "ok", 5.0), 9.0, 10) == ["✓ node1 healthy  5.00 s"]


def test_a_board_of_many_hosts_keeps_the_failed_and_the_busy_in_sight() -> None:
    board = Board()
    for number in range(100):
        board = board.update(f"node{number}", "upload", "", 0.0)
    for number in range(95):
        board = board.finish(f"node{number}", "done", "failed" if number == 50 else "ok", 1.0)
    lines = picture(board, 1.0, 8)
    assert len(lines) == 8
    assert "✗ node50 done  1.00 s" in lines
    assert [line.split()[1] for line in lines if "upload" in line] == [f"node{number}" for number in range(95, 100)]
    assert lines[-1] == "and 93 done"


def test_progress_of_many_hosts_in_a_pipe_says_what_went_wrong_and_how_far_all_are() -> None:
    now = [0.0]
    made = make(clock=lambda: now[0])
    with made.output.progress(hosts=100) as progress:
        for number in range(100):
            progress.update(f"node{number}", "connecting")
        now[0] = 2.5
        progress.update("node0", "uploading the release")
        progress.finish("node1", "no sudo", outcome="failed")
        for number in range(2, 100):
            progress.finish(f"node{number}", "installed")
        progress.finish("node0", "installed")
    assert made.err.getvalue().splitlines() == [
        "1 uploading the release, 99 connecting",
        "node1: failed: no sudo (2.50 s)",
        "99 done, 1 failed",
    ]


def test_a_simple_table_looks_as_one_that_had_to_be_fitted() -> None:
    made = make()
    columns: list[Column | str] = ["NODE", Column("HEALTH", right=True), Column("WHY", wraps=True)]
    rows = [["node1", Styled("100%", "good"), ""], ["a-longer-name", "7%", "it is slow"]]
    assert made.output.table_lines(columns, rows, indent=2) == made.output._fitted_table(columns, rows, 2)


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (200, ["INSTANCE", "ADDRESS", "WEIGHT", "PRIORITY", "WHY"]),
        (53, ["INSTANCE", "ADDRESS", "WEIGHT", "PRIORITY", "WHY"]),
        (52, ["INSTANCE", "ADDRESS", "PRIORITY", "WHY"]),
        (44, ["INSTANCE", "ADDRESS", "WHY"]),
        (34, ["INSTANCE", "WHY"]),
        (20, ["INSTANCE", "WHY"]),
    ],
)
def test_a_narrow_terminal_is_spared_columns(width: int, titles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = [
        "INSTANCE", Column("ADDRESS", spared=1), Column("WEIGHT", spared=3), Column("PRIORITY", spared=2), Column("WHY", wraps=True),
    ]  # fmt: skip
    row = ["node1/web", "10.0.0.1", "1", "0", "w" * 14]
    made = make(terminal=True, environ={"NO_COLOR": "1"})
    made.output.table(columns, [row])
    assert made.out.getvalue().splitlines()[0].split() == titles
    piped = make()
    piped.output.table(columns, [row])
    assert piped.out.getvalue().splitlines()[0].split() == ["INSTANCE", "ADDRESS", "WEIGHT", "PRIORITY", "WHY"]
