"""What the last phases ask of the agents, over STOQ. The real thing is hmctl/client.py; tests have a cluster in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from hmcore.api import BARRIER, BarrierReply, ChangeReply, Empty, Formation, FormRequest, RaiseReply, RaiseRequest
from hmcore.errors import HyperMeshError
from hmcore.records import NodeReport, Role
from hmcore.voters import CONFIGURE, RAFT, ConfigureRequest, RaftStatus
from hmctl.remote.base import Remote

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmctl.client import Access, AgentClient

T = TypeVar("T")


class Agents(Protocol):
    """Asks several agents at once. One that does not answer in time is an entry of its own and delays nobody."""

    async def formation(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, Formation | HyperMeshError]: ...
    async def form(self, hosts: Sequence[Host], request: FormRequest, *, timeout: float) -> Mapping[str, Formation | HyperMeshError]: ...
    async def reports(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]: ...
    async def raise_level(self, host: Host, request: RaiseRequest, *, timeout: float) -> RaiseReply | HyperMeshError: ...
    async def raft(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, RaftStatus | HyperMeshError]: ...
    async def configure(self, host: Host, request: ConfigureRequest, *, timeout: float) -> ChangeReply | HyperMeshError: ...
    async def barrier(self, host: Host, *, timeout: float) -> BarrierReply | HyperMeshError: ...
    async def close(self) -> None: ...


class LiveAgents:
    """Over QUIC, or through SSH where UDP is closed. Connections are kept between questions, those through SSH only if there is one for
    every host; no more than `at_once` hosts are asked at the same time."""

    def __init__(self, access: Access, remotes: Mapping[str, Remote], at_once: int = 32) -> None:
        self._access = access
        self._remotes = remotes
        self._clients: dict[str, AgentClient] = {}
        self._over_ssh: set[str] = set()
        self._at_once = at_once

    async def formation(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, Formation | HyperMeshError]:
        return await self._ask(hosts, lambda client: client.formation(), timeout)

    async def form(self, hosts: Sequence[Host], request: FormRequest, *, timeout: float) -> Mapping[str, Formation | HyperMeshError]:
        return await self._ask(hosts, lambda client: client.form(request), timeout)

    async def reports(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, NodeReport | HyperMeshError]:
        control = {host.name for host in hosts if host.role is Role.CONTROL}  # whoever leads is one of them, and knows the members best
        return await self._ask(hosts, lambda client: client.report(members=not control or client.name in control), timeout)

    async def raise_level(self, host: Host, request: RaiseRequest, *, timeout: float) -> RaiseReply | HyperMeshError:
        return (await self._ask([host], lambda client: client.raise_level(request), timeout))[host.name]

    async def raft(self, hosts: Sequence[Host], *, timeout: float) -> Mapping[str, RaftStatus | HyperMeshError]:
        return await self._ask(hosts, lambda client: client.call(RAFT, Empty()), timeout)

    async def configure(self, host: Host, request: ConfigureRequest, *, timeout: float) -> ChangeReply | HyperMeshError:
        return (await self._ask([host], lambda client: client.call(CONFIGURE, request, timeout=timeout), timeout))[host.name]

    async def barrier(self, host: Host, *, timeout: float) -> BarrierReply | HyperMeshError:
        return (await self._ask([host], lambda client: client.call(BARRIER, Empty()), timeout))[host.name]

    async def close(self) -> None:
        for name in list(self._clients):
            await self._drop(name)

    async def _ask(
        self, hosts: Sequence[Host], call: Callable[[AgentClient], Awaitable[T]], timeout: float
    ) -> dict[str, T | HyperMeshError]:
        from hmctl.client import AT_ONCE, ask_all

        async def one(host: Host) -> T:
            try:
                client = self._clients.get(host.name)
                if client is None:
                    client = self._clients[host.name] = await self._connect(host, timeout)
                answer = await call(client)
                if host.name in self._over_ssh and len(self._remotes) > self._at_once:
                    await self._drop(host.name)
                return answer
            except BaseException:
                await self._drop(host.name)  # whatever went wrong, the next question starts afresh
                raise

        return await ask_all(hosts, one, timeout=timeout, at_once=min(AT_ONCE, self._at_once))

    async def _connect(self, host: Host, timeout: float) -> AgentClient:
        from hmcore.errors import PeerUnreachable
        from hmctl.client import Via, connect, connect_remote

        remote = self._remotes.get(host.name)
        try:
            # UDP that is closed answers nothing: leave time to go through SSH within the caller's patience.
            if remote is None or host.name not in self._over_ssh:
                return await connect(host, self._access, via=Via.QUIC, timeout=timeout if remote is None else timeout / 2)
        except PeerUnreachable:
            if remote is None:
                raise
        client = await connect_remote(remote, self._access.cluster, timeout=timeout)
        self._over_ssh.add(host.name)
        return client

    async def _drop(self, name: str) -> None:
        client = self._clients.pop(name, None)
        if client is not None:
            await client.close()
