"""The least that a caller of etcd can be: unary gRPC calls over one HTTP/2 connection, written for a benchmark.

The client shares two cores with the servers that it measures: what it costs is taken from them. A complete gRPC client for Python takes
several times what etcd itself does for a call, and etcd's JSON gateway makes every call two calls in the server. Hence this: what is sent
is put together once per caller, and of an answer only what tells success from failure is looked at (RFC 9113; gRPC over HTTP/2).
A call that fails in the server is answered without a message (`Trailers-Only`), so nothing of HPACK need be read.
"""

from __future__ import annotations

import asyncio
import struct
from typing import cast

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
HEAD = 9  # bytes before a frame's payload
WIDE = 2**31 - 1 - 65535  # what may be sent to us beyond what is allowed at first: more than a run sends
FIRST_WINDOW = 65535
ANSWER_LIMIT = 16 * 1024
PUT, RANGE = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"


class CallFailed(Exception):
    """etcd did not acknowledge the call."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def headers(path: str, authority: str) -> bytes:
    """The header block of a call, in HPACK without any state."""

    def text(value: str) -> bytes:
        raw = value.encode()
        assert len(raw) < 127
        return bytes([len(raw)]) + raw

    content_type = b"\x0f\x10" + text("application/grpc")
    return b"\x83\x86\x04" + text(path) + b"\x01" + text(authority) + content_type + b"\x00" + text("te") + text("trailers")


def put_request(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest as a gRPC message."""
    return _message(b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value)


def range_request(key: bytes) -> bytes:
    """etcdserverpb.RangeRequest as a gRPC message: one key, `serializable`, which is what the member itself holds."""
    return _message(b"\x0a" + _varint(len(key)) + key + b"\x38\x01")


def _message(body: bytes) -> bytes:
    return b"\x00" + struct.pack(">I", len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Channel(asyncio.Protocol):
    """Calls over one connection. Made by `connect`."""

    def __init__(self, authority: str) -> None:
        self._headers = {path: headers(path, authority) for path in (PUT, RANGE)}
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._next = 1
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._messages: dict[int, bytes] = {}
        self._window = FIRST_WINDOW  # bytes that we may still send
        self._room: asyncio.Future[None] | None = None
        self._lost: CallFailed | None = None

    async def call(self, path: str, message: bytes) -> bytes:
        """The answer's message. Raises CallFailed."""
        while self._window < len(message) and self._lost is None:
            self._room = self._room or self._loop.create_future()
            await asyncio.shield(self._room)
        if self._lost is not None:
            raise self._lost
        stream, self._next = self._next, self._next + 2
        self._window -= len(message)
        answer = self._calls[stream] = self._loop.create_future()
        assert self._transport is not None
        self._transport.write(frame(HEADERS, END_HEADERS, stream, self._headers[path]) + frame(DATA, END_STREAM, stream, message))
        try:
            return await answer
        finally:
            self._calls.pop(stream, None)
            self._messages.pop(stream, None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # loops do not inherit it
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WIDE)))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        start, size = 0, len(buffer)
        while size - start >= HEAD:
            length = int.from_bytes(buffer[start : start + 3], "big")
            end = start + HEAD + length
            if size < end:
                break
            stream = int.from_bytes(buffer[start + 5 : start + HEAD], "big") & 0x7FFFFFFF
            self._take(buffer[start + 3], buffer[start + 4], stream, buffer[start + HEAD : end])
            start = end
        self._buffer = buffer[start:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection is gone: {exc or 'closed'}")

    # inside

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == DATA:
            message = self._messages[stream] = self._messages.get(stream, b"") + payload
            if len(message) > ANSWER_LIMIT:
                self._fail(stream, "the answer is too long")
        elif kind == HEADERS:
            if flags & END_STREAM:
                self._ended(stream)
        elif kind == RST_STREAM:
            self._fail(stream, f"reset with {int.from_bytes(payload, 'big')}")
        elif kind == SETTINGS and not flags & ACK:
            self._transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
            if self._room is not None:
                self._room.set_result(None)
                self._room = None
        elif kind == GOAWAY:
            self._end(f"it goes away: {payload[8:].decode(errors='replace')}")

    def _ended(self, stream: int) -> None:
        message = self._messages.get(stream, b"")
        if len(message) <= 5:
            self._fail(stream, "refused")
        elif (call := self._calls.get(stream)) is not None and not call.done():
            call.set_result(message[5:])

    def _fail(self, stream: int, why: str) -> None:
        if (call := self._calls.get(stream)) is not None and not call.done():
            call.set_exception(CallFailed(why))

    def _end(self, why: str) -> None:
        self._lost = self._lost or CallFailed(why)
        for stream in list(self._calls):
            self._fail(stream, why)
        if self._room is not None:
            self._room.set_result(None)
            self._room = None


async def connect(port: int) -> Channel:
    """A channel to 127.0.0.1:`port`. Raises OSError."""
    authority = f"127.0.0.1:{port}"
    _, channel = await asyncio.get_running_loop().create_connection(lambda: Channel(authority), "127.0.0.1", port)
    return channel
