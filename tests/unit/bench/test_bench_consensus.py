"""The instruments of the benchmarks of consensus: a caller's errors are seen, and etcd is had or its absence is told."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import struct
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """The benchmarks are scripts, not a package. Importing them measures nothing."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def grpc(scripts):
    import consensus_grpc

    return consensus_grpc


@pytest.fixture(scope="module")
def etcd(scripts):
    import consensus_etcd

    return consensus_etcd


# --- callers


async def test_each_caller_has_one_call_under_way_and_all_are_counted(scripts):
    from consensus_load import load

    under_way, most = 0, 0

    async def call(number: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    found = await load(call, callers=5, seconds=0.05, servers=[os.getpid()])
    assert most == 5
    assert not found.failed
    assert list(found.latencies) == sorted(found.latencies)
    assert found.rate == pytest.approx(len(found.latencies) / found.seconds)
    assert found.at(0.5) <= found.at(0.99)


async def test_a_call_that_fails_is_no_latency_and_is_told(scripts):
    from consensus_load import load

    numbers = itertools.count()

    async def call(number: int) -> None:
        if next(numbers) % 2:
            raise ValueError("no")

    found = await load(call, callers=2, seconds=0.02, servers=())
    assert found.failed.keys() == {"ValueError: no"}
    assert abs(found.failed.total() - len(found.latencies)) <= 2


# --- etcd's gRPC


def answer(grpc, stream: int, body: bytes = b"\x0a\x00") -> bytes:
    message = b"\x00" + struct.pack(">I", len(body)) + body
    head = grpc.frame(grpc.HEADERS, grpc.END_HEADERS, stream, b"\x88")
    return head + grpc.frame(grpc.DATA, 0, stream, message) + grpc.frame(grpc.HEADERS, grpc.END_HEADERS | grpc.END_STREAM, stream, b"\x88")


class Server:
    """As much of HTTP/2 as it takes to answer, with what a test wants said to each call."""

    def __init__(self, grpc, say, window: int = 0) -> None:
        self.grpc = grpc
        self.say = say
        self.window = window
        self.calls: list[tuple[int, bytes]] = []
        self.acknowledged: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        grpc = self.grpc
        assert await reader.readexactly(len(grpc.PREFACE)) == grpc.PREFACE
        writer.write(grpc.frame(grpc.SETTINGS, 0, 0, b"") + grpc.frame(grpc.PING, 0, 0, b"12345678"))
        try:
            while True:
                head = await reader.readexactly(grpc.HEAD)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                stream = int.from_bytes(head[5:], "big")
                if head[3] in (grpc.SETTINGS, grpc.PING) and head[4] & grpc.ACK:
                    self.acknowledged.append(head[3])
                elif head[3] == grpc.DATA:
                    self.calls.append((stream, payload))
                    for piece in self.say(stream, payload):
                        writer.write(piece)
                        await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


async def served(grpc, say):
    server = Server(grpc, say)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    return server, listening, await grpc.connect(listening.sockets[0].getsockname()[1])


async def test_answers_find_their_callers_in_any_order_and_in_any_pieces(grpc):
    waiting: list[int] = []

    def say(stream: int, payload: bytes) -> list[bytes]:
        waiting.append(stream)
        if len(waiting) < 3:
            return []
        whole = b"".join(answer(grpc, each, b"to %d" % each) for each in reversed(waiting))
        return [whole[at : at + 7] for at in range(0, len(whole), 7)]

    server, listening, channel = await served(grpc, say)
    async with listening:
        message = grpc.put_request(b"key", b"v" * 200)
        answers = await asyncio.gather(*(channel.call(grpc.PUT, message) for _ in range(3)))
        assert answers == [b"to 1", b"to 3", b"to 5"]
        assert [payload for _, payload in server.calls] == [message] * 3
        assert set(server.acknowledged) == {grpc.SETTINGS, grpc.PING}
        channel.close()


@pytest.mark.parametrize("how", ["refused", "reset", "goes away", "gone"])
async def test_a_call_that_etcd_does_not_acknowledge_fails(grpc, how):
    def say(stream: int, payload: bytes) -> list[bytes]:
        match how:
            case "refused":
                return [grpc.frame(grpc.HEADERS, grpc.END_HEADERS | grpc.END_STREAM, stream, b"\x88")]
            case "reset":
                return [grpc.frame(grpc.RST_STREAM, 0, stream, b"\0\0\0\x07")]
            case "goes away":
                return [grpc.frame(grpc.GOAWAY, 0, 0, bytes(8) + b"too many pings")]
            case _:
                raise asyncio.IncompleteReadError(b"", None)

    _, listening, channel = await served(grpc, say)
    async with listening:
        with pytest.raises(grpc.CallFailed):
            async with asyncio.timeout(5):
                await channel.call(grpc.PUT, grpc.put_request(b"key", b"value"))
        channel.close()


async def test_no_more_is_sent_than_the_server_has_room_for(grpc):
    message = grpc.put_request(b"key", b"v" * 20_000)
    arrived = asyncio.Queue()

    def say(stream: int, payload: bytes) -> list[bytes]:
        arrived.put_nowait(stream)
        if stream < 5:
            return []
        room = grpc.frame(grpc.WINDOW_UPDATE, 0, 0, struct.pack(">I", 30_000))
        return [room, *(answer(grpc, each) for each in ((1, 3, 5) if stream == 5 else (stream,)))]

    server, listening, channel = await served(grpc, say)
    async with listening, asyncio.timeout(5), asyncio.TaskGroup() as calls:
        for number in range(4):
            calls.create_task(channel.call(grpc.PUT, message), name=f"call {number}")
        await arrived.get()
        assert channel._window < len(message)  # of 65,535 bytes: the fourth waits
        assert channel._next == 7
    assert [stream for stream, _ in server.calls] == [1, 3, 5, 7]
    channel.close()


def test_a_request_is_what_protocol_buffers_say(grpc):
    assert grpc.put_request(b"k", b"v" * 200) == b"\x00\x00\x00\x00\xce" + b"\x0a\x01k" + b"\x12\xc8\x01" + b"v" * 200
    assert grpc.range_request(b"k") == b"\x00\x00\x00\x00\x05\x0a\x01k\x38\x01"


# --- having etcd


def program(directory: Path, name: str, script: str) -> None:
    file = directory / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Where this test's own apt-get and dpkg-deb go, ahead of the machine's."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


UNPACK = 'mkdir -p "$3/usr/bin" && cp "$2" "$3/usr/bin/etcd"'


def test_the_package_is_fetched_once(etcd, programs, tmp_path):
    program(programs, "apt-get", f'echo "$1" >>{tmp_path}/asked; echo etcd >etcd-server_3.4_amd64.deb')
    program(programs, "dpkg-deb", UNPACK)
    kept = tmp_path / "kept" / "etcd"
    assert etcd.obtain(kept).read_text() == "etcd\n"
    assert etcd.obtain(kept) == kept / "usr/bin/etcd"
    assert (tmp_path / "asked").read_text() == "download\n"
    assert [each.name for each in kept.parent.iterdir()] == ["etcd"]


def test_old_lists_are_renewed(etcd, programs, tmp_path):
    fresh = tmp_path / "fresh"
    script = f'case "$1" in update) touch {fresh};; download) [ -e {fresh} ] || exit 100; echo etcd >etcd-server_3.4_amd64.deb;; esac'
    program(programs, "apt-get", script)
    program(programs, "dpkg-deb", UNPACK)
    assert etcd.obtain(tmp_path / "etcd").is_file()


def test_that_there_is_no_package_is_told_with_apts_own_words(etcd, programs, tmp_path):
    program(programs, "apt-get", 'echo "E: Unable to locate package etcd-server" >&2; exit 100')
    with pytest.raises(etcd.EtcdUnavailable, match="Unable to locate package"):
        etcd.obtain(tmp_path / "etcd")


def test_that_there_is_no_apt_is_told(etcd, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(etcd.EtcdUnavailable, match="no apt-get here"):
        etcd.obtain(tmp_path / "etcd")


def test_a_package_without_the_program_is_told(etcd, programs, tmp_path):
    program(programs, "apt-get", "echo etcd >etcd-server_3.4_amd64.deb")
    program(programs, "dpkg-deb", 'mkdir -p "$3"')
    with pytest.raises(etcd.EtcdUnavailable, match="holds no usr/bin/etcd"):
        etcd.obtain(tmp_path / "etcd")


def test_members_that_end_are_told_with_their_own_words(etcd, programs, tmp_path):
    program(programs, "etcd", "echo no such flag >&2; exit 2")
    members = etcd.Etcd(programs / "etcd", tmp_path)
    try:
        members.start()
        for member in members.members.values():
            member.process.wait(10)
        with pytest.raises(etcd.EtcdUnavailable, match="no such flag"):
            members.until_led()
    finally:
        members.stop()
