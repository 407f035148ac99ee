"""The UDP sockets under QUIC: one for all that a listener hears, and one for each connection that we dial."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

from hmcore.stoq.quic import Address, QuicWire

SOCKET_BUFFER = 4 * 1024 * 1024


async def bound(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`:`port`. Raises OSError."""
    loop = asyncio.get_running_loop()
    info = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE))[0]
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(contextlib.closing(socket.socket(info[0], info[1], info[2])))
        sock.setblocking(False)
        enlarge(sock)
        sock.bind(info[4])
        undo.pop_all()
    return sock


class Dialled(asyncio.DatagramProtocol):
    """The socket of one dialled connection: connected, so that the kernel reports when nothing listens at the other end."""

    def __init__(self) -> None:
        self.wire: QuicWire | None = None
        self.transport: asyncio.DatagramTransport | None = None
        self.address: Address = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.address = transport.get_extra_info("peername")
        enlarge(transport.get_extra_info("socket"))

    def send(self, data: bytes, _address: Address) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.sendto(data)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if self.wire is not None:
            self.wire.receive(data, self.address)

    def error_received(self, exc: Exception) -> None:
        if self.wire is not None:
            self.wire.suspect(exc)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def enlarge(sock: socket.socket) -> None:
    """Ask for room for bursts; the kernel grants what net.core.rmem_max allows."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


def place(address: Address) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
