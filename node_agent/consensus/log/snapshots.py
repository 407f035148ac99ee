"""Snapshots of the state machine: their file, and the sending and receiving that pysyncobj's Serializer does.

A snapshot is never loaded silently when broken: checksum, format and contents are checked before anything depends on it. It is durable
before pysyncobj hears of it, and so before the journal lets go of the entries that it covers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import google_crc32c
import msgspec
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node

from hmcore.errors import ConsensusError, StorageFull
from hmcore.records import Configuration
from node_agent.consensus import codec
from node_agent.consensus.log.disk import TEMPORARY, Disk, damaged, replace, storage_error
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.log.journal import Anchor
from node_agent.consensus.log.writing import Writing

SNAPSHOT = "snapshot"

_HEADER = struct.Struct(">4sHII")  # magic, format, length and CRC32C of the body
_BYTES = struct.Struct(">BI")  # msgpack's bin 32: what stands before bytes
_NO_BYTES = b"\xc4\x00"
_MAGIC = b"HMSN"
_FORMAT = 1


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the state machine held after `last` was applied. `previous` is the entry before it: the compacted log begins there.

    `voters`, `learners`: the configuration as of `last`, made by the entry at log index `configured`; 0: as the cluster was formed.
    """

    previous: Entry
    last: Entry
    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    configured: int = 0
    state: bytes  # the last: see `assemble`

    @property
    def configuration(self) -> Configuration:
        return Configuration(voters=self.voters, learners=self.learners, index=self.configured)

    @property
    def anchor(self) -> Anchor:
        return Anchor(self.previous, self.last, self.configuration)


_decoder: msgspec.msgpack.Decoder[Snapshot] = msgspec.msgpack.Decoder(Snapshot)


def pack(snapshot: Snapshot) -> bytes:
    body = msgspec.msgpack.encode(snapshot)
    return _HEADER.pack(_MAGIC, _FORMAT, len(body), google_crc32c.value(body)) + body


def assemble(snapshot: Snapshot, state: list[bytes]) -> list[bytes]:
    """What `pack` makes of `snapshot` with `state` for its own empty one, in pieces that are not copied."""
    head = msgspec.msgpack.encode(snapshot)
    assert head.endswith(_NO_BYTES)
    body = [head.removesuffix(_NO_BYTES) + _BYTES.pack(0xC6, sum(map(len, state))), *state]
    return [_HEADER.pack(_MAGIC, _FORMAT, sum(map(len, body)), checksum(body)), *body]


def checksum(pieces: Iterable[bytes]) -> int:
    """The CRC32C of all pieces together."""
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
    return crc


def unpack(data: bytes) -> Snapshot:
    """Raises ValueError, saying what is wrong."""
    if len(data) < _HEADER.size:
        raise ValueError("the snapshot ends early")
    magic, version, length, checksum = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != _MAGIC or version != _FORMAT:
        raise ValueError(f"not a snapshot of format {_FORMAT}")
    if len(body) != length or google_crc32c.value(body) != checksum:
        raise ValueError("the snapshot's checksum does not hold")
    try:
        return codec.read(_decoder, body)
    except msgspec.DecodeError as error:
        raise ValueError(f"the snapshot cannot be read: {error}") from error


@dataclass(slots=True)
class _Sending:
    data: bytes
    position: int = 0
    before: int = 0  # position before the chunk that was handed out last


class Machine(Protocol):
    """Whose state it is. `verify` and `restore` raise ValueError for bytes that `capture` did not make, ReleaseTooOld for
    those that a later release made."""

    def capture(self) -> Iterator[bytes]:
        """The state as of now, in pieces that are made one by one: what comes before all of them, `seal` says."""

    def seal(self, pieces: list[bytes]) -> bytes: ...
    def verify(self, state: bytes) -> None: ...
    def restore(self, state: bytes) -> None: ...


class History(Protocol):
    """Where the configurations are: the journal. `base_on` hears that of a snapshot which takes the log's place."""

    def configuration_at(self, index: int) -> Configuration: ...
    def base_on(self, configuration: Configuration) -> None: ...


