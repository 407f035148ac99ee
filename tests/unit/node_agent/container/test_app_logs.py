"""Logs of an app's containers on a node: merged, followed through ends and starts, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from app_streams import PATIENCE, Heard, node, until
from streaming_docker import BEGIN

from hmcore.apps.streams import LogPosition, LogsRequest
from hmcore.errors import InvalidRequest
from hmcore.stoq.window import WINDOW
from node_agent.container import lastwords, log_reading, logs


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reading, "RETRY", 0.01)


async def test_logs_of_all_containers_are_merged_by_time(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.docker.add("c1")
        here.docker.add("c2", allocation="shop/db.1.2", running=False, started=2.0)
        here.docker.add("c3", allocation="other/web.1.1")
        await here.docker.log("c1", (1, 1, b"a\n"), (4, 2, b"d\n"), (5, 1, b"e\n"))
        await here.docker.log("c2", (2, 1, b"b\n"), (3, 1, b"c\n"), (6, 1, b"f\n"))
        await here.docker.log("c3", (2, 1, b"not ours\n"))
        heard = Heard(await here.logs(LogsRequest(app="shop")))
        assert await heard.all() == ["c1: a", "c2: b", "c2: c", "c1! d", "c1: e", "c2: f", "--"]
        assert [(source.container, source.service, source.allocation) for source in heard.sources] == [
            ("c1", "shop/web", "shop/web.1.1"),
            ("c2", "shop/db", "shop/db.1.2"),
        ]
        assert await Heard(await here.logs(LogsRequest(app="shop", service="db"))).all() == ["c2: b", "c2: c", "c2: f", "--"]
        assert await Heard(await here.logs(LogsRequest(app="shop", tail=1))).all() == ["c1: e", "c2: f", "--"]
        assert await Heard(await here.logs(LogsRequest(app="shop", tail=0))).all() == ["--"]
        assert await Heard(await here.logs(LogsRequest(app="nothing"))).all() == ["--"]


async def test_since_and_positions_begin_in_the_middle(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.docker.add("c1")
        second = 1_000_000_000
        await here.docker.log("c1", (0, 1, b"a\n"), (second, 1, b"b\n"), (second, 1, b"c\n"), (second + 1, 1, b"d\n"))
        since = LogsRequest(app="shop", since=BEGIN / 1e9 + 1)
        assert await Heard(await here.logs(since)).all() == ["c1: b", "c1: c", "c1: d", "--"]
        behind = LogsRequest(app="shop", tail=0, positions={"c1": LogPosition(BEGIN + second, 1)})
        assert await Heard(await here.logs(behind)).all() == ["c1: c", "c1: d", "--"]


async def test_following_goes_on_where_history_ended_through_ends_and_starts(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.docker.add("c1")
        await here.docker.log("c1", (1, 1, b"a\n"), (2, 1, b"b\n"), (2, 1, b"c\n"))
        heard = Heard(await here.logs(LogsRequest(app="shop", follow=True, tail=2)))
        assert await heard.until("--") == ["c1: b", "c1: c", "--"]
        await here.docker.log("c1", (2, 1, b"of the same time\n"), (3, 2, b"d\n"))
        assert await heard.until("c1! d") == ["c1: of the same time", "c1! d"]
        await here.docker.set_running("c1", False)
        await until(lambda: here.streams.logs._open == 0)
        await here.docker.set_running("c1", True)
        await here.docker.log("c1", (4, 1, b"again\n"))
        assert await heard.until("c1: again") == ["c1: again"]
        heard.talk.abort()
        await until(lambda: here.streams.logs._open == here.streams.logs._readers == 0)


async def test_containers_that_come_while_it_follows_are_told_from_their_beginning(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        heard = Heard(await here.logs(LogsRequest(app="shop", follow=True, tail=0)))
        assert await heard.until("--") == ["--"]
        here.docker.add("c9")
        await here.docker.log("c9", (1, 1, b"first\n"))
        assert await heard.until("c9: first") == ["c9: first"]
        await here.docker.remove("c9")
        await until(lambda: here.streams.logs._open == 0)
        heard.talk.abort()


async def test_nothing_of_before_is_told_when_no_tail_is_wanted(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.streams.logs._clock = lambda: BEGIN / 1e9 + 10
        here.docker.add("c1")
        await here.docker.log("c1", (1, 1, b"old\n"))
        heard = Heard(await here.logs(LogsRequest(app="shop", follow=True, tail=0)))
        await heard.until("--")
        await here.docker.log("c1", (20_000_000_000, 1, b"new\n"))
        assert await heard.until("c1: new") == ["c1: new"]
        heard.talk.abort()


async def test_a_log_that_cannot_be_read_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.docker.add("c1")
        here.docker.add("c2", started=2.0)
        await here.docker.log("c2", (1, 1, b"a\n"))
        here.docker.refusals["GET /containers/c1/logs"] = (501, "configured logging driver does not support reading")
        assert await Heard(await here.logs(LogsRequest(app="shop"))).all() == [
            "c1? configured logging driver does not support reading",
            "c2: a",
            "--",
        ]
        heard = Heard(await here.logs(LogsRequest(app="shop", follow=True)))
        await heard.until("--")
        await heard.until("c1? configured logging driver does not support reading")
        count = len(here.docker.asked)
        await until(lambda: len(here.docker.asked) > count + 12)  # tried on and on, and told once
        await here.docker.log("c2", (2, 1, b"b\n"))
        assert await heard.until("c2: b") == ["c2: b"]
        here.docker.refusals.clear()
        await here.docker.log("c1", (3, 1, b"at last\n"))
        assert await heard.until("c1: at last") == ["c1: at last"]
        heard.talk.abort()


async def test_a_terminals_log_is_plain(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.docker.add("c1", tty=True)
        await here.docker.log("c1", (1, 1, b"a\r\n"), (2, 1, b"b\r\n"))
        assert await Heard(await here.logs(LogsRequest(app="shop"))).all() == ["c1: a", "c1: b", "--"]


async def test_who_reads_slowly_stops_docker_and_not_the_agent(tmp_path: Path) -> None:
    """40 MB, of which nobody takes anything at first."""
    async with node(tmp_path) as here:
        one = here.docker.add("c1")
        one.records = [(BEGIN + time, 1, b"x" * 16_000 + b"\n") for time in range(2_500)]
        heard = Heard(await here.logs(LogsRequest(app="shop")))
        await until(lambda: here.docker.written > WINDOW)
        for _ in range(100):  # round trips, in which an agent that does not wait reads much more
            with pytest.raises(InvalidRequest):
                await here.connection.call("none", b"", timeout=PATIENCE)
        assert here.docker.written < WINDOW + 1_500_000  # and what sockets hold
        assert len(await heard.all()) == 2_501


async def test_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_READERS", 1)
    monkeypatch.setattr(logs, "MOST_OPEN", 1)
    async with node(tmp_path) as here:
        here.docker.add("c1")
        here.docker.add("c2", started=2.0)
        await here.docker.log("c1", (1, 1, b"a\n"))
        first = Heard(await here.logs(LogsRequest(app="shop", follow=True)))
        await first.until("c2? 1 logs are read at once here already")
        with pytest.raises(InvalidRequest, match="1 read logs here already"):
            await Heard(await here.logs(LogsRequest(app="shop"))).all()
        first.talk.abort()
        await until(lambda: here.streams.logs._readers == 0)
        assert (await Heard(await here.logs(LogsRequest(app="shop"))).all())[-1] == "--"


@pytest.mark.parametrize(
    "request_",
    [
        LogsRequest(app=""),
        LogsRequest(app="shop", since=-1.0),
        LogsRequest(app="shop", since=float("nan")),
        LogsRequest(app="shop", since=float("inf")),
        LogsRequest(app="shop", positions={"c1": LogPosition(-1, 0)}),
        LogsRequest(app="shop", positions={"c1": LogPosition(0, -1)}),
    ],
)
async def test_what_cannot_be_asked_is_refused(tmp_path: Path, request_: LogsRequest) -> None:
    async with node(tmp_path) as here:
        with pytest.raises(InvalidRequest):
            await Heard(await here.logs(request_)).all()


async def test_docker_that_is_away_is_said_of_each_container(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.docker.add("c1")
        here.docker.raw = b"HTTP/1.0 200 OK\r\nnothing of"
        [trouble, present] = await Heard(await here.logs(LogsRequest(app="shop"))).all()
        assert trouble.startswith("c1? Docker's answer on")
        assert present == "--"


async def test_what_a_container_wrote_last_is_read_when_it_is_gone(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        here.docker.add("c1")
        here.docker.add("c2", allocation="shop/web.1.2", started=2.0)
        await here.docker.log("c1", *((number, 1, b"line %d\n" % number) for number in range(lastwords.LINES + 5)))
        await here.docker.log("c2", (2_000_000_000, 1, b"of its successor\n"))
        await here.streams.logs.remember("c1")
        assert await Heard(await here.logs(LogsRequest(app="shop", gone=True, tail=2))).all() == [
            f"c1: line {lastwords.LINES + 3}",
            f"c1: line {lastwords.LINES + 4}",
            "c2: of its successor",
            "--",
        ], "while it is there, Docker's log is read"
        await here.docker.remove("c1")
        heard = Heard(await here.logs(LogsRequest(app="shop", gone=True)))
        told = await heard.all()
        assert told == [*(f"c1: line {number}" for number in range(5, lastwords.LINES + 5)), "c2: of its successor", "--"]
        assert [(source.container, source.allocation) for source in heard.sources] == [("c1", "shop/web.1.1"), ("c2", "shop/web.1.2")]
        assert await Heard(await here.logs(LogsRequest(app="shop", gone=True, tail=1))).all() == [told[-3], "c2: of its successor", "--"]
        assert await Heard(await here.logs(LogsRequest(app="shop", gone=True, tail=0))).all() == ["--"]
        assert await Heard(await here.logs(LogsRequest(app="shop", gone=True, service="db"))).all() == ["--"]
        since = LogsRequest(app="shop", gone=True, since=BEGIN / 1e9 + 1)
        assert await Heard(await here.logs(since)).all() == ["c2: of its successor", "--"]
        behind = LogsRequest(
            app="shop", positions={"c1": LogPosition(BEGIN + lastwords.LINES + 4, 1), "c2": LogPosition(BEGIN + 2_000_000_000, 1)}
        )
        assert await Heard(await here.logs(behind)).all() == ["--"], "it was told before the connection was lost"
        heard = Heard(await here.logs(LogsRequest(app="shop", gone=True, tail=1, follow=True)))
        assert await heard.until("--") == [told[-3], "c2: of its successor", "--"]
        await here.docker.log("c2", (2_000_000_001, 1, b"more\n"))
        assert await heard.until("c2: more") == ["c2: more"]
        heard.talk.abort()
        assert await Heard(await here.logs(LogsRequest(app="shop", tail=1))).all() == ["c2: more", "--"]


async def test_last_words_that_cannot_be_read_hold_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LAST", 0.05)
    async with node(tmp_path) as here:
        here.docker.add("c1")
        here.docker.refusals["GET /containers/c1/logs"] = (501, "configured logging driver does not support reading")
        await here.streams.logs.remember("c1")
        await here.streams.logs.remember("of nobody")
        await here.docker.remove("c1")
        assert await Heard(await here.logs(LogsRequest(app="shop", gone=True))).all() == ["--"]
        assert here.streams.logs._open == 0
