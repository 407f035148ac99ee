"""Dialogues with a node about the replicas that run on it: their logs, and commands run in them. See hmcore/stoq/dialogue.py."""

from __future__ import annotations

import msgspec

from hmcore.stoq.dialogue import Dialogue
from hmcore.stoq.frames import Fault

PIECE = 64 * 1024  # bytes: no line, and no piece of input or output, is longer; what is longer comes in several
STDIN_WINDOW = 256 * 1024  # bytes of input that may be under way and not yet taken by the program
MOST_WORDS = 4096  # of a command
MOST_COMMAND = 128 * 1024  # bytes of a command


class LogPosition(msgspec.Struct, frozen=True, array_like=True):
    """How far a container's log has been read: up to the lines of `time` (nanoseconds since 1970), `count` of which are known."""

    time: int
    count: int


def behind(position: LogPosition | None, time: int) -> LogPosition:
    """Once a line of `time` is known, too. Lines of stdout and stderr may be a little out of order."""
    if position is None or time > position.time:
        return LogPosition(time, 1)
    return LogPosition(position.time, position.count + (time == position.time))


class LogsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Of the node's containers of `app`, and of `service` only unless it is empty, also of those that ended.

    `since`: seconds since 1970. `tail`: the latest lines of each container, -1: all. Of a container that is in `positions` (by its id)
    all lines behind that. `follow`: go on, with containers that come, too; of those, everything. `gone`: also what was written last by
    containers that were removed a while ago.
    """

    app: str
    service: str = ""
    follow: bool = False
    since: float = 0.0
    tail: int = -1
    positions: dict[str, LogPosition] = {}
    gone: bool = False


class LogSource(msgspec.Struct, frozen=True, array_like=True, tag="source"):
    """A container whose lines follow under `number`. `allocation` is empty for one that was started by hand."""

    number: int
    container: str
    name: str
    service: str
    allocation: str


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """`time`: nanoseconds since 1970. `text`: without its end, as the program wrote it."""

    source: int
    time: int
    error: bool  # it was written to stderr
    text: bytes


class LogLines(msgspec.Struct, frozen=True, array_like=True, tag="lines"):
    lines: list[LogLine]


class LogPresent(msgspec.Struct, frozen=True, array_like=True, tag="present"):
    """What there was has been told, by time; without `follow` that is all. From here on lines come as they are written. `positions`: how
    far that is, by container, of those that have one."""

    positions: dict[str, LogPosition] = {}


class LogTrouble(msgspec.Struct, frozen=True, array_like=True, tag="trouble"):
    """Lines of this container cannot be read; the others' go on."""

    number: int
    reason: str


LogsSaid = LogSource | LogLines | LogPresent | LogTrouble

LOGS: Dialogue[LogsRequest, None, LogsSaid] = Dialogue(
    "apps.logs",
    msgspec.msgpack.Decoder(LogsRequest),
    msgspec.msgpack.Decoder(None),  # who reads says nothing more
    msgspec.msgpack.Decoder(Fault | LogsSaid),
)


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Run `command` in the container of an allocation. `tty`: on a terminal of `rows` and `columns`, whose kind is `term`; its output is
    one stream then. `stdin`: input follows. `user`: as in Docker; empty: the container's."""

    allocation: str
    command: list[str]
    tty: bool = False
    stdin: bool = False
    rows: int = 0
    columns: int = 0
    term: str = ""
    user: str = ""


class Input(msgspec.Struct, frozen=True, array_like=True, tag="input"):
    """Never more than STDIN_WINDOW beyond what was Taken."""

    data: bytes


class InputEnd(msgspec.Struct, frozen=True, array_like=True, tag="input-end"):
    pass


class Resize(msgspec.Struct, frozen=True, array_like=True, tag="resize"):
    rows: int
    columns: int


class Signal(msgspec.Struct, frozen=True, array_like=True, tag="signal"):
    """For a command without a terminal, where Ctrl-C is not a character. One of SIGNALS."""

    name: str


SIGNALS = ("INT", "TERM", "HUP", "QUIT")

ExecUp = Input | InputEnd | Resize | Signal


class Began(msgspec.Struct, frozen=True, array_like=True, tag="began"):
    container: str  # its name


class Taken(msgspec.Struct, frozen=True, array_like=True, tag="taken"):
    """The program has taken so many more bytes of its input, or never will."""

    size: int


class Output(msgspec.Struct, frozen=True, array_like=True, tag="output"):
    data: bytes
    error: bool = False  # it was written to stderr


class Exited(msgspec.Struct, frozen=True, array_like=True, tag="exited"):
    """The last word."""

    status: int


ExecSaid = Began | Taken | Output | Exited

EXEC: Dialogue[ExecRequest, ExecUp, ExecSaid] = Dialogue(
    "apps.exec",
    msgspec.msgpack.Decoder(ExecRequest),
    msgspec.msgpack.Decoder(ExecUp),
    msgspec.msgpack.Decoder(Fault | ExecSaid),
)
