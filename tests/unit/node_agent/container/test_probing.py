"""Probes over real sockets: what answers, and everything that does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.spec import Probe
from hmcore.records import InstanceHealth
from node_agent.container.probing import MOST_LINE, Prober, judged, probe
from node_agent.container.reconcile import Target

HTTP = Probe(kind="http", path="/up", interval=0.1, start_interval=0.1, retries=1)
TCP = Probe(kind="tcp", interval=0.1, start_interval=0.1, retries=1)


@asynccontextmanager
async def answering(answer: bytes | None, requests: list[bytes] | None = None) -> AsyncIterator[int]:
    """A port where every request is answered so; None: never."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if requests is not None:
                requests.append(request)
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- what it waits for tells nobody
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 204\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "it answers 404"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "it answers 503"),
        (b"SSH-2.0-x\r\n", "what it answers is not HTTP"),
        (b"HTTP/1.1 200", ""),
        (b"", "what it answers is not HTTP"),
        (b"x" * 3 * MOST_LINE, "what it answers is not HTTP"),
    ],
)
async def test_http(answer: bytes, failure: str) -> None:
    requests: list[bytes] = []
    async with answering(answer, requests) as port:
        assert await probe(Target("127.0.0.1", port, HTTP), 10) == failure
    assert requests[0].startswith(b"GET /up HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)


async def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    async with answering(None) as port:
        assert await probe(Target("127.0.0.1", port, HTTP), 0.05) == "no answer within 0.05 s"
        assert await probe(Target("127.0.0.1", port, TCP), 10) == ""


@pytest.mark.parametrize("kind", [HTTP, TCP])
async def test_where_nobody_listens(kind: Probe) -> None:
    async with answering(b"") as port:
        pass
    assert "refused" in await probe(Target("127.0.0.1", port, kind), 10)


@pytest.mark.parametrize(("address", "port", "kind"), [("", 80, TCP), ("127.0.0.1", 0, TCP), ("127.0.0.1", 70_000, HTTP), ("", 0, HTTP)])
async def test_what_has_no_address_is_not_fit(address: str, port: int, kind: Probe) -> None:
    assert "no address or port is known" in await probe(Target(address, port, kind), 10)


@pytest.mark.parametrize("path", ["up", "/a b", "/a\r\nX: y", "/ä", "/a\n"])
async def test_a_path_cannot_smuggle_anything_into_the_request(path: str) -> None:
    assert await probe(Target("127.0.0.1", 1, Probe(kind="http", path=path)), 10) == "its path is none"


@given(st.binary(max_size=40) | st.binary(max_size=8).map(lambda tail: b"HTTP/1.1 2" + tail))
def test_any_first_line_is_judged(line: bytes) -> None:
    assert isinstance(judged(line), str)
    if judged(line) == "":
        assert line[9:10] in (b"2", b"3")


async def test_it_follows_what_it_is_told_to_and_nothing_else() -> None:
    changes: list[dict[str, InstanceHealth]] = []
    async with asyncio.TaskGroup() as tasks, answering(b"HTTP/1.1 200 OK\r\n\r\n") as well, answering(b"HTTP/1.1 500 No\r\n\r\n") as ill:
        prober = Prober(tasks, lambda: changes.append({id: health for id, (health, _) in prober.healths().items()}))
        prober.follow({"a": Target("127.0.0.1", well, HTTP), "b": Target("127.0.0.1", ill, HTTP)})
        await until(lambda: {"a": InstanceHealth.HEALTHY, "b": InstanceHealth.UNHEALTHY} in changes)
        assert prober.healths()["b"] == (InstanceHealth.UNHEALTHY, "its health check fails: it answers 500")
        assert len(changes) == 2  # told of changes, not of every probe
        prober.follow({"b": Target("127.0.0.1", well, HTTP)})
        assert "a" not in prober.healths()
        await until(lambda: prober.healths().get("b", ("", ""))[0] is InstanceHealth.HEALTHY)
        prober.follow({})
        assert prober.healths() == {}
