"""The port on which others reach this node: nodes become peers of the pool, operators and viewers call."""

from __future__ import annotations

from hmcore.config.settings import Transport
from hmcore.pki import Kind
from hmcore.stoq.endpoint import Connection, Credentials, Listener, Local, Peer, Service, serve
from node_agent.transport.pool import Answers, Pool


class AgentListener:
    """Listens on UDP `host`:`port` from `open` to `close`. `service` answers calls; it decides who may make which."""

    def __init__(
        self, host: str, port: int, *, local: Local, credentials: Credentials, transport: Transport, service: Service, pool: Pool
    ) -> None:
        self._host = host
        self._port = port
        self._local = local
        self._credentials = credentials
        self._transport = transport
        self._service = service
        self._pool = pool
        self._listener: Listener | None = None

    @property
    def port(self) -> int:
        """The port listened on; differs from the one asked for when that was 0."""
        return self._listener.port if self._listener is not None else self._port

    async def open(self) -> None:
        """Raises TransportError when the port cannot be had."""
        self._listener = await serve(
            self._host,
            self._port,
            credentials=self._credentials,
            local=self._local,
            service=Answers(self._service, self._pool),
            on_connection=self._accepted,
            admit=self._admit,
            high_water=self._transport.high_water_bytes,
        )

    async def close(self) -> None:
        """Close the port and every connection made through it; peers are told."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()

    def _admit(self, peer: Peer) -> str | None:
        return self._pool.admit(peer) if peer.identity.kind is Kind.NODE else None

    def _accepted(self, connection: Connection) -> None:
        if connection.peer.identity.kind is Kind.NODE:
            self._pool.accepted(connection)
