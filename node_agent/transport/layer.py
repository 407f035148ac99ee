"""The transport layer as a component: the node's port and its connections to all other nodes."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from hmcore.api import Method
from hmcore.config.agent import AgentConfig
from hmcore.errors import PeerUnreachable
from hmcore.records import PeerReport
from hmcore.stoq.endpoint import Credentials, Local, Service
from hmcore.stoq.rpc import Observe
from node_agent.transport.identity import NodeIdentity, expiry_reason
from node_agent.transport.link import PeerAddress
from node_agent.transport.listener import AgentListener
from node_agent.transport.pool import Pool, Req, Res


class TransportLayer:
    """The port and the connections to all other nodes. See node_agent.platform.lifecycle.Component."""

    name = "transport"
    serving = True

    def __init__(
        self,
        config: AgentConfig,
        release: str,
        identity: Callable[[], NodeIdentity],
        service: Service,
        *,
        on_up: Callable[[str], None],
        on_down: Callable[[str], None],
        on_message: Callable[[str, str, bytes], None],
        observe: Observe = lambda method, outcome, seconds: None,
    ) -> None:
        """`identity` is asked when the layer comes up, not before. The callbacks are the pool's; `observe` hears of each call it makes."""
        self._config = config
        self._release = release
        self._identity = identity
        self._service = service
        self._callbacks = (on_up, on_down, on_message)
        self._observe = observe
        self._peers: Mapping[str, PeerAddress] = {}
        self._pool: Pool | None = None
        self._listener: AgentListener | None = None
        self._expires: datetime | None = None
        self._alone_since: float | None = None

    async def initialize(self) -> None:
        proof = self._identity()
        self._expires = proof.expires
        credentials = Credentials(ca=proof.ca, certificate=proof.certificate, key=proof.key)
        local = Local(proof.identity, self._config.role.value, self._release)
        settings = self._config.settings
        on_up, on_down, on_message = self._callbacks
        pool = self._pool = Pool(
            local=local,
            credentials=credentials,
            transport=settings.transport,
            calls=settings.calls,
            service=self._service,
            on_up=on_up,
            on_down=on_down,
            on_message=on_message,
            observe=self._observe,
        )
        pool.set_peers(self._peers)
        listener = AgentListener(
            listening_address(self._config.address),
            self._config.port,
            local=local,
            credentials=credentials,
            transport=settings.transport,
            service=self._service,
            pool=pool,
        )
        await listener.open()
        self._listener = listener

    async def run(self) -> None:
        assert self._pool is not None
        await self._pool.run()

    async def check(self) -> str | None:
        if self._expires is not None and (reason := expiry_reason(self._expires, datetime.now(UTC))):
            return reason
        if not self._peers or self.connected:
            self._alone_since = None
            return None
        self._alone_since = self._alone_since or time.monotonic()
        return "no other node is reachable" if time.monotonic() - self._alone_since >= self._config.settings.membership.suspect else None

    async def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()

    def set_peers(self, peers: Mapping[str, PeerAddress]) -> None:
        """The nodes to be connected to."""
        if peers != self._peers:
            self._peers = peers
            if self._pool is not None:
                self._pool.set_peers(peers)

    def reconnect(self) -> None:
        """Break every connection and make it anew: what was on its way is lost for both ends, visibly."""
        if self._pool is not None:
            self._pool.set_peers({})
            self._pool.set_peers(self._peers)

    def send(self, peer: str, kind: str, payload: bytes) -> bool:
        return self._pool is not None and self._pool.send(peer, kind, payload)

    async def call(self, peer: str, method: Method[Req, Res], request: Req, *, timeout: float) -> Res:
        if self._pool is None:
            raise PeerUnreachable("this node is still starting", host=peer)
        return await self._pool.call(peer, method, request, timeout)

    @property
    def peers(self) -> frozenset[str]:
        """The nodes that we want to be connected to."""
        return frozenset(self._peers)

    @property
    def connected(self) -> frozenset[str]:
        return frozenset() if self._pool is None else self._pool.connected

    def reports(self) -> list[PeerReport]:
        return [] if self._pool is None else self._pool.reports()


def listening_address(address: str) -> str:
    """All addresses of the family of ours: operators may come by another than the other nodes do."""
    try:
        return "::" if ipaddress.ip_address(address).version == 6 else "0.0.0.0"  # noqa: S104 -- mutual TLS is what guards the port
    except ValueError:
        return "0.0.0.0"  # noqa: S104
