"""Connections to all agents, kept open between questions, for what asks them more than once.

Over QUIC these are one UDP socket each. Through SSH they are a login and a process on the host each: never more than AT_ONCE are open
(docs/adr/0061). More agents than that are asked in turns, each with a connection for one question; to ask them on and on is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from hmcore.errors import HyperMeshError, PeerUnreachable, UsageError
from hmctl.client import AT_ONCE, SSH_TIMEOUT, Access, AgentClient, Via, ask_all, connect
from hmctl.text import plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmctl.remote.ssh import Connector

T = TypeVar("T")
Question = Callable[[AgentClient], Awaitable[T]]

DEADLINE = 2.0  # seconds that a node has for its answer, connecting included
PATIENCE = 0.7  # and when most have answered
SLOWEST = 30.0  # however busy this machine is


class Agents:
    """The agents of `hosts`. With `auto`, SSH is taken when nobody answers over QUIC, as `hmctl status` does it.

    `standing`: they are asked on and on, which takes a connection to each; `limit`: SSH connections that may be open at once.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        access: Access,
        *,
        via: Via = Via.AUTO,
        timeout: float | None = None,
        standing: bool = False,
        limit: int = AT_ONCE,
    ) -> None:
        self.hosts = list(hosts)
        self._access = access
        self._undecided = via is Via.AUTO
        self._via = Via.SSH if via is Via.SSH else Via.QUIC
        self._timeout = timeout
        self._standing = standing
        self._limit = limit
        self._connector: Connector | None = None  # made when it is needed: importing asyncssh takes as long as asking does
        self._clients: dict[str, AgentClient] = {}
        self._connecting = {host.name: asyncio.Lock() for host in hosts}

    async def __aenter__(self) -> Agents:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        clients, self._clients = self._clients, {}
        try:
            async with asyncio.TaskGroup() as group:
                for client in clients.values():
                    group.create_task(client.close(), name=f"close {client.name}")
        finally:
            if self._connector is not None:
                await self._connector.close()

    async def ask_all(self, question: Question[T], hosts: Sequence[Host] | None = None) -> dict[str, T | HyperMeshError]:
        """What each of `hosts` (all of them) answers, or why it does not, at once and within the timeout.

        Raises UsageError when they are to be asked on and on, and these are too many for SSH.
        """
        hosts = self.hosts if hosts is None else hosts
        found = await self._ask_all(question, hosts)
        if self._undecided and found and all(isinstance(answer, PeerUnreachable) for answer in found.values()):
            self._via = Via.SSH
            over_ssh = await self._ask_all(question, hosts)
            if all(isinstance(answer, HyperMeshError) for answer in over_ssh.values()):
                self._via = Via.QUIC
                return {name: over_ssh[name] if isinstance(over_ssh[name], PeerUnreachable) else answer for name, answer in found.items()}
            found = over_ssh
        self._undecided = self._undecided and all(isinstance(answer, HyperMeshError) for answer in found.values())
        return found

    async def _ask_all(self, question: Question[T], hosts: Sequence[Host]) -> dict[str, T | HyperMeshError]:
        patience = PATIENCE if self._timeout is None and self._via is Via.QUIC else None
        each = self._bound if patience is None else SLOWEST  # ask_all has the last word
        in_turns = self._via is Via.SSH and await self._too_many(hosts)

        async def one(host: Host) -> T:
            try:
                return await self.ask(host, question, within=each)
            finally:
                if in_turns:
                    await self._leave(host.name)

        return await ask_all(hosts, one, timeout=self._bound, at_once=min(AT_ONCE, self._limit), patience=patience)

    async def _too_many(self, hosts: Sequence[Host]) -> bool:
        """Whether not all of `hosts` can have an SSH connection beside those that are open. If so, there is none afterwards."""
        wanted = {host.name for host in hosts} | self._clients.keys()
        bastions = {host.ssh.bastion for host in self.hosts if host.ssh.bastion and host.name in wanted}
        if len(wanted) + len(bastions) <= self._limit:
            return False
        if self._standing:
            through = f", {plural(len(bastions), 'bastion')} included" if bastions else ""
            unheard = "no agent answers over QUIC, and through SSH" if self._undecided else "through SSH"
            raise UsageError(
                f"{unheard} no more than {self._limit} connections are open at once{through}: too few to follow {len(wanted)} nodes",
                fix=f"name fewer with --node, or open UDP port {hosts[0].port} of the nodes to this machine",
            )
        for name in list(self._clients):
            await self._leave(name)
        return True

    async def require_room(self, hosts: Sequence[Host]) -> None:
        """For a connection to each of `hosts`, all at once. Raises UsageError when these are too many for SSH."""
        if self._standing and self._via is Via.SSH:
            await self._too_many(hosts)

    async def _leave(self, name: str) -> None:
        client = self._clients.pop(name, None)
        if client is not None:
            await client.close()

    @property
    def _bound(self) -> float:
        bound = DEADLINE if self._timeout is None else self._timeout
        return max(bound, SSH_TIMEOUT) if self._via is Via.SSH else bound  # logging in takes longer than a QUIC handshake

    async def ask(self, host: Host, question: Question[T], *, within: float | None = None) -> T:
        """What one agent answers; a connection, if one is needed, `within` so many seconds. A connection that failed is made anew the next
        time. Raises HyperMeshError."""
        client = await self._client(host, self._bound if within is None else within)
        try:
            return await question(client)
        except HyperMeshError as error:
            if not error_of_the_call(error) and self._clients.get(host.name) is client:
                await self._leave(host.name)
            raise

    async def _client(self, host: Host, within: float) -> AgentClient:
        async with self._connecting[host.name]:
            known = self._clients.get(host.name)
            if known is None:
                known = await connect(host, self._access, via=self._via, timeout=within, connector=self._ssh())
                self._clients[host.name] = known
            return known

    def _ssh(self) -> Connector | None:
        """The SSH connections that all share, while agents are reached through them."""
        if self._connector is None and self._via is Via.SSH:
            from hmctl.remote.ssh import Connector

            self._connector = Connector(self._access.known_hosts, limit=self._limit)
        return self._connector


def error_of_the_call(error: HyperMeshError) -> bool:
    """Whether the agent itself refused: the connection is good then."""
    from hmcore.errors import CallRefused

    return isinstance(error, CallRefused)
