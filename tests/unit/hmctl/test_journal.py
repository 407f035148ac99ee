"""Journals of several hosts as one: what a line says, the order of lines, and bounded memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.config.inventory import Host, SshTarget
from hmcore.errors import HyperMeshError, Unreachable
from hmcore.records import Role
from hmctl.actions.journal import Entry, Lines, Request, Window, command, follow, history, parse
from hmctl.remote.base import Completed

DEADLINE = 10.0


def entry(time: int, node: str = "node1", message: str = "m") -> Entry:
    return Entry(time, node, 6, message, f"c{time}")


def journal_line(time: int, message: object = "m", **more: object) -> bytes:
    return json.dumps({"__REALTIME_TIMESTAMP": str(time), "__CURSOR": f"c{time}", "MESSAGE": message, **more}).encode() + b"\n"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("started", "started"),
        ([104, 105, 255], "hi�"),
        (["one", "two"], "one two"),
        ([["x"]], "x"),
        ([], ""),
        (None, ""),
        (7, ""),
    ],
)
def test_a_message_is_text_bytes_or_several(message: object, said: str) -> None:
    found = parse("node1", journal_line(5, message, PRIORITY="3"))
    assert found == Entry(5, "node1", 3, said, "c5")


@pytest.mark.parametrize(
    "line", [b"", b"-- Boot --", b"[1]", b"{}", b'{"__REALTIME_TIMESTAMP": "x", "__CURSOR": "c"}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_entry_is_left_out(line: bytes) -> None:
    assert parse("node1", line) is None


@given(st.binary())
def test_parse_is_total(line: bytes) -> None:
    parse("node1", line)


@pytest.mark.long
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_any_message_becomes_text(message: object) -> None:
    found = parse("node1", journal_line(1, message))
    assert found is not None
    assert isinstance(found.message, str)


def test_the_command_asks_journalctl_for_what_was_wanted() -> None:
    plain = command(since=None, tail=100)
    assert plain[:3] == ["journalctl", "-u", "hypermesh-agent.service"]
    assert plain[-1] == "--lines=100"
    assert command(since=1_700_000_000.5, tail=None)[-2:] == ["--since=@1700000000.500000", "--lines=all"]
    assert "--reverse" not in plain, "long tails are streamed"


@given(st.lists(st.binary(max_size=20).map(lambda part: part.replace(b"\n", b"")), max_size=20), st.data())
def test_lines_are_the_same_however_the_bytes_arrive(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(part + b"\n" for part in parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    lines = Lines()
    found = [line for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) for line in lines.feed(text[start:end])]
    assert found == parts


def test_a_line_without_end_is_dropped_and_not_kept() -> None:
    lines = Lines(longest=10)
    assert lines.feed(b"short\n" + b"x" * 8) == [b"short"]
    assert lines.feed(b"y" * 8) == []
    assert lines.feed(b"z" * 100) == []
    assert len(lines._rest) <= 10
    assert lines.feed(b"end of the long one\nnext\n") == [b"next"]
    assert lines.feed(b"x" * 11 + b"\nlast\n") == [b"last"]


def test_entries_wait_for_older_ones_of_other_hosts() -> None:
    window = Window(hold=0.3)
    window.add(entry(20, "node1"), 0.0)
    window.add(entry(10, "node2"), 0.2)
    assert window.take(0.29) == []
    assert window.wait(0.29) == pytest.approx(0.01)
    assert window.take(0.3) == [entry(10, "node2"), entry(20, "node1")]
    window.add(entry(15, "node2"), 0.31)  # too late to be in order: shown at once, not held
    assert window.take(0.31) == [entry(15, "node2")]


def test_a_flood_is_shown_rather_than_kept() -> None:
    window = Window(hold=100.0, most=5)
    shown = []
    for time in range(50):
        window.add(entry(time), 0.0)
        shown += window.take(0.0)
    assert [item.time for item in shown] == list(range(45))


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 100)), max_size=60))
def test_a_window_loses_and_invents_nothing(arrivals: list[tuple[int, int]]) -> None:
    window, now, shown = Window(hold=0.3), 0.0, []
    for number, (time, step) in enumerate(arrivals):
        now += step / 100
        window.add(Entry(time, "node1", 6, "", str(number)), now)
        shown += window.take(now)
    shown += window.take(now + 1)
    assert sorted(item.cursor for item in shown) == sorted(map(str, range(len(arrivals))))
    assert window.wait(now + 1) is None


@dataclass
class Pipe:
    """A journalctl that we feed."""

    lines: list[bytes]
    ended: Completed
    endless: bool = False
    killed: bool = False
    stdin: object = None
    reads: int = 0

    @property
    def stdout(self) -> Pipe:
        return self

    async def read(self, n: int = -1) -> bytes:
        self.reads += 1
        if self.lines:
            return self.lines.pop(0)
        if self.endless:
            await asyncio.Event().wait()
        return b""

    async def wait(self, *, timeout: float) -> Completed:
        return self.ended

    def kill(self) -> None:
        self.killed = True


@dataclass
class Journals:
    """Stands for the SSH connector: per host the processes that its next calls give, or the error."""

    plays: dict[str, list[Pipe | HyperMeshError]]
    argvs: list[tuple[str, list[str]]] = field(default_factory=list)

    async def connect(self, host: Host) -> Journals.Remote:
        if not self.plays[host.name]:
            await asyncio.Event().wait()
        play = self.plays[host.name].pop(0)
        if isinstance(play, HyperMeshError):
            raise play
        return Journals.Remote(self, host, play)

    @dataclass
    class Remote:
        journals: Journals
        host: Host
        pipe: Pipe

        async def open_process(self, argv: Sequence[str], *, sudo: bool = False, timeout: float) -> Pipe:
            assert sudo
            self.journals.argvs.append((self.host.name, list(argv)))
            return self.pipe


def hosts(*names: str) -> list[Host]:
    return [Host(name, SshTarget("127.0.0.1"), "127.0.0.1", 7443, Role.CONTROL) for name in names]


def pipe(*times: int, status: int = 0, stderr: str = "", endless: bool = False) -> Pipe:
    return Pipe([journal_line(time) for time in times], Completed(status, b"", stderr), endless)


async def read(journals: Journals, *names: str) -> tuple[list[tuple[int, str]], list[HyperMeshError]]:
    shown: list[tuple[int, str]] = []
    lost: list[HyperMeshError] = []
    request = Request(since=None, tail=100)
    await history(hosts(*names), journals, request, lambda item: shown.append((item.time, item.node)), lost.append)  # type: ignore[arg-type]
    return shown, lost


async def test_histories_are_merged_by_time() -> None:
    pipes = {"node1": pipe(1, 4, 6), "node2": pipe(2, 3, 7), "node3": pipe()}
    shown, lost = await read(Journals({name: [item] for name, item in pipes.items()}), *pipes)
    assert shown == [(1, "node1"), (2, "node2"), (3, "node2"), (4, "node1"), (6, "node1"), (7, "node2")]
    assert lost == []
    assert all(item.killed for item in pipes.values())


@dataclass
class Journalctl:
    """As the real one: with --since its --lines are the first, unless it goes backwards."""

    times: Sequence[int]

    async def connect(self, host: Host) -> Journalctl:
        return self

    async def open_process(self, argv: Sequence[str], *, sudo: bool = False, timeout: float) -> Pipe:
        since = next((float(word.partition("@")[2]) for word in argv if word.startswith("--since=@")), None)
        count = next(word.partition("=")[2] for word in argv if word.startswith("--lines="))
        times = [time for time in self.times if since is None or time / 1e6 >= since]
        if "--reverse" in argv:
            times.reverse()
        if count != "all":
            times = times[: int(count)] if since is not None or "--reverse" in argv else times[len(times) - int(count) :]
        return pipe(*times)


@pytest.mark.parametrize("in_turns", [False, True])
@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (Request(2.0, 2), [4, 5]),
        (Request(5.0, 2), [5]),
        (Request(2.0, 0), []),
        (Request(None, 2), [4, 5]),
        (Request(2.0, None), [2, 3, 4, 5]),
    ],
)
async def test_a_tail_is_the_latest_lines_also_with_since(request_: Request, shown: list[int], in_turns: bool) -> None:
    found: list[int] = []
    journal = Journalctl([second * 1_000_000 for second in range(1, 6)])
    await history(hosts("node1"), journal, request_, lambda item: found.append(item.time // 1_000_000), print, in_turns=in_turns)  # type: ignore[arg-type]
    assert found == shown


async def test_lines_of_one_moment_keep_their_order_when_read_backwards() -> None:
    lines = [journal_line(1, message) for message in ("z", "a", "m")]
    found: list[str] = []
    journals = Journals({"node1": [Pipe(lines[::-1], Completed(0, b"", ""))]})
    await history(hosts("node1"), journals, Request(0.0, 3), lambda item: found.append(item.message), print)  # type: ignore[arg-type]
    assert found == ["z", "a", "m"]


async def test_a_host_is_read_only_as_fast_as_it_is_shown() -> None:
    slow, fast = pipe(1), pipe(*range(10, 1000))
    reads: list[int] = []
    await history(
        hosts("slow", "fast"), Journals({"slow": [slow], "fast": [fast]}), Request(None, None), lambda item: reads.append(fast.reads), print
    )  # type: ignore[arg-type]
    assert reads[:4] == [1, 1, 2, 3]  # one chunk at a time: what nobody asks for stays on the host


async def test_a_lost_host_is_told_and_the_others_are_shown() -> None:
    shown, lost = await read(
        Journals({"node1": [Unreachable("no route", host="node1")], "node2": [pipe(1)], "node3": [pipe(status=1, stderr="no journal\n")]}),
        "node1",
        "node2",
        "node3",
    )
    assert shown == [(1, "node2")]
    assert sorted(map(str, lost)) == ["node1: no route", "node3: `journalctl` ended with 1: no journal"]


async def test_following_goes_on_after_the_history_and_across_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmctl.actions.journal.RETRY", 0.0)
    journals = Journals({"node1": [pipe(11, 12), pipe(13, endless=True)], "node2": [pipe(endless=True)]})
    shown: list[int] = []
    lost: list[HyperMeshError] = []
    complete = asyncio.Event()

    def show(item: Entry) -> None:
        shown.append(item.time)
        if len(shown) == 3:
            complete.set()

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        following = group.create_task(follow(hosts("node1", "node2"), journals, {"node1": "c10"}, show, lost.append))  # type: ignore[arg-type]
        await complete.wait()
        following.cancel()
    assert shown == [11, 12, 13]
    assert [error.host for error in lost] == ["node1"]
    calls = {name: [argv for host, argv in journals.argvs if host == name] for name in ("node1", "node2")}
    assert "--after-cursor=c10" in calls["node1"][0]
    assert "--after-cursor=c12" in calls["node1"][1]
    assert "--since=-5s" in calls["node2"][0]
