"""STOQ over QUIC, the dialing end: from the first packet to a node that has welcomed us, or the reason why not, in words that an operator
can act on: nothing is there, it does not answer, or one of the two ends refused the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hmcore.errors import AnotherNode, ConnectionLost, FrameError, HandshakeRefused, HyperMeshError, NothingListens, PeerUnreachable
from hmcore.pki import Identity
from hmcore.stoq.connection import Connection
from hmcore.stoq.greeting import Dialer, Local
from hmcore.stoq.mtls import Credentials, configuration
from hmcore.stoq.outbox import HIGH_WATER
from hmcore.stoq.quic import SILENCE, Callbacks, outgoing
from hmcore.stoq.service import Service
from hmcore.stoq.session import Session
from hmcore.stoq.udp import Dialled


async def dial(
    host: str,
    port: int,
    *,
    credentials: Credentials,
    local: Local,
    server: Identity,
    service: Service | None = None,
    timeout: float,
    on_connection: Callable[[Connection], None] | None = None,
    high_water: int = HIGH_WATER,
    silence: float = SILENCE,
) -> Connection:
    """Connect to the node `server` at UDP `host`:`port`; back when it has welcomed us.

    Raises PeerUnreachable (nothing there, no answer, it is closing) or HandshakeRefused with the reason, whichever end refused.
    `service` answers what the node calls on us; `on_connection` is called before anything of that is delivered.
    """
    setup = configuration(credentials, server=server)
    protocol = Dialled()
    made: list[Connection] = []
    over: asyncio.Future[HyperMeshError | None] = asyncio.get_running_loop().create_future()

    def opened(connection: Connection) -> None:
        if on_connection is not None:
            on_connection(connection)
        if not over.done():
            over.set_result(None)

    def established(_identity: Identity) -> Connection:
        session = Session(Dialer(local, expected=server))
        made.append(Connection(session, service, high_water=high_water, on_open=opened))
        return made[0]

    def stopped(error: HyperMeshError) -> None:
        protocol.close()
        if not over.done():
            over.set_result((made[0].failure if made else None) or error)

    where = f"UDP {host}:{port}"
    settled = False
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: protocol, remote_addr=(host, port))
            callbacks = Callbacks(protocol.send, established, stopped)
            protocol.wire = outgoing(setup, credentials.ca, callbacks, cluster=local.identity.cluster, server=server, silence=silence)
            protocol.wire.dial(protocol.address)
            failure = await over
        settled = failure is None
    except TimeoutError as error:
        heard = protocol.wire is not None and protocol.wire.heard
        what = "answered, but the handshake did not end" if heard else "no answer"
        raise PeerUnreachable(f"{where}: {what} within {timeout:g} s", host=server.name) from error
    except OSError as error:
        raise PeerUnreachable(f"{where}: {error.strerror or error}", host=server.name) from error
    finally:
        if not settled:  # also when the deadline passed in the very turn in which the welcome came
            if protocol.wire is not None:
                protocol.wire.fail(ConnectionLost("the dialer gave up"))
            protocol.close()
    match failure:
        case None:
            return made[0]
        case AnotherNode(message=message, found=found):
            raise AnotherNode(message, found=found, host=server.name) from failure
        case HandshakeRefused(message=message) | FrameError(message=message):
            raise HandshakeRefused(message, host=server.name) from failure
        case NothingListens():
            raise NothingListens(f"{where}: {failure.message}", host=server.name) from failure
        case _:
            raise PeerUnreachable(f"{where}: {failure.message}", host=server.name) from failure
