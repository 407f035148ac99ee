"""Bulk connections over real TLS on loopback: who gets in, and what comes through."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from bulk_shelf import Shelf, ShelfSink, WrongSource, content, digest, listening
from cryptography.x509.oid import ExtendedKeyUsageOID
from stoq_world import CLUSTER, World, identity, until

from hmcore.errors import (
    BlobBusy,
    BlobCorrupt,
    BlobMissing,
    BlobStoreFull,
    ConnectionLost,
    HandshakeRefused,
    HyperMeshError,
    InvalidRequest,
    NothingListens,
    PeerUnreachable,
    PermissionDenied,
    PkiError,
)
from hmcore.pki import Kind
from hmcore.stoq.bulk import server as server_module
from hmcore.stoq.bulk import tls, wire
from hmcore.stoq.bulk.client import BulkClient, connect
from hmcore.stoq.bulk.frames import CHUNK, Chunk, Done, Get, encode
from hmcore.stoq.bulk.server import BulkListener
from hmcore.stoq.bulk.streams import MemorySource
from hmcore.stoq.mtls import Credentials

SERVER = identity("node1")


async def dial(listener: BulkListener, credentials: Credentials) -> BulkClient:
    return await connect("127.0.0.1", listener.port, credentials=credentials, server=SERVER, timeout=10)


async def test_content_is_put_and_got(world: World) -> None:
    shelf, data = Shelf(), content(3.3)
    async with (
        listening(world.credentials("node1"), CLUSTER, shelf) as listener,
        await dial(listener, world.credentials("anna", Kind.OPERATOR)) as client,
    ):
        moved: list[int] = []
        assert await client.have([digest(data)]) == {}
        await client.put(digest(data), MemorySource(data), moved.append)
        assert shelf.contents == {digest(data): data}
        assert sum(moved) == len(data)
        assert await client.have([digest(b"other"), digest(data)]) == {digest(data): len(data)}
        sink = ShelfSink(digest(data), len(data))
        await client.get(digest(data), sink)
        assert sink.kept == data


async def test_empty_content_and_what_is_there_already_cost_nothing(world: World) -> None:
    shelf, data = Shelf(content(2)), content(2)
    async with (
        listening(world.credentials("node1"), CLUSTER, shelf) as listener,
        await dial(listener, world.credentials("node2")) as client,
    ):
        await client.put(digest(data), MemorySource(data))
        await client.put(digest(b""), MemorySource(b""))
        assert client.sent < 1000
        assert digest(b"") in shelf.contents


async def test_content_is_gone_on_with_from_where_it_was_interrupted(world: World) -> None:
    shelf, data = Shelf(), content(8)

    def fail(offset: int) -> None:
        if offset == 3 * CHUNK:
            raise BlobStoreFull("for now")

    shelf.fail = fail
    async with listening(world.credentials("node1"), CLUSTER, shelf) as listener:
        async with await dial(listener, world.credentials("node2")) as client:
            with pytest.raises(BlobStoreFull, match="for now"):
                await client.put(digest(data), MemorySource(data))
        shelf.fail = lambda offset: None
        await until(lambda: not shelf.busy)
        async with await dial(listener, world.credentials("node2")) as client:
            await client.put(digest(data), MemorySource(data))
            assert shelf.contents[digest(data)] == data
            assert client.sent < 5.1 * CHUNK
        got = ShelfSink(digest(data), len(data), bytearray(data[: 5 * CHUNK]))
        async with await dial(listener, world.credentials("node2")) as client:
            await client.get(digest(data), got)
        assert got.kept == data


async def test_a_corrupt_chunk_is_refused_by_either_end_and_all_is_begun_anew(world: World) -> None:
    shelf, data = Shelf(), content(4)
    async with listening(world.credentials("node1"), CLUSTER, shelf) as listener:
        async with await dial(listener, world.credentials("node2")) as client:
            with pytest.raises(BlobCorrupt):
                await client.put(digest(data), WrongSource(data, 2 * CHUNK))
        await until(lambda: not shelf.busy)
        assert shelf.contents == {}
        assert shelf.partial[digest(data)].restarts == 1
        async with await dial(listener, world.credentials("node2")) as client:
            await client.put(digest(data), MemorySource(data))
        await until(lambda: digest(data) in shelf.contents)
        shelf.wrong = CHUNK
        sink = ShelfSink(digest(data), len(data))
        async with await dial(listener, world.credentials("node2")) as client:
            with pytest.raises(BlobCorrupt):
                await client.get(digest(data), sink)
        assert (sink.kept, sink.finished) == (b"", False)


async def test_content_under_another_name_is_refused(world: World) -> None:
    shelf, data = Shelf(), content(1.5)
    async with listening(world.credentials("node1"), CLUSTER, shelf) as listener:
        async with await dial(listener, world.credentials("node2")) as client:
            with pytest.raises(BlobCorrupt):
                await client.put(digest(b"another"), MemorySource(data))
        await until(lambda: not shelf.busy)
        assert shelf.contents == {}


async def test_what_is_not_there_and_what_is_busy_is_said_and_the_connection_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(1)
    shelf = Shelf(data)
    async with (
        listening(world.credentials("node1"), CLUSTER, shelf) as listener,
        await dial(listener, world.credentials("node2")) as client,
    ):
        with pytest.raises(BlobMissing):
            await client.get(digest(b"no"), ShelfSink(digest(b"no"), 2))
        monkeypatch.setattr(server_module, "GIVING", 0)
        with pytest.raises(BlobBusy):
            await client.get(digest(data), ShelfSink(digest(data), len(data)))
        await client.doubt(digest(data))
        assert shelf.doubted == [digest(data)]
        monkeypatch.setattr(server_module, "GIVING", 1)
        sink = ShelfSink(digest(data), len(data))
        await client.get(digest(data), sink)
        assert sink.finished


async def test_content_of_another_size_than_was_said_is_missing(world: World) -> None:
    data = content(1)
    async with (
        listening(world.credentials("node1"), CLUSTER, Shelf(data)) as listener,
        await dial(listener, world.credentials("node2")) as client,
    ):
        with pytest.raises(BlobMissing, match="bytes"):
            await client.get(digest(data), ShelfSink(digest(data), len(data) + 1))


@pytest.mark.parametrize("who", ["stranger", "expired", "early", "nobody", "another usage"])
async def test_whom_the_node_does_not_know_gets_nowhere(world: World, who: str) -> None:
    shelf = Shelf(content(1))
    shown = {
        "stranger": lambda: world.strange("node2"),
        "expired": lambda: world.expired("node2"),
        "early": lambda: world.early("node2"),
        "nobody": lambda: world.credentials("node2"),
        "another usage": lambda: world.with_usage("node2", ExtendedKeyUsageOID.SERVER_AUTH),
    }[who]()
    setup = tls.context(shown, serving=False)
    if who == "nobody":
        setup = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        setup.load_verify_locations(cadata=world.authority.certificate.decode())
        setup.set_alpn_protocols([tls.ALPN])
    async with listening(world.credentials("node1"), CLUSTER, shelf) as listener:
        with pytest.raises((HandshakeRefused, PermissionDenied, PeerUnreachable)) as refused:
            await connect("127.0.0.1", listener.port, credentials=shown, server=SERVER, timeout=10, setup=setup)
        assert not isinstance(refused.value, NothingListens)
        assert "no answer" not in refused.value.message


@pytest.mark.parametrize("who", ["stranger", "expired", "another node", "operator", "another usage"])
async def test_a_node_that_is_another_is_not_spoken_to(world: World, who: str) -> None:
    shown = {
        "stranger": lambda: world.strange("node1"),
        "expired": lambda: world.expired("node1"),
        "another node": lambda: world.credentials("node3"),
        "operator": lambda: world.credentials("node1", Kind.OPERATOR),
        "another usage": lambda: world.with_usage("node1", ExtendedKeyUsageOID.CLIENT_AUTH),
    }[who]()
    async with listening(shown, CLUSTER, Shelf(content(1))) as listener:
        with pytest.raises(HandshakeRefused):
            await dial(listener, world.credentials("node2"))


async def test_viewers_may_nothing_and_a_node_that_is_no_member_neither(world: World) -> None:
    async with listening(
        world.credentials("node1"), CLUSTER, Shelf(), admit=lambda who: f"{who} is no member" if who.name == "node9" else None
    ) as listener:
        with pytest.raises(PermissionDenied, match="viewer vera"):
            await dial(listener, world.credentials("vera", Kind.VIEWER))
        with pytest.raises(PermissionDenied, match="no member"):
            await dial(listener, world.credentials("node9"))
        await (await dial(listener, world.credentials("node2"))).close()


async def test_a_name_alone_is_not_enough_our_own_check_is_made_too(world: World) -> None:
    """OpenSSL finds nothing wrong with the certificate of another cluster's node that this CA has signed."""
    async with listening(world.credentials("node1"), CLUSTER, Shelf()) as listener:
        with pytest.raises(PermissionDenied, match="belongs to cluster"):
            await dial(listener, world.credentials("node2", cluster="hm-another"))


