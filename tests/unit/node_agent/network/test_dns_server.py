"""The name server over real sockets on loopback: our names, others' names, garbage, and what it can be made to hold."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from dns_talk import question, read

from hmcore.errors import LayerDown
from node_agent.network import dns, upstream
from node_agent.network.dns import NameServer
from node_agent.network.names import Directory, Replica, Service
from node_agent.network.upstream import Upstream, nameservers

OWN = "127.0.0.1"
WEB = Service("shop", "web", {}, tuple(Replica(slot, f"127.0.1.{slot}") for slot in range(1, 101)))
ASKER = ("shop", "web")


class Resolver(asyncio.DatagramProtocol):
    """Somebody else's server. `behave`: gets a query and says what is answered."""

    def __init__(self, behave):
        self.behave = behave
        self.asked = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.asked.append(data)
        for answer in self.behave(data):
            self.transport.sendto(answer, addr)


def reply(data, address=b"\xc0\0\2\1"):
    """A good answer: one address."""
    head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0)
    return head + data[12:] + b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 300, 4) + address


@contextlib.asynccontextmanager
async def resolver(behave, host="127.0.0.9", port=0) -> AsyncIterator[tuple[Resolver, int]]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Resolver(behave), local_addr=(host, port))
    try:
        yield protocol, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def serving(tmp_path, port=9, servers=("127.0.0.9",), subnet="127.0.0.0/8", directory=None, known=None) -> AsyncIterator[NameServer]:
    path = tmp_path / "resolv.conf"
    path.write_text("".join(f"nameserver {each}\n" for each in servers))
    fixed = directory or Directory("127.0.1.0/24", [WEB], {OWN: ASKER})
    server = NameServer(OWN, subnet, known or (lambda: fixed), Upstream("127.0.0.53", path=path, port=port), port=0)
    server.open()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.serve(), name="serve")
        try:
            yield server
        finally:
            task.cancel()
            server.close()


