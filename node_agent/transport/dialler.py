"""Keeps the connection to a peer up that is ours to dial: again and again, with pauses that grow, or at once when somebody wants it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hmcore.config.settings import Transport
from hmcore.errors import HyperMeshError
from hmcore.pki import Identity, Kind
from hmcore.stoq.endpoint import Connection, Credentials, Local, Service
from node_agent.transport.circuit import pause
from node_agent.transport.link import Link, PeerAddress

DIAL_TIMEOUT = 2.5  # seconds: QUIC repeats its first packet at 0.2, 0.6 and 1.4 s

OVERDUE = 3.0  # seconds without a connection that the peer should have made: by then an agent has restarted, and has dialled

log = logging.getLogger("hypermesh.transport")


class Dial(Protocol):
    async def __call__(
        self,
        host: str,
        port: int,
        *,
        credentials: Credentials,
        local: Local,
        server: Identity,
        service: Service,
        timeout: float,
        on_connection: Callable[[Connection], None],
        high_water: int,
    ) -> Connection: ...


@dataclass(frozen=True, slots=True)
class Dialler:
    """Of one node, for all its peers. `service` answers what they call; `on_connection` decides whether a new connection is kept, and is
    told before anything of it is delivered."""

    local: Local
    credentials: Credentials
    transport: Transport
    service: Service
    on_connection: Callable[[Link, Connection], None]
    dial: Dial
    clock: Callable[[], float]
    chance: Callable[[], float]

    async def keep_connected(self, link: Link, address: PeerAddress) -> None:
        """Until cancelled."""
        while True:
            if link.connection is not None:
                await link.changed.wait()
                continue
            if not address.dial and not await _overdue(link):
                continue
            if link.attempts:
                with contextlib.suppress(TimeoutError):
                    limits = self.transport
                    async with asyncio.timeout(pause(link.attempts, limits.reconnect_min, limits.reconnect_max, self.chance())):
                        await link.changed.wait()  # somebody wants it now, or it dialled us
                if link.connection is not None:
                    continue
            link.attempts += 1
            try:
                await self._dial(link, address)
            except HyperMeshError as error:
                if link.connection is not None:
                    continue
                if link.error != error.message:
                    log.info("cannot reach %s: %s", link.name, error.message)
                link.failed(error.message, self.clock())
                link.changed.beat()

    async def _dial(self, link: Link, address: PeerAddress) -> None:
        await self.dial(
            address.host,
            address.port,
            credentials=self.credentials,
            local=self.local,
            server=Identity(self.local.identity.cluster, Kind.NODE, link.name),
            service=self.service,
            timeout=DIAL_TIMEOUT,
            on_connection=lambda connection: self.on_connection(link, connection),
            high_water=self.transport.high_water_bytes,
        )


async def _overdue(link: Link) -> bool:
    """Whether the peer, whose business it is to dial, has not done so for OVERDUE seconds: it may take us for a worker still."""
    try:
        async with asyncio.timeout(OVERDUE):
            while link.connection is None:
                await link.changed.wait()
    except TimeoutError:
        return link.connection is None
    return False
