"""When a peer is dialled again, in virtual time on a network in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pool_world import NO_CREDENTIALS, Echo, Net, Node, local

from hmcore.config.settings import Calls, Transport
from hmcore.stoq.connection import Connection
from node_agent.transport.circuit import Circuit
from node_agent.transport.dialler import DIAL_TIMEOUT, OVERDUE, Dialler
from node_agent.transport.link import Link, PeerAddress

Run = Callable[[Coroutine[Any, Any, None]], None]
LIMITS = Transport(reconnect_min=0.1, reconnect_max=2.0)
ADDRESS = PeerAddress("net", 2, dial=True)


def link_to(name: str) -> Link:
    return Link(name, Circuit(threshold=3, open_for=10.0), ADDRESS)


def dialler(net: Net, up: Callable[[Link, Connection], None] = lambda link, connection: None) -> Dialler:
    """Of n1."""
    loop = asyncio.get_running_loop()
    return Dialler(local("n1"), NO_CREDENTIALS, LIMITS, Echo(), up, net.dial, loop.time, lambda: 1.0)


async def for_a_while(work: Coroutine[Any, Any, None], seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await work


def test_dialling_backs_off_and_goes_on(virtual: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        net, link = Net(delay=0.0), link_to("n2")
        await for_a_while(dialler(net).keep_connected(link, ADDRESS), 10)
        times = [round(at, 1) for at, *_ in net.dialled]
        assert times[:7] == [0.0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1]  # doubling from 0.1 s, 2 s at most
        assert link.circuit.is_open(10.0)
        assert link.error == "nothing listens there"
        assert caplog.text.count("cannot reach n2: nothing listens there") == 1  # and not at every attempt

    virtual(scenario())


def test_who_wants_the_peer_now_does_not_wait_for_the_pause(virtual: Run) -> None:
    async def scenario() -> None:
        net, link = Net(delay=0.0), link_to("n2")
        link.attempts = 10
        asyncio.get_running_loop().call_later(0.5, link.changed.beat)
        await for_a_while(dialler(net).keep_connected(link, ADDRESS), 1)
        assert [round(at, 1) for at, *_ in net.dialled] == [0.5]

    virtual(scenario())


def test_a_peer_that_does_not_even_refuse_is_given_up_after_a_while(virtual: Run) -> None:
    async def scenario() -> None:
        net, link = Net(black_holes={2}), link_to("n2")
        await for_a_while(dialler(net).keep_connected(link, ADDRESS), DIAL_TIMEOUT + 0.05)
        assert (link.error, link.circuit.failures) == ("no answer", 1)

    virtual(scenario())


def test_while_it_is_connected_nothing_is_dialled(virtual: Run) -> None:
    async def scenario() -> None:
        net, link, there = Net(), link_to("n2"), Node("n2")
        loop = asyncio.get_running_loop()
        pool = there.make_pool(NO_CREDENTIALS, LIMITS, Calls(), dial=net.dial, clock=loop.time, chance=lambda: 1.0)
        net.nodes[2] = (there, pool)

        def up(link: Link, connection: Connection) -> None:
            link.connected(connection, dialled=True, now=loop.time())
            link.changed.beat()

        def broken() -> None:
            link.disconnected("broken", now=loop.time(), steady=LIMITS.reconnect_max)
            link.changed.beat()

        async with asyncio.TaskGroup() as group:
            serving = group.create_task(pool.run())
            loop.call_later(5.0, broken)
            await for_a_while(dialler(net, up).keep_connected(link, ADDRESS), 10)
            serving.cancel()
        assert [round(at, 1) for at, *_ in net.dialled] == [0.0, 5.1]  # after the shortest pause: it had held
        assert link.connection is not None

    virtual(scenario())


def test_a_peer_that_should_dial_and_does_not_is_dialled_after_a_while(virtual: Run) -> None:
    """It may take us for a worker, whose business it is, while we take both of us for control nodes."""

    async def scenario() -> None:
        net, link, address = Net(delay=0.0), link_to("n2"), PeerAddress("net", 2, dial=False, fallback=True)
        asyncio.get_running_loop().call_later(1.0, link.changed.beat)  # that somebody wants it hurries nobody: two would dial at once
        await for_a_while(dialler(net).keep_connected(link, address), 3 * OVERDUE)
        times = [at for at, *_ in net.dialled]
        assert times[0] == pytest.approx(OVERDUE)
        assert times[1] >= 2 * OVERDUE

    virtual(scenario())


def test_a_peer_that_dials_in_time_is_not_dialled(virtual: Run) -> None:
    async def scenario() -> None:
        net, link, address = Net(), link_to("n2"), PeerAddress("net", 2, dial=False, fallback=True)
        loop = asyncio.get_running_loop()

        def dialled() -> None:
            link.connection = object()  # type: ignore[assignment]
            link.changed.beat()

        loop.call_later(OVERDUE / 2, dialled)
        await for_a_while(dialler(net).keep_connected(link, address), 3 * OVERDUE)
        assert net.dialled == []

    virtual(scenario())
