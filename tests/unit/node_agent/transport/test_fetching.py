"""Fetching from other nodes that fail, lie, have it not, or have too much to do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from hmcore.errors import BlobBusy, BlobCorrupt, BlobMissing, BlobStoreFull, ConnectionLost, PeerUnreachable
from hmcore.stoq.bulk.frames import CHUNK
from hmcore.stoq.bulk.streams import Progress, Sink
from node_agent.transport import fetching
from node_agent.transport.blobs import BlobStore
from node_agent.transport.fetching import Fetcher

DATA = os.urandom(4 * CHUNK + 7)
OTHER = bytes([DATA[0] ^ 1]) + DATA[1:]
DIGEST = f"sha256:{sha256(DATA).hexdigest()}"
SIZES = {DIGEST: len(DATA)}


class Node:
    """What one node does when it is asked: `gives` says so, chunk by chunk."""

    def __init__(
        self, data: bytes = DATA, *, unreachable: bool = False, fail: Callable[[int], Exception | None] = lambda offset: None
    ) -> None:
        self.data = data
        self.unreachable = unreachable
        self.fail = fail
        self.asked: list[int] = []
        self.doubted: list[str] = []

    async def get(self, digest: str, sink: Sink, progress: Progress) -> None:
        self.asked.append(sink.offset)
        reached = sha256(self.data[: sink.offset])
        try:
            while sink.offset < sink.size:
                if (error := self.fail(sink.offset)) is not None:
                    raise error
                piece = bytearray(self.data[sink.offset : sink.offset + CHUNK])
                reached.update(piece)
                await sink.add(piece, reached.digest())
                progress(len(piece))
            await sink.finish()
        except BlobCorrupt:
            await sink.restart()  # as streams.fill does
            raise

    async def doubt(self, digest: str) -> None:
        self.doubted.append(digest)

    async def __aenter__(self) -> Node:
        return self

    async def __aexit__(self, *args: object) -> None:
        return None


async def fetch(tmp_path: Path, nodes: dict[str, Node], holders: str = "", moved: list[int] | None = None) -> BlobStore:
    store = BlobStore(tmp_path / "blobs", reserve=0)
    await store.open()

    async def dial(name: str) -> Node:
        if nodes[name].unreachable:
            raise PeerUnreachable("nobody there", host=name)
        return nodes[name]

    fetcher = Fetcher("me", store, nodes=lambda: nodes, dial=dial, chance=lambda: 0.0)
    await fetcher.fetch(SIZES, holders.split(), (moved if moved is not None else []).append)
    assert store.path(DIGEST).read_bytes() == DATA
    return store


def after(offset: int, error: Callable[[], Exception], *, times: int = 1) -> Callable[[int], Exception | None]:
    left = [times]

    def fail(at: int) -> Exception | None:
        if at >= offset and left[0]:
            left[0] -= 1
            return error()
        return None

    return fail


def lost() -> ConnectionLost:
    return ConnectionLost("it died")


async def test_another_goes_on_where_one_failed(tmp_path: Path) -> None:
    one, other = Node(fail=after(2 * CHUNK, lost)), Node()
    moved: list[int] = []
    await fetch(tmp_path, {"a": one, "b": other}, "a", moved)
    assert (one.asked, other.asked) == ([0], [2 * CHUNK])
    assert sum(moved) == len(DATA)


async def test_who_has_it_not_and_who_is_not_there_are_passed_over(tmp_path: Path) -> None:
    nodes = {"a": Node(fail=after(0, lambda: BlobMissing("not here"))), "b": Node(unreachable=True), "c": Node()}
    await fetch(tmp_path, nodes, "a b")
    assert nodes["c"].asked == [0]


async def test_nobody_has_it_says_why_of_each(tmp_path: Path) -> None:
    nodes = {"a": Node(fail=after(0, lambda: BlobMissing("not here"))), "b": Node(unreachable=True)}
    with pytest.raises(BlobMissing, match="a: not here; b: nobody there"):
        await fetch(tmp_path, nodes)
    with pytest.raises(BlobMissing, match="no other node"):
        await fetch(tmp_path, {})


async def test_a_busy_node_is_asked_again_when_the_others_cannot_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BUSY", (0.0, 0.0))
    nodes = {"a": Node(fail=after(0, lambda: BlobBusy("busy"), times=3)), "b": Node(fail=after(0, lambda: BlobMissing("not here")))}
    await fetch(tmp_path, nodes, "a")
    assert nodes["a"].asked == [0, 0, 0, 0]
    assert nodes["b"].asked == [0]


async def test_when_all_stay_busy_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BUSY", (0.0, 0.0))
    monkeypatch.setattr(fetching, "PATIENCE", 0.05)
    with pytest.raises(BlobBusy, match="busy"):
        await fetch(tmp_path, {"a": Node(fail=lambda offset: BlobBusy("busy"))})


async def test_who_sends_something_else_is_told_and_not_asked_again(tmp_path: Path) -> None:
    liar, other = Node(OTHER), Node()
    await fetch(tmp_path, {"a": liar, "b": other}, "a")
    assert (liar.asked, liar.doubted, other.asked, other.doubted) == ([0], [DIGEST], [0], [])


async def test_a_wrong_beginning_is_not_blamed_on_who_goes_on_honestly(tmp_path: Path) -> None:
    """Its marks fit what it sends: only the next node's show that something is wrong."""
    liar, honest = Node(OTHER, fail=after(2 * CHUNK, lost, times=100)), Node()
    await fetch(tmp_path, {"a": liar, "b": honest}, "a")
    assert honest.asked == [2 * CHUNK, 0]
    assert honest.doubted == []
    assert liar.asked == [0]


