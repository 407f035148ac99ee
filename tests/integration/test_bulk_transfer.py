"""Content between real nodes on loopback: real TLS, real files, both event loops."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import uvloop
from bulk_nodes import BulkNodes, bulk_nodes

from hmcore.errors import BlobCorrupt, BlobMissing, HandshakeRefused, PeerUnreachable, TransportError
from hmcore.pki import Kind
from hmcore.stoq.bulk.frames import CHUNK
from hmcore.stoq.bulk.streams import FileSource, Read
from hmcore.stoq.mtls import Credentials

SIZE = 12 * CHUNK + 345
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(work)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(random.Random(7).randbytes(SIZE))  # always the same: who asks whom hangs on the digest
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def digest_of(path: Path) -> str:
    return f"sha256:{sha256(content(path)).hexdigest()}"


class Halting:
    """A file that is given up to `halt`, and from there on only once `go_on` is set."""

    def __init__(self, path: Path, halt: int) -> None:
        self._source = FileSource(path, size=len(content(path)))
        self._halt = halt
        self.go_on = asyncio.Event()
        self.size = self._source.size
        self.close = self._source.close

    def read(self, offset: int) -> asyncio.Future[Read]:
        return asyncio.ensure_future(self._read(offset))

    async def _read(self, offset: int) -> Read:
        if offset >= self._halt:
            await self.go_on.wait()
        return await self._source.read(offset)


async def put(nodes: BulkNodes, name: str, path: Path, *, digest: str = "", progress: Callable[[int], None] = lambda size: None) -> int:
    """Bytes sent."""
    client = await nodes.dial(name, nodes.credentials("anna", Kind.OPERATOR))
    async with client:
        source = FileSource(path, size=len(content(path)))
        try:
            await client.put(digest or digest_of(path), source, progress)
        finally:
            source.close()
        return client.sent


def test_content_goes_to_one_node_and_from_there_to_all(run: Run, tmp_path: Path, file: Path) -> None:
    async def work() -> None:
        async with bulk_nodes(tmp_path / "nodes", *(f"node{n}" for n in range(6))) as nodes:
            sent = await put(nodes, "node0", file)
            assert SIZE < sent < 1.05 * SIZE
            digest = digest_of(file)
            for first, second in (("node1", "node2"), ("node3", "node4"), ("node5", "node5")):
                have = [name for name, node in nodes.nodes.items() if node.store.has(digest)]
                async with asyncio.TaskGroup() as group:
                    for name in {first, second}:
                        group.create_task(nodes.nodes[name].fetcher.fetch({digest: SIZE}, have))
            for node in nodes.nodes.values():
                assert content(node.store.path(digest)) == content(file)
            assert len({of for _, of in nodes.dials}) > 1  # one did not serve all

    run(work())


def test_an_interrupted_transfer_resumes_at_another_node(run: Run, tmp_path: Path, file: Path) -> None:
    async def work() -> None:
        async with bulk_nodes(tmp_path / "nodes", "node0", "node1", "node2") as nodes:
            digest = digest_of(file)
            await put(nodes, "node0", file)
            await put(nodes, "node1", file)
            came = 0
            first: list[str] = []
            stopping: list[asyncio.Task[None]] = []

            def progress(size: int) -> None:
                nonlocal came
                came += size
                if came >= 4 * CHUNK and not first:  # kill whoever gives it
                    first.append(nodes.dials[-1][1])
                    stopping.append(asyncio.get_running_loop().create_task(nodes.stop(first[0])))

            await nodes.nodes["node2"].fetcher.fetch({digest: SIZE}, ("node0", "node1"), progress)
            await asyncio.gather(*stopping)
            assert content(nodes.nodes["node2"].store.path(digest)) == content(file)
            assert [of for _, of in nodes.dials] == [first[0], ({"node0", "node1"} - set(first)).pop()]
            assert came == SIZE  # no byte came twice

    run(work())


def test_an_upload_that_was_cut_off_resumes_even_after_the_node_restarted(run: Run, tmp_path: Path, file: Path) -> None:
    async def work() -> None:
        async with bulk_nodes(tmp_path / "nodes", "node0") as nodes:
            client = await nodes.dial("node0", nodes.credentials("anna", Kind.OPERATOR))
            source = Halting(file, 6 * CHUNK)
            store = nodes.nodes["node0"].store

            async def upload() -> None:
                with pytest.raises(TransportError):
                    async with client:
                        await client.put(digest_of(file), source)

            async with asyncio.TaskGroup() as group, asyncio.timeout(30):
                task = group.create_task(upload())
                while (await store.usage()).partial < 6 * CHUNK:  # noqa: ASYNC110 -- of the disk, which has no event
                    await asyncio.sleep(0.005)
                await nodes.stop("node0")
                source.go_on.set()
                await task
            await nodes.start("node0")
            there = (await nodes.nodes["node0"].store.usage()).partial
            assert there == 6 * CHUNK
            sent = await put(nodes, "node0", file)
            assert sent < 1.01 * (SIZE - there) + 4096
            assert content(nodes.nodes["node0"].store.path(digest_of(file))) == content(file)

    run(work())


def test_a_wrong_certificate_is_refused_by_either_end(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        strangers = BulkNodes(tmp_path / "strangers")
        async with bulk_nodes(tmp_path / "nodes", "node0") as nodes:
            theirs = strangers.credentials("anna", Kind.OPERATOR)
            with pytest.raises((HandshakeRefused, PeerUnreachable), match="accept"):
                await nodes.dial("node0", Credentials(nodes.authority.certificate, theirs.certificate, theirs.key))
            with pytest.raises(HandshakeRefused):
                await nodes.dial("node0", strangers.credentials("anna", Kind.OPERATOR))
            await (await nodes.dial("node0", nodes.credentials("anna", Kind.OPERATOR))).close()

    run(work())


def test_content_that_rotted_on_a_disk_is_not_taken_and_is_thrown_away_there(run: Run, tmp_path: Path, file: Path) -> None:
    async def work() -> None:
        async with bulk_nodes(tmp_path / "nodes", "node0", "node1", "node2") as nodes:
            digest = digest_of(file)
            await put(nodes, "node0", file)
            with nodes.nodes["node0"].store.path(digest).open("r+b") as rotten:
                rotten.seek(7 * CHUNK)
                rotten.write(b"rot")
            with pytest.raises(BlobMissing):
                await nodes.nodes["node1"].fetcher.fetch({digest: SIZE}, ("node0",))
            assert not nodes.nodes["node0"].store.has(digest)
            assert not nodes.nodes["node1"].store.has(digest)
            await put(nodes, "node0", file)
            await nodes.nodes["node1"].fetcher.fetch({digest: SIZE}, ("node0",))
            assert content(nodes.nodes["node1"].store.path(digest)) == content(file)

    run(work())


def test_a_file_that_is_something_else_is_refused_and_keeps_nobody_from_the_right_one(run: Run, tmp_path: Path, file: Path) -> None:
    async def work() -> None:
        other = tmp_path / "other"
        other.write_bytes(content(file)[:-1] + bytes([content(file)[-1] ^ 1]))
        async with bulk_nodes(tmp_path / "nodes", "node0") as nodes:
            with pytest.raises(BlobCorrupt):
                await put(nodes, "node0", other, digest=digest_of(file))
            assert not nodes.nodes["node0"].store.has(digest_of(file))
            await put(nodes, "node0", file)
            assert nodes.nodes["node0"].store.has(digest_of(file))

    run(work())