class SnapshotStore:
    """Stands in for pysyncobj's Serializer (engine.install), whose own never fsyncs and swallows what goes wrong.

    What fails is kept: `failure` is final and must stop the node, since pysyncobj goes on as if nothing had happened; `full` can be
    waited out.
    """

    def __init__(self, disk: Disk, machine: Machine, configurations: History, *, chunk: int = 256 << 10, portion: int = 1 << 20) -> None:
        """Bytes: a snapshot is sent in chunks, and written in portions."""
        self._portion = portion
        self._writing: Writing | None = None
        self._disk = disk
        self._machine = machine
        self._configurations = configurations
        self._chunk = chunk
        self._finished: int | None = None  # SERIALIZER_STATE of a snapshot that pysyncobj has not asked about yet
        self._covers = 0
        self._exists = False
        self.size = 0  # bytes of the latest snapshot that was read, made or taken
        self._sending: dict[str, _Sending] = {}
        self.failure: ConsensusError | None = None
        self.full: StorageFull | None = None
        self.postponed = False  # pysyncobj shall not try to store a snapshot for the moment

    @property
    def path(self) -> str:
        return self._disk.path(SNAPSHOT)

    def load(self) -> Snapshot | None:
        """The snapshot on disk, if there is one. Raises StorageDamaged."""
        try:
            self._disk.remove(SNAPSHOT + TEMPORARY)
            data = self._disk.read(SNAPSHOT)
        except OSError as error:
            raise storage_error(error, self.path) from error
        if data is None:
            return None
        self._exists, self.size = True, len(data)
        try:
            return unpack(data)
        except ValueError as error:
            raise damaged(self.path, 0, str(error)) from error

    @property
    def exists(self) -> bool:
        """Whether there was a snapshot at `load`, or one was stored since."""
        return self._exists

    def judge(self, data: bytes) -> Snapshot | None:
        """A snapshot that a peer sent, or None if it is none that we could load. Raises ReleaseTooOld."""
        try:
            snapshot = unpack(data)
            self._machine.verify(snapshot.state)
        except ValueError:
            return None
        return snapshot

    def forget_sending(self, node: str) -> None:
        self._sending.pop(node, None)

    def rewind(self, node: str) -> None:
        """The chunk handed out last did not leave: hand it out again next time."""
        if sending := self._sending.get(node):
            sending.position = sending.before

    @property
    def writing(self) -> bool:
        """Whether a snapshot is on its way to the disk: every tick stores a portion."""
        return self._writing is not None

    def close(self) -> None:
        """Nothing will come of a snapshot that is on its way."""
        if self._writing is not None:
            self._writing.abandon()
            self._writing = None

    def _store(self, store: Callable[[], bool]) -> bool:
        """Whether `store` says that a snapshot is in its place. Raises StorageFull."""
        try:
            stored = store()
        except OSError as error:
            failure = storage_error(error, self.path)
            if isinstance(failure, StorageFull):
                raise failure from error
            self.failure = failure
            return False
        if stored:
            self._exists = True
            self._sending.clear()  # they would send a snapshot that the log will not continue
        return stored

    # --- pysyncobj's Serializer

    def serialize(self, data: tuple[Any, Entry, Entry, set[Node]], covers: int) -> None:
        """Store the state as of the entry `data[1]`; `data[2]` is the one before, at index `covers`."""
        _, last, previous, _ = data  # pysyncobj also hands in the latest configuration, which may be ahead of `last` and never be committed
        configuration = self._configurations.configuration_at(last[1])
        snapshot = Snapshot(
            previous=Entry(*previous),
            last=Entry(*last),
            voters=configuration.voters,
            learners=configuration.learners,
            configured=configuration.index,
            state=b"",
        )

        def whole(state: list[bytes]) -> list[bytes]:
            pieces = assemble(snapshot, [self._machine.seal(state), *state])
            self.size = sum(map(len, pieces))
            return pieces

        self._writing = Writing(self._disk, SNAPSHOT, self._machine.capture(), whole, portion=self._portion, covers=covers)
        self._write()

    def _write(self) -> None:
        writing = self._writing
        if writing is None:
            return
        try:
            stored = self._store(writing.step)
        except StorageFull:  # the journal goes on as long as it finds room
            stored, self.postponed = False, True
        if stored or self.postponed or self.failure is not None:
            self._writing = None
            self._covers = writing.covers
            self._finished = SERIALIZER_STATE.SUCCESS if stored else SERIALIZER_STATE.FAILED

    def checkSerializing(self) -> tuple[int, int | None]:
        self._write()
        if self._writing is not None:
            return SERIALIZER_STATE.SERIALIZING, None
        state, self._finished = self._finished, None
        if state is None:
            return SERIALIZER_STATE.SERIALIZING if self.postponed else SERIALIZER_STATE.NOT_SERIALIZING, None
        return state, self._covers

    def deserialize(self) -> tuple[None, Entry, Entry, list[Node]]:
        try:
            snapshot = self.load()
            if snapshot is None:
                raise damaged(self.path, 0, "the snapshot is gone")
            try:
                self._machine.restore(snapshot.state)
            except ValueError as error:
                raise damaged(self.path, _HEADER.size, str(error)) from error
        except BaseException as error:  # whatever it is, pysyncobj swallows it and would report success
            self.failure = error if isinstance(error, ConsensusError) else ConsensusError(f"{self.path} cannot be loaded: {error!r}")
            raise
        self._configurations.base_on(snapshot.configuration)
        return None, snapshot.last, snapshot.previous, [Node(name) for name in snapshot.voters]

    def getTransmissionData(self, node: Node) -> tuple[bytes, bool, bool] | None:
        """The next chunk for a node (bytes, is it the first, is it the last), or None while a new snapshot is not yet settled."""
        if self._finished is not None:
            return None
        sending = self._sending.get(node.id)
        if sending is None:
            try:
                data = self._disk.read(SNAPSHOT)
            except OSError as error:
                self.failure = storage_error(error, self.path)
                return None
            if data is None:
                self.failure = damaged(self.path, 0, "the snapshot is gone")
                return None
            sending = self._sending[node.id] = _Sending(data)
        start = sending.before = sending.position
        sending.position = start + self._chunk
        return sending.data[start : sending.position], start == 0, sending.position >= len(sending.data)

    def setTransmissionData(self, data: tuple[bytes, bool, bool] | None) -> bool:
        """Take a snapshot that the transport has collected and checked: always whole."""
        if data is None:
            return False
        self.close()  # this one is newer than any of ours
        content = data[0]
        self.size = len(content)

        def stored() -> bool:
            replace(self._disk, SNAPSHOT, content)
            return True

        try:
            return self._store(stored)
        except StorageFull as error:
            self.full = error
            return False

    def cancelTransmisstion(self, node: Node) -> None:
        """pysyncobj cancels for whoever it believes disconnected, also for a peer that is only held back: the transport decides instead."""
