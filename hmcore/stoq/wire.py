"""What carries a connection. Two kinds exist: quic.QuicWire and local.ByteWire."""

from __future__ import annotations

from typing import Protocol


class Wire(Protocol):
    """What carries a connection: numbered streams of bytes, each in order, both ways. It calls the connection's `wire_` methods."""

    @property
    def backlog(self) -> int:
        """Bytes written that the other end has not acknowledged."""

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds; None while unknown."""

    def write(self, stream: int, data: bytes, end: bool) -> None: ...

    def abort(self, stream: int) -> None: ...

    def hang_up(self, *, refused: bool, reason: str) -> None:
        """Send what was written as far as possible, say why, and stop. Calls nothing afterwards."""

    async def wait_released(self) -> None:
        """Until tasks and sockets of a wire that stopped are gone."""
