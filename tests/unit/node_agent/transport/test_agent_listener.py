"""Pools and listeners on real UDP: nodes become peers, operators and viewers call, strangers do neither."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from pool_world import PATIENCE, Certificates, Node, local, until

from hmcore.api import Empty, Method
from hmcore.config.settings import Calls, Transport
from hmcore.errors import HandshakeRefused, TransportError
from hmcore.pki import Identity, Kind
from hmcore.stoq.endpoint import Connection, Credentials, dial
from node_agent.transport.link import PeerAddress
from node_agent.transport.listener import AgentListener
from node_agent.transport.pool import Pool

ECHO: Method[Empty, Empty] = Method("echo", Empty, Empty)
QUICK = Transport(reconnect_min=0.01, reconnect_max=0.05)


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@dataclass
class Agent:
    node: Node
    pool: Pool
    listener: AgentListener
    group: asyncio.TaskGroup
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        await self.listener.open()
        self.tasks.append(self.group.create_task(self.pool.run()))
        await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.listener.close()

    def crash(self) -> None:
        """As kill -9: the sockets are gone, nobody is told."""
        self.listener._listener._transport.abort()  # type: ignore[union-attr]
        for link in self.pool._links.values():
            if link.connection is not None:
                object.__setattr__(link.connection._wire._callbacks, "send", lambda data, address: None)  # type: ignore[union-attr]


@contextlib.asynccontextmanager
async def cluster(
    *names: str, certificates: Certificates, credentials: dict[str, Credentials] | None = None
) -> AsyncIterator[dict[str, Agent]]:
    """Agents of these names that know each other."""
    async with asyncio.TaskGroup() as group:
        agents = {name: agent(name, group, (credentials or {}).get(name) or certificates.of(name)) for name in names}
        for each in agents.values():
            await each.start()
        for name, each in agents.items():
            others = {other: PeerAddress("127.0.0.1", agents[other].listener.port, name < other) for other in names if other != name}
            each.pool.set_peers(others)
        try:
            yield agents
        finally:
            for each in agents.values():
                await each.stop()


def agent(name: str, group: asyncio.TaskGroup, credentials: Credentials, port: int = 0) -> Agent:
    node = Node(name)
    pool = node.make_pool(credentials, QUICK, Calls())
    listener = AgentListener("127.0.0.1", port, local=local(name), credentials=credentials, transport=QUICK, service=node.echo, pool=pool)
    return Agent(node, pool, listener, group)


async def connected(agents: dict[str, Agent]) -> None:
    await until(lambda: all(each.pool.connected == agents.keys() - {name} for name, each in agents.items()))


async def test_three_nodes_find_each_other_and_talk(certificates: Certificates) -> None:
    async with cluster("n1", "n2", "n3", certificates=certificates) as agents:
        await connected(agents)
        for name, each in agents.items():
            for other in agents.keys() - {name}:
                for number in range(20):
                    assert each.pool.send(other, "raft", b"%d" % number)
                assert each.pool.send(other, "heartbeat", b"alive")
                assert await each.pool.call(other, ECHO, Empty()) == Empty()
        for name, each in agents.items():
            await until(lambda each=each: len(each.node.log) == 2 * 22)  # type: ignore[misc]
            for other in agents.keys() - {name}:
                about = each.node.about(other)
                assert about[0] == ("up", other)
                assert [entry[3] for entry in about[1:] if entry[2] == "raft"] == [str(number) for number in range(20)]
                assert ("message", other, "heartbeat", "alive") in about
            for report in each.pool.reports():
                assert report.state == "connected"
                assert report.rtt_ms is not None
                assert 0 < report.rtt_ms < 1000


async def test_a_node_that_is_killed_and_returns_is_found_again(certificates: Certificates) -> None:
    """The larger name, which is dialled: its peer notices that nothing listens there, and that it is back."""
    async with cluster("n1", "n2", certificates=certificates) as agents:
        await connected(agents)
        here, port = agents["n1"], agents["n2"].listener.port
        agents["n2"].crash()
        await until(lambda: here.pool.send("n2", "heartbeat", b"?") is False)
        assert here.node.log[-1] == ("down", "n2")
        again = agent("n2", here.group, certificates.of("n2"), port)
        again.pool.set_peers({"n1": PeerAddress("127.0.0.1", here.listener.port, dial=False)})
        await again.start()
        await until(lambda: here.pool.connected == {"n2"} and again.pool.connected == {"n1"})
        assert here.node.about("n2")[:1] == [("up", "n2")]
        assert here.pool.send("n2", "raft", b"welcome back")
        await until(lambda: ("message", "n1", "raft", "welcome back") in again.node.log)
        await again.stop()


async def test_a_peer_that_is_not_accepted_is_reported_with_the_reason(certificates: Certificates) -> None:
    strange = Credentials(certificates.of("n1").ca, *_pair(Certificates().of("n1")))
    async with cluster("n1", "n2", certificates=certificates, credentials={"n1": strange}) as agents:
        pool = agents["n1"].pool
        await until(lambda: pool.reports()[0].error)
        [report] = pool.reports()
        assert "it refuses us: the certificate was signed by another CA" in (report.error or "")
        assert agents["n2"].node.log == []


def _pair(credentials: Credentials) -> tuple[bytes, bytes]:
    return credentials.certificate, credentials.key


async def enter(agent: Agent, certificates: Certificates, name: str, kind: Kind) -> Connection:
    return await dial(
        "127.0.0.1",
        agent.listener.port,
        credentials=certificates.of(name, kind),
        local=local(name, kind=kind),
        server=Identity(local("n1").identity.cluster, Kind.NODE, agent.node.name),
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("kind", [Kind.OPERATOR, Kind.VIEWER])
async def test_operators_and_viewers_call_but_are_no_peers(kind: Kind, certificates: Certificates) -> None:
    async with cluster("n1", certificates=certificates) as agents:
        here = agents["n1"]
        connection = await enter(here, certificates, "n2", kind)  # even by the name of a node
        await connection.call("echo", b"", timeout=PATIENCE)
        assert here.node.echo.calls == [("n2", "echo")]
        stream = await connection.open_stream("raft")
        stream.send_nowait(b"forged vote")
        await until(lambda: not stream.alive)
        assert here.pool.connected == frozenset()
        assert here.node.log == []
        await connection.close()


async def test_a_node_may_not_come_in_our_own_name(certificates: Certificates) -> None:
    async with cluster("n1", certificates=certificates) as agents:
        with pytest.raises(HandshakeRefused, match="n1 is this node's own name"):
            await enter(agents["n1"], certificates, "n1", Kind.NODE)


async def test_a_port_that_is_taken_is_said(certificates: Certificates) -> None:
    async with cluster("n1", certificates=certificates) as agents, asyncio.TaskGroup() as group:
        second = agent("n2", group, certificates.of("n2"), agents["n1"].listener.port)
        with pytest.raises(TransportError, match="cannot listen"):
            await second.listener.open()


async def test_a_stopped_listener_frees_its_port(certificates: Certificates) -> None:
    async with cluster("n1", certificates=certificates) as agents, asyncio.TaskGroup() as group:
        first = agents["n1"]
        port = first.listener.port
        await first.listener.close()
        second = agent("n2", group, certificates.of("n2"), port)
        await second.listener.open()
        await second.listener.close()
