"""What anyone may throw at a listener, and what a peer gone wrong may: the one connection ends, with a reason; the listener goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from stoq_world import CLUSTER, PATIENCE, Recorder, World, dialled, identity, listening, local, network, pair, until

from hmcore.errors import FrameError, HandshakeRefused, PeerUnreachable
from hmcore.stoq import endpoint, quota, session, window
from hmcore.stoq.connection import Connection
from hmcore.stoq.frames import Ask, Call, Drop, Hello, Item, Open, Said, encode

HELLO = Hello(1, 1, CLUSTER, "n2", "control", "r1")


@contextlib.asynccontextmanager
async def thrower(port: int) -> AsyncIterator[asyncio.DatagramTransport]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port))
    try:
        yield transport
    finally:
        transport.close()


def first_packet(data: bytes = b"") -> bytes:
    """A valid first packet of a QUIC client, each with its own connection id."""
    setup = QuicConfiguration(is_client=True, alpn_protocols=["stoq/1"], server_name="n1")
    quic = QuicConnection(configuration=setup)
    quic.connect(("127.0.0.1", 1), now=0.0)
    [(datagram, _), *_] = quic.datagrams_to_send(now=0.0)
    return datagram


async def test_random_datagrams_are_ignored(world: World) -> None:
    chance = random.Random(1)
    async with pair(world, Recorder()) as (connection, listener), thrower(listener.port) as transport:
        for _ in range(300):
            size = chance.choice([0, 1, 5, 20, 1200, 1400])
            junk = chance.randbytes(size)
            transport.sendto(junk)
            transport.sendto(bytes([0xC0 | chance.randrange(64)]) + b"\0\0\0\1" + junk)  # a long header of QUIC 1
            transport.sendto(b"\xc0\xfa\xce\xb0\x0c\x08" + junk.ljust(1200, b"\1"))  # of a version nobody knows
            transport.sendto(b"\x40" + next(iter(listener._wires)) + junk)  # to a connection that exists
            await asyncio.sleep(0)
        assert await connection.call("echo", b"unmoved", timeout=PATIENCE) == b"unmoved"
        assert listener.handshakes == 0


async def test_damaged_first_packets_are_ignored(world: World) -> None:
    chance = random.Random(2)
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener, thrower(listener.port) as transport:
        for _ in range(40):
            packet = bytearray(first_packet())
            for _ in range(chance.randrange(1, 20)):
                packet[chance.randrange(len(packet))] ^= 1 << chance.randrange(8)
            transport.sendto(bytes(packet))
            await asyncio.sleep(0)
        async with dialled(listener.port, world.credentials("n2"), local("n2")) as connection:
            assert await connection.call("echo", b"unmoved", timeout=PATIENCE) == b"unmoved"


async def test_an_unknown_quic_version_is_answered_with_ours(world: World) -> None:
    class Ear(asyncio.DatagramProtocol):
        heard = b""

        def datagram_received(self, data: bytes, addr: object) -> None:
            self.heard = data

    async with listening(world.credentials("n1"), Recorder()) as listener:
        loop = asyncio.get_running_loop()
        transport, ear = await loop.create_datagram_endpoint(Ear, remote_addr=("127.0.0.1", listener.port))
        transport.sendto((b"\xc0\xfa\xce\xb0\x0c\x08" + os.urandom(8) + b"\0").ljust(1200, b"\0"))
        await until(lambda: ear.heard)
        assert ear.heard[1:5] == bytes(4)
        assert ear.heard.endswith(b"\0\0\0\1")
        transport.sendto(b"\xc0\0\0\0\0" + b"\x08" + os.urandom(8) + b"\0" + b"\0\0\0\1" * 300)  # a version negotiation: never answered
        transport.close()


async def test_a_first_packet_too_small_is_ignored(world: World) -> None:
    """Otherwise a forged sender address would be sent more than the forger spent (RFC 9000 section 8.1)."""
    small = b"\xc0\0\0\0\1\x08" + os.urandom(8) + b"\x08" + os.urandom(8) + b"\0\x40\x64" + os.urandom(100)
    async with pair(world, Recorder()) as (connection, listener), thrower(listener.port) as transport:
        for _ in range(10):
            transport.sendto(small)
        await connection.call("echo", b"", timeout=PATIENCE)
        assert listener.handshakes == 0


async def test_one_peer_gets_only_so_many_connections(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_PER_PEER", 1)
    async with pair(world, Recorder()) as (_, listener):
        await until(lambda: listener.connections)
        with pytest.raises(HandshakeRefused, match="node n2 has 1 connections already"):
            async with dialled(listener.port, world.credentials("n2"), local("n2")):
                pass
        async with dialled(listener.port, world.credentials("n3"), local("n3")):
            pass


async def test_half_open_handshakes_are_bounded_and_others_still_get_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PROVE_ADDRESS_FROM", 8)
    monkeypatch.setattr(endpoint, "MAX_HANDSHAKES", 12)
    async with listening(world.credentials("n1"), Recorder()) as listener, thrower(listener.port) as transport:
        for _ in range(60):
            transport.sendto(first_packet())
        await until(lambda: listener.handshakes == 8)  # from here on the flood is asked to prove its address, and cannot
        async with dialled(listener.port, world.credentials("n2"), local("n2")) as connection:
            assert await connection.call("echo", b"through", timeout=PATIENCE) == b"through"
        assert listener.handshakes <= 12


async def test_a_full_listener_ignores_new_handshakes(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint, "MAX_HANDSHAKES", 2)
    async with listening(world.credentials("n1"), Recorder()) as listener, thrower(listener.port) as transport:
        for _ in range(5):
            transport.sendto(first_packet())
        await until(lambda: "too many connections" in caplog.text)
        assert listener.handshakes == 2
        assert caplog.text.count("too many") == 1  # strangers do not fill our log


async def test_a_handshake_that_never_ends_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint, "HANDSHAKE_TIMEOUT", 0.1)
    async with listening(world.credentials("n1"), Recorder()) as listener, thrower(listener.port) as transport:
        transport.sendto(first_packet())
        await until(lambda: "the handshake took over 0.1 s" in caplog.text)
        assert listener.handshakes == 0
        assert listener._wires == {}


async def test_a_peer_that_never_says_hello_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HANDSHAKE_TIMEOUT", 0.3)
    monkeypatch.setattr(session.Session, "take_writes", lambda self: [])
    async with listening(world.credentials("n1"), Recorder()) as listener:
        with pytest.raises(PeerUnreachable):
            async with dialled(listener.port, world.credentials("n2"), local("n2")):
                pass
        assert listener.handshakes == 0
        assert listener.connections == frozenset()


BROKEN: dict[str, tuple[list[tuple[int, bytes, bool]], str]] = {
    "oversized": ([(400, b"\xff\xff\xff\xff", False)], "16777216 at most"),
    "truncated": ([(400, encode(Call("echo", b"body"))[:-2], True)], "ended within a frame"),
    "random": ([(400, random.Random(3).randbytes(4) * 50, False)], "at most"),
    "no frame": ([(400, b"\0\0\0\3\xc1\xc1\xc1", False)], "not a frame"),
    "wrong kind": ([(400, encode(Item(b"")), True)], "item where none may be"),
    "empty stream": ([(400, b"", True)], "before it said anything"),
    "second hello": ([(400, encode(HELLO), True)], "hello where none may be"),
    "second lane": ([(400, encode(Ask(1, "echo", b"")), False)], "a second lane"),
    "repeated call": ([(4, encode(Ask(1, "echo", b"")), False)], "call 1 after call 1"),
    "call dropped that was never made": ([(4, encode(Drop(7)), False)], "call 7 was dropped, which was never made"),
    "answer to nobody": ([(400, encode(Said(1, b"")), True)], "an answer to call 1, which was never made"),
    "too many calls": ([(4, b"".join(encode(Ask(number, "wait", b"")) for number in range(2, 1027)), False)], "over 1024 calls at once"),
    "end of the lane": ([(4, b"", True)], "a lane ended"),
    "flood": (
        [(400, encode(Open("deaf")), False)] + [(400, encode(Item(bytes(300_000))), False)] * 3,
        "more messages than there was credit for",
    ),
}


@pytest.mark.parametrize(("said", "reason"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_peer_that_breaks_the_protocol_loses_its_connection_and_only_it(
    said: list[tuple[int, bytes, bool]], reason: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "WINDOW", 400_000)
    service = Recorder(hold=asyncio.Event())
    failures: list[object] = []

    def watch(connection: Connection) -> None:
        connection.on_closed(lambda c: failures.append(c.failure))

    async with (
        listening(world.credentials("n1"), service, on_connection=watch) as listener,
        dialled(listener.port, world.credentials("n3"), local("n3")) as bystander,
        dialled(listener.port, world.credentials("n2"), local("n2")) as culprit,
    ):
        await culprit.call("echo", b"", timeout=PATIENCE)  # on its lane, stream 4
        for stream, data, end in said:
            culprit._wire.write(stream, data, end)  # type: ignore[union-attr]
        await until(lambda: failures)
        [failure] = failures
        assert isinstance(failure, FrameError)
        assert reason in failure.message
        await culprit.wait_closed()
        assert "you broke the protocol" in culprit.reason
        assert await bystander.call("echo", b"unmoved", timeout=PATIENCE) == b"unmoved"


async def test_a_frame_that_trickles_and_stops_ends_its_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "STALL", 0.1)
    async with pair(world, Recorder()) as (connection, listener):
        await connection.call("echo", b"", timeout=PATIENCE)
        [accepted] = listener.connections
        for byte in encode(Call("echo", b"body"))[:5]:
            connection._wire.write(400, bytes([byte]), False)  # type: ignore[union-attr]
            await asyncio.sleep(0)
        await accepted.wait_closed()
        assert "incomplete" in accepted.reason


async def test_packets_replayed_to_the_listener_change_nothing(world: World) -> None:
    service = Recorder()
    async with listening(world.credentials("n1"), service) as listener, network(listener.port) as relay:
        copies: list[bytes] = []
        receive = relay.datagram_received

        def twice(data: bytes, addr: object) -> None:
            copies.append(data)
            receive(data, addr)
            receive(data, addr)

        relay.datagram_received = twice  # type: ignore[method-assign]
        async with dialled(relay.port, world.credentials("n2"), local("n2")) as connection:
            for number in range(20):
                assert await connection.call("echo", b"%d" % number, timeout=PATIENCE) == b"%d" % number
        assert [body for _, _, body in service.calls] == [b"%d" % number for number in range(20)]
        assert copies


async def test_names_are_the_certificates_not_the_callers(world: World) -> None:
    async with pair(world, Recorder()) as (_, listener):
        await until(lambda: listener.connections)
        [accepted] = listener.connections
        assert accepted.peer.identity == identity("n2")