async def ask(server, data, wait=5.0):
    """The answer by UDP."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.bind((OWN, 0))
        await loop.sock_connect(client, (OWN, server.port))
        await loop.sock_sendall(client, data)
        async with asyncio.timeout(wait):
            return await loop.sock_recv(client, 65_535)


async def test_our_names_are_answered_with_what_fits(tmp_path):
    async with serving(tmp_path) as server:
        plain = await ask(server, question("web", number=99))
        assert len(plain) <= 512
        found = read(plain)
        assert (found.number, found.code, found.truncated) == (99, 0, False)
        assert len(found.addresses) >= 20
        larger = read(await ask(server, question("web", size=1232)))
        assert len(larger.addresses) > 60
        assert read(await ask(server, question("nobody"))).code == 3
        six = read(await ask(server, question("web", 28)))
        assert (six.code, six.addresses, six.remembered) == (0, [], 1)
        assert read(await ask(server, question("7.1.0.127.in-addr.arpa", 12))).names == ["shop-web-7"]


async def test_answers_begin_with_different_replicas(tmp_path):
    async with serving(tmp_path) as server:
        firsts = {read(await ask(server, question("web"))).addresses[0] for _ in range(20)}
    assert len(firsts) > 3


async def test_by_tcp_all_are_told_in_one_connection(tmp_path):
    async with serving(tmp_path) as server:
        reader, writer = await asyncio.open_connection(OWN, server.port, local_addr=(OWN, 0))
        for _ in range(2):
            data = question("web")
            writer.write(struct.pack(">H", len(data)) + data)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            assert len(read(await reader.readexactly(length)).addresses) == 100
        writer.close()
        await writer.wait_closed()


async def test_others_names_are_asked_for_with_an_id_of_our_own(tmp_path):
    async with resolver(lambda data: [reply(data)]) as (other, port), serving(tmp_path, port) as server:
        for number in range(5):
            found = read(await ask(server, question("example.org", number=number)))
            assert (found.number, found.addresses) == (number, ["192.0.2.1"])
        assert {data[:2] for data in other.asked} != {struct.pack(">H", number) for number in range(5)}
        assert all(data[2:] == question("example.org")[2:] for data in other.asked)


async def test_an_answer_to_something_else_is_not_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(upstream, "PATIENCE", 0.2)

    def forge(data):
        wrong_id = bytes([data[0] ^ 1]) + data[1:]
        return [reply(wrong_id, b"\6\6\6\6")]

    async with resolver(forge) as (_, port), serving(tmp_path, port) as server:
        assert read(await ask(server, question("example.org"))).code == 2
        assert server.failed == 1

    def other_question(data):
        return [reply(question("example.net", number=struct.unpack(">H", data[:2])[0]), b"\6\6\6\6")]

    async with resolver(other_question) as (_, port), serving(tmp_path, port) as server:
        assert read(await ask(server, question("example.org"))).code == 2


async def test_a_resolver_that_is_silent_or_not_there_is_followed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(upstream, "PATIENCE", 0.2)
    async with resolver(lambda data: [reply(data)]) as (_, port), resolver(lambda data: [], "127.0.0.8", port) as (mute, _):
        async with serving(tmp_path, port, ("127.0.0.7", "127.0.0.8", "127.0.0.9")) as server:
            assert read(await ask(server, question("example.org"))).addresses == ["192.0.2.1"]
        assert len(mute.asked) == 1


async def test_nobody_upstream_is_said_before_docker_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr(upstream, "ALTOGETHER", 0.5)
    async with resolver(lambda data: []) as (_, port), serving(tmp_path, port) as server:
        assert read(await ask(server, question("example.org"), wait=2.0)).code == 2


async def test_others_names_by_tcp_are_asked_for_by_tcp(tmp_path):
    seen = []

    async def answer(reader, writer):
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        data = await reader.readexactly(length)
        seen.append(data)
        found = reply(data)
        writer.write(struct.pack(">H", len(found)) + found)
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.9", 0)
    port = other.sockets[0].getsockname()[1]
    async with other, serving(tmp_path, port) as server:
        reader, writer = await asyncio.open_connection(OWN, server.port, local_addr=(OWN, 0))
        data = question("example.org")
        writer.write(struct.pack(">H", len(data)) + data)
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        assert read(await reader.readexactly(length)).addresses == ["192.0.2.1"]
        writer.close()
        await writer.wait_closed()
    assert len(seen) == 1


async def test_strangers_are_refused(tmp_path):
    async with serving(tmp_path, subnet="127.0.1.0/24") as server:
        assert read(await ask(server, question("web"))).code == 5
        assert read(await ask(server, question("example.org"))).code == 5


async def test_who_is_not_known_yet_has_the_answer_once_it_is_known_who_asks(tmp_path):
    """A container asks as soon as it runs, and a job that cannot find its database has failed."""
    directories, looked = [Directory("127.0.1.0/24", [WEB], {})], asyncio.Semaphore(0)

    def known() -> Directory:
        looked.release()
        return directories[0]

    async with serving(tmp_path, known=known) as server, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(ask(server, question("web", number=7)))
        large = tasks.create_task(server.answer(question("web"), OWN, tcp=True))
        for _ in range(2):
            await looked.acquire()
        server.renewed()  # of something else
        for _ in range(2):
            await looked.acquire()
        assert not first.done()
        directories[0] = Directory("127.0.1.0/24", [WEB], {OWN: ASKER})
        server.renewed()
        assert read(await first).addresses
        assert len(read(await large).addresses) == 100


async def test_who_comes_to_be_known_to_nobody_is_told_to_ask_again(tmp_path, monkeypatch):
    monkeypatch.setattr(dns, "HOLD", 0.05)
    async with serving(tmp_path, directory=Directory("127.0.1.0/24", [WEB], {})) as server:
        assert read(await ask(server, question("web"))).code == 2


async def test_garbage_harms_nobody(tmp_path):
    async with serving(tmp_path) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((OWN, 0))
            for data in (b"", b"x", b"\xff" * 600, question("web")[:-1], b"\0" * 12):
                client.sendto(data, (OWN, server.port))
        for data in (b"\0\0", b"\xff\xffabc", b"\0\x05hello"):
            reader, writer = await asyncio.open_connection(OWN, server.port, local_addr=(OWN, 0))
            writer.write(data)
            writer.write_eof()
            assert await reader.read() in (b"",)
            writer.close()
            await writer.wait_closed()
        assert read(await ask(server, question("web"))).code == 0


async def test_only_so_many_questions_wait_and_ours_are_answered_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(dns, "WAITING", 4)
    monkeypatch.setattr(upstream, "PATIENCE", 60)
    monkeypatch.setattr(upstream, "ALTOGETHER", 60)
    async with resolver(lambda data: []) as (other, port), serving(tmp_path, port) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((OWN, 0))
            for number in range(20):
                client.sendto(question("example.org", number=number), (OWN, server.port))
            assert read(await ask(server, question("example.org"))).code == 2  # at once
        assert read(await ask(server, question("web"))).code == 0
        assert len(other.asked) <= 4


async def test_an_idle_connection_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(dns, "CONNECTIONS", 1)
    monkeypatch.setattr(dns, "IDLE", 0.2)
    async with serving(tmp_path) as server:
        _, idle = await asyncio.open_connection(OWN, server.port, local_addr=(OWN, 0))
        reader, writer = await asyncio.open_connection(OWN, server.port, local_addr=(OWN, 0))
        data = question("web")
        writer.write(struct.pack(">H", len(data)) + data)
        async with asyncio.timeout(5):
            assert len(await reader.readexactly(2)) == 2
        for each in (idle, writer):
            each.close()
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()


async def test_a_port_that_is_taken_is_named(tmp_path):
    async with serving(tmp_path) as server:
        second = NameServer(OWN, "127.0.0.0/8", lambda: Directory("127.0.0.0/8", [], {}), Upstream(OWN), port=server.port)
        with pytest.raises(LayerDown, match=rf"names cannot be served on UDP 127.0.0.1:{server.port}") as refused:
            second.open()
        assert f"sport = :{server.port}" in (refused.value.fix or "")


def test_the_address_may_come_later():
    """Docker makes the bridge; the agent does not wait for it."""
    server = NameServer("198.18.255.1", "198.18.255.0/24", lambda: Directory("198.18.0.0/16", [], {}), Upstream("198.18.255.1"), port=0)
    server.open()
    server.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", ("192.0.2.1", "2001:db8::1")),
        ("# x\nsearch a b\nnameserver\t192.0.2.1 # c\noptions ndots:0", ("192.0.2.1",)),
        (
            "nameserver 1.1.1.1\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4",
            ("1.1.1.1", "2.2.2.2", "3.3.3.3"),
        ),
        ("nameserver here\nnameserver\n;nameserver 1.1.1.1", ("127.0.0.1",)),
        ("", ("127.0.0.1",)),
    ],
)
def test_resolvers_are_read_as_the_c_library_does(text, found):
    assert nameservers(text) == found


def test_the_file_is_looked_at_again_and_we_are_never_our_own_resolver(tmp_path):
    path = tmp_path / "resolv.conf"
    others = Upstream("10.210.0.1", path=path)
    assert others.resolvers(0.0) == ("127.0.0.1",)  # not there
    path.write_text("nameserver 10.210.0.1\nnameserver 192.0.2.1")
    assert others.resolvers(1.0) == ("127.0.0.1",)
    assert others.resolvers(5.0) == ("192.0.2.1",)
