"""Real RaftNodes on one event loop: real files, real time, links in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hmcore.errors import NoQuorum, NotLeader
from node_agent.consensus.raft import RaftNode
from node_agent.consensus.statemachine import machine

VOTERS = ("n1", "n2", "n3")


@dataclass(frozen=True)
class Timing:
    """Short, but longer than a busy machine keeps a process waiting."""

    heartbeat: float = 0.05
    election_min: float = 0.3
    election_max: float = 0.6


@dataclass
class Wire:
    """A node's links: to whoever is on the loop and not cut off, after one turn of the loop."""

    cluster: Cluster
    name: str

    def send(self, peer: str, payload: bytes) -> bool:
        if not self.cluster.joined(self.name, peer):
            return False
        asyncio.get_running_loop().call_soon(self.cluster.nodes[peer].receive, self.name, payload)
        return True


@dataclass
class Cluster:
    directory: Path
    nodes: dict[str, RaftNode] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    fatal: list[BaseException] = field(default_factory=list)

    def joined(self, one: str, other: str) -> bool:
        return one in self.nodes and other in self.nodes and not {one, other} & self.cut

    def make(self, name: str, voters: tuple[str, ...] = VOTERS) -> RaftNode:
        return RaftNode(
            name=name,
            voters=voters,
            directory=self.directory / name,
            settings=Timing(),
            links=Wire(self, name),
            call_timeout=5.0,
            on_applied=lambda state: None,
            on_fatal=self.fatal.append,
        )

    def isolate(self, name: str) -> None:
        self.cut.add(name)
        for other in self.nodes:
            if other != name:
                self.nodes[name].peer_down(other)
                self.nodes[other].peer_down(name)

    def rejoin(self, name: str) -> None:
        self.cut.discard(name)
        for other in self.nodes:
            if other != name:
                self.nodes[name].peer_up(other)
                self.nodes[other].peer_up(name)

    @property
    def leader(self) -> RaftNode | None:
        return next((node for name, node in self.nodes.items() if node.is_leader and name not in self.cut), None)

    async def elected(self) -> RaftNode:
        await until(lambda: self.leader is not None)
        assert self.leader is not None
        return self.leader

    async def write(self, request: str, command: machine.Command | None = None) -> int:
        """As a client does: again under the same id, elsewhere, when a leader falls meanwhile (on a busy machine it may)."""
        encoded = machine.encode(command or machine.Noop())
        async with asyncio.timeout(15):
            while True:
                leader = await self.elected()
                try:
                    index, _ = await leader.propose(encoded, request_id=request)
                except (NotLeader, NoQuorum):
                    await asyncio.sleep(0.005)  # who leads next is to be found out
                else:
                    return index


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # of many objects, none of which tells
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(directory: Path, *, permitted: bool = True) -> AsyncIterator[Cluster]:
    """Three nodes, open, connected and running until the block ends."""
    cluster = Cluster(directory)
    async with asyncio.TaskGroup() as tasks:
        for name in VOTERS:
            cluster.nodes[name] = cluster.make(name)
            await cluster.nodes[name].open()
            tasks.create_task(cluster.nodes[name].run(), name=f"raft-{name}")
        for name in VOTERS:
            cluster.rejoin(name)
        if permitted:
            for node in cluster.nodes.values():
                if not node.formation().permitted:
                    node.permit("b1")
        try:
            yield cluster
        finally:
            for node in cluster.nodes.values():
                await node.stop()
