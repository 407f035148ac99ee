"""The store of content: whatever happens, and whenever, what has a right name has the right content."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.digests import hex_of
from hmcore.errors import BlobBusy, BlobCorrupt, BlobError, BlobMissing, BlobStoreFull, HyperMeshError, InvalidRequest
from hmcore.stoq.bulk.frames import CHUNK, MARK
from node_agent.transport import partial
from node_agent.transport.blobs import BlobStore, Held, disposable

SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5)
DATA = {size: os.urandom(size) for size in SIZES}
DIGEST = {size: f"sha256:{sha256(data).hexdigest()}" for size, data in DATA.items()}


class Store(BlobStore):
    """`now`: what its clock says."""

    def __init__(self, folder: Path, *, reserve: int = 0) -> None:
        self.now = 1e9
        super().__init__(folder, reserve=reserve, clock=lambda: self.now)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


async def opened(folder: Path, **more: int) -> Store:
    store = Store(folder, **more)
    await store.open()
    return store


def chunks(data: bytes, offset: int = 0) -> Iterator[tuple[bytearray, bytes]]:
    reached = sha256(data[:offset])
    for at in range(offset, len(data), CHUNK):
        piece = data[at : at + CHUNK]
        reached.update(piece)
        yield bytearray(piece), reached.digest()


async def put(store: BlobStore, data: bytes, digest: str | None = None, stop: int | None = None) -> int:
    """Bytes that were sent. Stops before chunk number `stop`."""
    digest = digest or f"sha256:{sha256(data).hexdigest()}"
    sink = await store.receive(digest, len(data))
    if sink is None:
        return 0
    sent = 0
    try:
        for number, (content, mark) in enumerate(chunks(data, sink.offset), start=sink.offset // CHUNK):
            if number == stop:
                return sent
            await sink.add(content, mark)
            sent += len(content)
        await sink.finish()
    finally:
        await store.leave(digest)
    return sent


async def got(store: BlobStore, digest: str) -> bytes:
    source = await store.source(digest)
    try:
        found, reached = b"", sha256()
        while len(found) < source.size:
            content, mark = await source.read(len(found))
            reached.update(content)
            assert reached.digest() == mark
            found += content
        return found
    finally:
        source.close()


def whole_are_right(folder: Path) -> bool:
    return all(sha256(path.read_bytes()).hexdigest() == path.name for path in folder.iterdir() if path.is_file() and not path.suffix)


@pytest.mark.parametrize("size", SIZES)
async def test_content_comes_in_and_goes_out_also_after_a_restart(folder: Path, size: int) -> None:
    store = await opened(folder)
    assert await put(store, DATA[size]) == size
    assert await got(store, DIGEST[size]) == DATA[size]
    assert await put(store, DATA[size]) == 0
    again = await opened(folder)
    assert again.sizes([DIGEST[size], "sha256:" + "0" * 64]) == [size, None]
    assert await got(again, DIGEST[size]) == DATA[size]
    usage = await again.usage()
    assert (usage.blobs, usage.bytes, usage.partial) == (1, size, 0)


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
async def test_what_was_interrupted_is_gone_on_with_also_after_a_restart(folder: Path, stop: int) -> None:
    data = DATA[3 * CHUNK + 5]
    assert await put(await opened(folder), data, stop=stop) == stop * CHUNK
    store = await opened(folder)
    assert (await store.usage()).partial == stop * CHUNK
    assert await put(store, data) == len(data) - stop * CHUNK
    assert await got(store, DIGEST[len(data)]) == data


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(
    stop=st.integers(0, 4),
    which=st.sampled_from(["content", "marks"]),
    cut=st.integers(0, 4 * CHUNK),
    flip=st.integers(0, 4 * CHUNK),
    longer=st.integers(0, 2000),
)
def test_a_partial_that_a_crash_mangled_counts_as_far_as_it_is_good(stop: int, which: str, cut: int, flip: int, longer: int) -> None:
    data = DATA[3 * CHUNK + 5]

    async def run() -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            await put(await opened(folder), data, stop=stop)
            path = folder / "partial" / (hex_of(DIGEST[len(data)]) + (".marks" if which == "marks" else ""))
            if path.exists():  # it was not whole yet
                mangled = bytearray(path.read_bytes())
                before = bytes(mangled)
                if mangled:
                    mangled[flip % len(mangled)] ^= 0xFF
                del mangled[cut:]
                mangled += bytes(longer)
                path.write_bytes(mangled)
                good = next((i for i, (a, b) in enumerate(zip(before, mangled, strict=False)) if a != b), min(len(before), len(mangled)))
                unit = MARK if which == "marks" else CHUNK
                store = await opened(folder)
                sink = await store.receive(DIGEST[len(data)], len(data))
                assert sink is not None
                assert sink.offset == min(good // unit, len(before) // unit) * CHUNK
                await store.leave(DIGEST[len(data)])
            store = await opened(folder)
            await put(store, data)
            assert await got(store, DIGEST[len(data)]) == data
            assert whole_are_right(folder)

    asyncio.run(run())


@pytest.mark.long
@settings(max_examples=120, deadline=None)
@given(st.data())
def test_faults_at_any_moment_never_leave_wrong_content_under_a_right_name(data: st.DataObject) -> None:
    """Disks that fail, in any call; senders that send something else, or stop; tasks that are cancelled; then agents that start again."""
    size = data.draw(st.sampled_from(SIZES))
    wanted, digest = DATA[size], DIGEST[size]

    async def run() -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for _ in range(data.draw(st.integers(1, 3))):
                store = await opened(folder)
                other = bytearray(wanted)
                if other and data.draw(st.booleans()):
                    other[data.draw(st.integers(0, size - 1))] ^= 1
                with failing(data.draw(st.none() | st.integers(0, 12)), data.draw(st.sampled_from([errno.ENOSPC, errno.EIO]))):
                    stop = data.draw(st.none() | st.integers(0, 4))
                    limit = data.draw(st.none() | st.sampled_from([0.0, 0.001, 0.003]))
                    try:
                        async with asyncio.timeout(limit):
                            await put(store, bytes(other), digest, stop)
                    except (HyperMeshError, TimeoutError):
                        pass
                    while store._sinks:  # noqa: ASYNC110 -- of foreign objects, which have no event
                        await asyncio.sleep(0.001)
                assert whole_are_right(folder)
                store.close()
            store = await opened(folder)
            try:
                await put(store, wanted)
            except BlobCorrupt:  # what a wrong sender left; whoever brings it begins anew (streams.fill)
                sink = await store.receive(digest, size)
                assert sink is not None
                await sink.restart()
                await store.leave(digest)
                await put(store, wanted)
            assert await got(store, digest) == wanted
            store.close()

    asyncio.run(run())


class failing:
    """Of the calls to the disk that the store makes, the one with this number fails."""

    CALLS = ("pwrite", "fdatasync", "rename", "ftruncate", "open", "fsync")

    def __init__(self, number: int | None, code: int) -> None:
        self._left = number
        self._code = code
        self._real = {name: getattr(os, name) for name in self.CALLS}

    def __enter__(self) -> None:
        self._old = partial.os
        partial.os = self  # type: ignore[assignment]

    def __exit__(self, *args: object) -> None:
        partial.os = self._old

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in self.CALLS:
            return real

        def call(*args: object, **more: object) -> object:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self._left = None
                    raise OSError(self._code, os.strerror(self._code))
            return real(*args, **more)

        return call


async def test_a_full_disk_is_said_and_what_came_is_removed(folder: Path) -> None:
    data = DATA[3 * CHUNK + 5]
    store = await opened(folder)
    sink = await store.receive(DIGEST[len(data)], len(data))
    assert sink is not None
    (first, mark), (second, next_mark), *_ = chunks(data)
    await sink.add(first, mark)
    with failing(0, errno.ENOSPC), pytest.raises(BlobStoreFull):
        await sink.add(second, next_mark)
    await store.leave(DIGEST[len(data)])
    assert list((folder / "partial").iterdir()) == []
    await put(store, data)


async def test_room_is_kept_for_the_journal_and_for_what_was_promised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await opened(folder, reserve=10 * CHUNK)
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=14 * CHUNK))
    with pytest.raises(BlobStoreFull, match="kept free"):
        await store.receive(DIGEST[1], 5 * CHUNK)
    assert await store.receive(DIGEST[1], 3 * CHUNK) is not None
    with pytest.raises(BlobStoreFull):
        await store.receive(DIGEST[CHUNK], 2 * CHUNK)
    await store.leave(DIGEST[1])
    assert await store.receive(DIGEST[CHUNK], 2 * CHUNK) is not None
    await store.leave(DIGEST[CHUNK])


async def test_one_brings_it_at_a_time_and_others_can_wait(folder: Path) -> None:
    store = await opened(folder)
    assert await store.receive(DIGEST[1], 1) is not None
    with pytest.raises(BlobBusy):
        await store.receive(DIGEST[1], 1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(store.settled())
        await asyncio.sleep(0)
        await store.leave(DIGEST[1])
        await waiting
    assert await put(store, DATA[1]) == 1


async def test_content_of_another_size_or_no_digest_is_refused(folder: Path) -> None:
    store = await opened(folder)
    await put(store, DATA[1])
    with pytest.raises(InvalidRequest):
        await store.receive(DIGEST[1], 2)
    with pytest.raises(InvalidRequest):
        await store.receive("../x", 2)


async def test_damage_on_the_disk_is_found_and_thrown_away(folder: Path) -> None:
    size = 3 * CHUNK + 5
    store = await opened(folder)
    await put(store, DATA[size])
    assert await store.examine(DIGEST[size])
    path = folder / hex_of(DIGEST[size])
    with path.open("r+b") as file:
        file.seek(CHUNK)
        file.write(b"rot")
    source = await store.source(DIGEST[size])
    content, mark = await source.read(CHUNK)
    assert sha256(DATA[size][:CHUNK] + bytes(content)).digest() != mark  # whoever takes it notices
    source.close()
    assert not await store.examine(DIGEST[size])
    assert store.sizes([DIGEST[size]]) == [None]
    assert not path.exists()
    with pytest.raises(BlobMissing):
        await store.source(DIGEST[size])


@pytest.mark.parametrize("marks", [None, b"", b"x" * MARK, b"x" * 4 * MARK])
async def test_marks_that_a_crash_took_are_made_anew(folder: Path, marks: bytes | None) -> None:
    size = 3 * CHUNK + 5
    await put(await opened(folder), DATA[size])
    path = folder / f"{hex_of(DIGEST[size])}.marks"
    path.unlink()
    if marks is not None:
        path.write_bytes(marks)
    store = await opened(folder)
    assert await got(store, DIGEST[size]) == DATA[size]
    assert len(path.read_bytes()) == 4 * MARK


async def test_content_that_vanished_is_missing_not_a_crash(folder: Path) -> None:
    store = await opened(folder)
    await put(store, DATA[1])
    (folder / hex_of(DIGEST[1])).unlink()
    with pytest.raises(BlobMissing):
        await store.source(DIGEST[1])


async def test_what_nobody_refers_to_goes_once_it_is_not_fresh(folder: Path) -> None:
    store = await opened(folder)
    for size in (1, CHUNK):
        await put(store, DATA[size])
    await put(store, DATA[3 * CHUNK], stop=2)
    assert await store.collect(set(), fresh=60) == 0
    store.now += 100
    store.sizes([DIGEST[CHUNK]])  # somebody wants it
    assert await store.collect({DIGEST[1]}, fresh=60) == 0
    store.now += 100
    freed = await store.collect({DIGEST[1]}, fresh=60)
    assert freed == CHUNK
    os.utime(folder / "partial" / hex_of(DIGEST[3 * CHUNK]), (0, 0))
    assert await store.collect({DIGEST[1]}, fresh=60) == 2 * CHUNK
    assert store.sizes([DIGEST[1], DIGEST[CHUNK]]) == [1, None]
    assert not (folder / hex_of(DIGEST[CHUNK])).exists()
    assert whole_are_right(folder)


@given(st.dictionaries(st.text("ab", max_size=3), st.floats(0, 10)), st.sets(st.text("ab", max_size=3)), st.floats(0, 10))
def test_disposable_is_what_is_neither_kept_nor_fresh(used: dict[str, float], keep: set[str], before: float) -> None:
    gone = disposable({name: Held(1, when) for name, when in used.items()}, keep, before)
    assert set(gone) == {name for name, when in used.items() if name not in keep and when < before}


async def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlobError):
        await opened(tmp_path / "file" / "blobs")
