"""The two sides of the benchmarks of consensus, behind one protocol: three agents, and three members of etcd.

Each is three processes on loopback, with directories on the same file system, fsync and their own defaults. An agent is called over QUIC
with an operator's certificate, as hmctl does; etcd over gRPC without TLS, as its own clients do by default.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from bed import ROOT
from consensus_etcd import Etcd, obtain
from consensus_grpc import PUT, RANGE, Channel, connect, put_request, range_request

sys.path.insert(0, str(ROOT / "tests" / "integration"))

from cluster import ClusterOfProcesses

from hmcore.api import TRANSFER, TransferRequest
from hmcore.config.presets import settings_for
from hmcore.stoq.endpoint import Connection
from hmcore.stoq.rpc import invoke
from hmcore.store import GET_KEY, PUT_KEY, KeyRequest, PutKeyRequest

TIMEOUT = 10.0  # seconds for one call


class Line(Protocol):
    """A connection to one member that can carry many calls at once. Calls raise whatever made them fail."""

    async def put(self, key: str, value: bytes) -> None:
        """Returns once the write is committed."""

    async def holds(self, key: str) -> bool:
        """Whether the member itself holds the key by now: no quorum is asked."""

    async def close(self) -> None: ...


class Side(Protocol):
    name: str

    @property
    def members(self) -> Sequence[str]: ...

    def pid(self, member: str) -> int: ...

    def kill(self, member: str) -> None: ...

    def start(self, member: str) -> None: ...

    async def leader(self) -> str:
        """Once all three run and agree."""

    async def open(self, member: str) -> Line: ...

    async def transfer(self, leader: str, to: str) -> None:
        """Returns when `to` leads. Raises whatever made it refuse."""


class AgentLine:
    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._run = uuid.uuid4().hex
        self._count = itertools.count()

    async def put(self, key: str, value: bytes) -> None:
        request = PutKeyRequest(id=f"{self._run}.{next(self._count)}", key=key, value=value)
        await invoke(self._connection, PUT_KEY, request, timeout=self._timeout)

    async def holds(self, key: str) -> bool:
        return (await invoke(self._connection, GET_KEY, KeyRequest(key=key), timeout=self._timeout)).item is not None

    async def close(self) -> None:
        await self._connection.close()


class Agents:
    """Three control nodes of their own cluster with the preset's own times."""

    name = "agents"

    def __init__(self, directory: Path, preset: str) -> None:
        settings = settings_for(preset).model_dump()
        times = {group: settings[group] for group in ("raft", "membership", "transport", "calls")}
        self._cluster = ClusterOfProcesses(directory, controls=3, **times)

    @property
    def members(self) -> Sequence[str]:
        return list(self._cluster.nodes)

    def pid(self, member: str) -> int:
        process = self._cluster.nodes[member].process
        assert process is not None
        return process.pid

    def kill(self, member: str) -> None:
        self._cluster.nodes[member].kill()

    def start(self, member: str) -> None:
        self._cluster.nodes[member].start()

    def stop(self) -> None:
        self._cluster.stop()

    async def bring_up(self) -> None:
        await self._cluster.bring_up()

    async def leader(self) -> str:
        reports = await self._cluster.until_whole("all three agree on a leader")
        leader = next(iter(reports.values())).raft.leader
        assert leader is not None
        return leader

    async def open(self, member: str) -> Line:
        return AgentLine(await self._cluster.open(member, timeout=TIMEOUT), TIMEOUT)

    async def transfer(self, leader: str, to: str) -> None:
        async with self._cluster.connect(leader) as connection:
            await invoke(connection, TRANSFER, TransferRequest(to=to), timeout=TIMEOUT)


class EtcdLine:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def put(self, key: str, value: bytes) -> None:
        async with asyncio.timeout(TIMEOUT):
            await self._channel.call(PUT, put_request(key.encode(), value))

    async def holds(self, key: str) -> bool:
        async with asyncio.timeout(TIMEOUT):
            return key.encode() in await self._channel.call(RANGE, range_request(key.encode()))

    async def close(self) -> None:
        self._channel.close()


class EtcdSide:
    name = "etcd"

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd

    @property
    def members(self) -> Sequence[str]:
        return list(self._etcd.members)

    def pid(self, member: str) -> int:
        return self._etcd.members[member].pid

    def kill(self, member: str) -> None:
        self._etcd.members[member].kill()

    def start(self, member: str) -> None:
        self._etcd.members[member].start()

    async def leader(self) -> str:
        return await asyncio.to_thread(self._etcd.until_led)

    async def open(self, member: str) -> Line:
        return EtcdLine(await connect(self._etcd.members[member].port))

    async def transfer(self, leader: str, to: str) -> None:
        await asyncio.to_thread(self._etcd.transfer, leader, to)


@asynccontextmanager
async def agents(directory: Path, preset: str = "balanced") -> AsyncIterator[Agents]:
    """Formed, led, and gone afterwards, whatever happened."""
    side = Agents(directory, preset)
    try:
        await side.bring_up()
        yield side
    finally:
        side.stop()


@asynccontextmanager
async def etcd(directory: Path) -> AsyncIterator[EtcdSide]:
    """Formed, led, and gone afterwards, whatever happened. Raises EtcdUnavailable."""
    processes = Etcd(await asyncio.to_thread(obtain), directory)
    try:
        processes.start()
        side = EtcdSide(processes)
        await side.leader()
        yield side
    finally:
        processes.stop()