async def test_a_peer_has_so_many_connections_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_PER_PEER", 1)
    async with listening(world.credentials("node1"), CLUSTER, Shelf()) as listener:
        first = await dial(listener, world.credentials("node2"))
        with pytest.raises(PermissionDenied, match="connections"):
            await dial(listener, world.credentials("node2"))
        await (await dial(listener, world.credentials("node3"))).close()
        await first.close()
        await until(lambda: not listener._peers.total())
        await (await dial(listener, world.credentials("node2"))).close()


async def test_nobody_there_and_nobody_answering_are_told_apart(world: World) -> None:
    credentials = world.credentials("node2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(PeerUnreachable, match="no answer within"):
            await connect("127.0.0.1", port, credentials=credentials, server=SERVER, timeout=0.2)
    with pytest.raises(NothingListens):
        await connect("127.0.0.1", port, credentials=credentials, server=SERVER)


async def test_bytes_that_are_no_question_end_the_connection_and_nothing_else(world: World) -> None:
    async with listening(world.credentials("node1"), CLUSTER, Shelf()) as listener:
        for bad in (b"\xff" * 100, encode(Done()), encode(Chunk(1, bytes(32))) + b"x", b"\x00\x00\x00\x00"):
            client = await dial(listener, world.credentials("node2"))
            await client._wire._write(bad)
            with pytest.raises((ConnectionLost, InvalidRequest)):
                await client._wire.answer()
            await client.close()
        client = await dial(listener, world.credentials("node2"))
        await client._wire.send(Get(digest(b"x"), 5))
        with pytest.raises(HyperMeshError):
            await client._wire.answer()
        await client.close()
        await (await dial(listener, world.credentials("node2"))).close()


async def test_an_end_that_stops_reading_is_given_up_and_holds_little(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "STALL", 0.3)
    data = content(64)
    async with listening(world.credentials("node1"), CLUSTER, Shelf(data)) as listener:
        client = await dial(listener, world.credentials("node2"))
        await client._wire.send(Get(digest(data)))
        await until(lambda: not client._wire._reading)  # full, and nobody takes anything
        assert client._wire.received < 8 * CHUNK
        await until(lambda: not listener._peers.total())
        await client.close()


async def test_a_listener_that_closes_ends_what_is_under_way(world: World) -> None:
    data = content(64)
    async with listening(world.credentials("node1"), CLUSTER, Shelf(data)) as listener:
        client = await dial(listener, world.credentials("node2"))
        sink = ShelfSink(digest(data), len(data))
        arrived = asyncio.Event()
        sink.fail = lambda offset: arrived.set()
        async with asyncio.TaskGroup() as group:

            async def get() -> None:
                with pytest.raises(ConnectionLost):
                    await client.get(digest(data), sink)

            group.create_task(get())
            await arrived.wait()
            await listener.close()
        assert CHUNK <= len(sink.kept) < len(data)
        await client.close()


def test_credentials_that_are_none_are_refused(world: World) -> None:
    good = world.credentials("node1")
    for bad in (
        Credentials(b"", good.certificate, good.key),
        Credentials(b"nonsense", good.certificate, good.key),
        Credentials(good.ca, b"nonsense", good.key),
        Credentials(good.ca, good.certificate, world.credentials("node2").key),
    ):
        with pytest.raises(PkiError):
            tls.context(bad, serving=True)