async def test_a_wrong_beginning_from_before_is_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(BlobMissing):
        await fetch(tmp_path, {"a": Node(OTHER, fail=after(2 * CHUNK, lost, times=100))})
    honest = Node()
    await fetch(tmp_path, {"b": honest})
    assert honest.asked == [2 * CHUNK, 0]


async def test_what_came_stays_for_the_next_time(tmp_path: Path) -> None:
    with pytest.raises(BlobMissing):
        await fetch(tmp_path, {"a": Node(fail=after(3 * CHUNK, lost, times=100))})
    node = Node()
    await fetch(tmp_path, {"a": node})
    assert node.asked == [3 * CHUNK]


async def test_our_full_disk_ends_it_another_ones_does_not(tmp_path: Path) -> None:
    nodes = {"a": Node(fail=after(0, lambda: BlobStoreFull("theirs", host="a"))), "b": Node()}
    await fetch(tmp_path / "1", nodes, "a")
    with pytest.raises(BlobStoreFull, match="ours"):
        await fetch(tmp_path / "2", {"a": Node(fail=after(0, lambda: BlobStoreFull("ours"))), "b": Node()}, "a")


async def test_two_who_want_the_same_at_once_take_it_once(tmp_path: Path) -> None:
    node = Node()
    store = BlobStore(tmp_path / "blobs", reserve=0)
    await store.open()

    async def dial(name: str) -> Node:
        return node

    fetcher = Fetcher("me", store, nodes=lambda: ["a"], dial=dial)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(fetcher.fetch(SIZES, ()))
    assert node.asked == [0]


async def test_whoever_is_cancelled_leaves_it_to_the_next(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", reserve=0)
    await store.open()
    reached = asyncio.Event()

    class Slow(Node):
        async def get(self, digest: str, sink: Sink, progress: Progress) -> None:
            reached.set()
            await asyncio.get_running_loop().create_future()

    nodes: dict[str, Node] = {"a": Slow()}

    async def dial(name: str) -> Node:
        return nodes[name]

    fetcher = Fetcher("me", store, nodes=lambda: nodes, dial=dial)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(fetcher.fetch(SIZES, ()))
        await reached.wait()
        second = group.create_task(fetcher.fetch(SIZES, ()))
        await asyncio.sleep(0)
        nodes["a"] = Node()
        first.cancel()
        await second
    assert store.has(DIGEST)
    assert fetcher._loads.total() == 0
