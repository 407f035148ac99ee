"""The durable log: entries, current term, vote and this node's standing in one write-ahead log, one frame per batch of changes.

pysyncobj changes the log in memory; the changes reach the disk at `sync`, as one frame with one fdatasync (group commit). Nothing that
depends on a change may leave this node before: the transport syncs ahead of every send but a leader's appends of new entries, the member
ahead of every leader's tick, and so before the leader counts its own copy of them.
The commit index is deliberately not kept: it is learned again from a quorum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import msgspec
from pysyncobj.journal import Journal as PysyncobjJournal

from hmcore.errors import ConsensusError, StorageFull
from hmcore.records import Configuration
from node_agent.consensus.log import changes, entries, wal
from node_agent.consensus.log.changes import Add, Ballot, Change, Clear, CutFrom, CutTo, Stand, Standing
from node_agent.consensus.log.configurations import NOBODY, Configurations
from node_agent.consensus.log.disk import TEMPORARY, Disk, File, damaged, replace, storage_error
from node_agent.consensus.log.entries import Entry

JOURNAL = "journal"
_FRAME_ENTRIES = 1000  # entries a frame, when the journal is rewritten


@dataclass(frozen=True, slots=True)
class Anchor:
    """The last two entries that a snapshot covers. The log begins with the first of them once it is compacted.

    `configuration` as of the last one; NOBODY in a snapshot that tells none.
    """

    previous: Entry
    last: Entry
    configuration: Configuration = NOBODY


class Journal(PysyncobjJournal):  # type: ignore[misc]  # pysyncobj has no types
    """pysyncobj's journal interface over our file. `slack`: bytes of dead weight that the file may carry before it is rewritten;
    `founders`: the voters, as long as nothing tells of any."""

    def __init__(self, disk: Disk, *, slack: int = 4 << 20, founders: Sequence[str] = ()) -> None:
        self._disk = disk
        self._slack = slack
        self._pending: list[Change] = []
        self._entries: list[Entry] = []
        self._bytes = 0  # of the commands in _entries
        self._term = 0
        self._vote: str | None = None
        self._standing = Standing()
        self._file: File | None = None
        self._size = 0  # of the file, up to the end of the last durable frame
        self._ragged = False  # the file may hold part of a frame behind _size
        self._rewrite_at = 0  # rewrite the file once it is larger than this
        self._configurations = Configurations(founders)
        self._told = self._configurations.latest
        self.at_once: Callable[[], bool] = lambda: False  # whether changes reach the disk as they come: of a voter that asks nobody
        self.on_configuration: Callable[[], None] = lambda: None  # is called when another one is in force, before pysyncobj goes on
        self.torn = 0  # bytes of a torn frame that were dropped at open

    # --- opening

    def open(self, anchor: Anchor | None) -> None:
        """Load the file, or begin one. `anchor` is of the snapshot beside it. Raises StorageDamaged, StorageFull."""
        try:
            data = self._disk.read(JOURNAL)
            self._disk.remove(JOURNAL + TEMPORARY)
            if data is None:
                if anchor is not None:
                    raise damaged(self.path, 0, "the journal is missing, though there is a snapshot")
                data = wal.MAGIC
                replace(self._disk, JOURNAL, data)
            if anchor is not None:
                self._configurations.base_on(anchor.configuration)
            self._load(data)
            self._check_against(anchor)
            self._make_durable(data)
            self._trim_to(anchor)  # durable with the first change: nothing depends on it, and a full disk keeps nobody from starting
            self._told = self._configurations.latest
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _load(self, data: bytes) -> None:
        self._size = len(wal.MAGIC)
        try:
            for scanned in wal.scan(data):
                if scanned.body is None:
                    self.torn = len(data) - scanned.offset
                    break
                for change in changes.decode(scanned.body):
                    self._check(change, scanned.offset)
                    self._apply(change)
                self._size = scanned.offset + wal.size(scanned.body)
        except wal.Damaged as error:
            raise damaged(self.path, error.offset, error.message) from error
        except msgspec.DecodeError as error:
            raise damaged(self.path, self._size, f"a frame holds what this release cannot read ({error})") from error
        self._rewrite_at = self._size + self._slack

    def _make_durable(self, data: bytes) -> None:
        """What we read may be nowhere but in memory: a process that was killed before its fdatasync leaves it there, and after one that
        failed the kernel takes the pages for written (docs/adr/0028). Written anew, it is on the disk before anybody builds on it."""
        try:
            replace(self._disk, JOURNAL, data[: self._size])
        except OSError as error:
            if not isinstance(storage_error(error, self.path), StorageFull):
                raise
            self._file = self._disk.open(JOURNAL)  # no room for a second copy: what a killed process left can be synced all the same
            self._file.truncate(self._size)
            self._file.sync()
            self._disk.sync_directory()
        else:
            self._file = self._disk.open(JOURNAL)

    def _check(self, change: Change, offset: int) -> None:
        """A frame whose checksum holds can still be wrong: written by something else, or in a wrong order."""
        match change:
            case Add(entry=entry):
                if self._entries and entry.index != self._entries[-1].index + 1:
                    raise damaged(self.path, offset, f"entry {entry.index} follows entry {self._entries[-1].index}")
                if entry.index < 1:
                    raise damaged(self.path, offset, f"entry {entry.index} comes before the first that there can be")
                if not entries.is_command(entry.command):
                    raise damaged(self.path, offset, f"entry {entry.index} is no command")
            case CutFrom(index=index) | CutTo(index=index):
                if not self._entries or not self._entries[0].index <= index <= self._entries[-1].index + 1:
                    raise damaged(self.path, offset, f"a cut at {index} lies outside of the log")
            case Clear() | Ballot() | Stand():
                pass

    def _check_against(self, anchor: Anchor | None) -> None:
        if self._entries and self._entries[0].index > (anchor.previous.index if anchor else 1):
            raise damaged(self.path, 0, "the entries before the journal's first are in no snapshot: the snapshot is missing or too old")

    def _trim_to(self, anchor: Anchor | None) -> None:
        """Let the log begin where the snapshot ends, as a compaction would have. When a crash came between snapshot and compaction,
        pysyncobj otherwise throws away the whole log, acknowledged entries behind the snapshot included."""
        if anchor is None or not self._entries:
            return
        position = anchor.previous.index - self._entries[0].index
        if self._entries[position : position + 2] == [anchor.previous, anchor.last]:
            self.deleteEntriesTo(position)

    # --- what the rest of this package asks

    @property
    def path(self) -> str:
        return self._disk.path(JOURNAL)

    @property
    def standing(self) -> Standing:
        return self._standing

    @standing.setter
    def standing(self, standing: Standing) -> None:
        if standing != self._standing:
            self._change(Stand(standing))

    @property
    def configuration(self) -> Configuration:
        """In force: the latest in the log, committed or not."""
        return self._configurations.latest

    def configuration_at(self, index: int) -> Configuration:
        """As of log index `index`; of entries that are no longer here, the last one's."""
        return self._configurations.at(index)

    def base_on(self, configuration: Configuration) -> None:
        """A snapshot takes the log's place, and this is the configuration that it holds."""
        self._configurations.base_on(configuration)
        self._tell_configuration()

    @property
    def empty(self) -> bool:
        """Whether this node never took part in anything, as far as this disk knows."""
        return self._standing == Standing() and self._term == 0 and (not self._entries or self._entries[-1].index == 1)

    @property
    def command_bytes(self) -> int:
        return self._bytes

    @property
    def entries(self) -> list[Entry]:
        """The log itself, to be read only."""
        return self._entries

    @property
    def dirty(self) -> bool:
        return bool(self._pending)

    @property
    def only_grown(self) -> bool:
        """Whether nothing but entries was added since the last `sync`."""
        return all(isinstance(change, Add) for change in self._pending)

    def sync(self) -> None:
        """Make every change so far durable. Raises StorageFull, after which it may be tried again, or ConsensusError, which is final."""
        if not self._pending:
            return
        frame = wal.frame(changes.encode(self._pending))
        try:
            if self._ragged:  # an earlier attempt ran out of room halfway
                self._opened().truncate(self._size)
            self._ragged = True
            self._opened().append(frame)
            self._opened().sync()
        except OSError as error:
            raise storage_error(error, self.path) from error
        self._ragged = False
        self._size += len(frame)
        self._pending.clear()
        if self._size > self._rewrite_at:
            self._rewrite()

    def _rewrite(self) -> None:
        """Leave behind what later changes made void: new file, fsync, rename, directory fsync."""
        whole: list[Change] = [Stand(self._standing), Ballot(self._term, self._vote), *map(Add, self._entries)]
        groups = [whole[start : start + _FRAME_ENTRIES] for start in range(0, len(whole), _FRAME_ENTRIES)]
        content = wal.MAGIC + b"".join(wal.frame(changes.encode(group)) for group in groups)
        if len(content) + self._slack > self._size:  # not worth it: the file is that large because the log is
            self._rewrite_at = len(content) + self._slack
            return
        try:
            replace(self._disk, JOURNAL, content)
            self._opened().close()
            self._file = self._disk.open(JOURNAL)
        except OSError as error:
            failure = storage_error(error, self.path)
            if not isinstance(failure, StorageFull):
                raise failure from error
            self._rewrite_at = self._size + self._slack  # no room for a second copy now; the one we have is good
            return
        self._size = len(content)
        self._rewrite_at = self._size + self._slack

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> File:
        if self._file is None:
            raise ConsensusError(f"{self.path} is not open")
        return self._file

    # --- changes

    def _change(self, change: Change) -> None:
        self._apply(change)
        self._pending.append(change)
        self._tell_configuration()
        if self.at_once():
            self.sync()

    def _tell_configuration(self) -> None:
        if self._entries and self._configurations.latest != self._told:  # cleared, it is about to begin anew
            self._told = self._configurations.latest
            self.on_configuration()

    def _apply(self, change: Change) -> None:
        match change:
            case Add(entry=entry):
                self._entries.append(entry)
                self._bytes += len(entry.command)
                self._configurations.add(entry)
            case CutFrom(index=index):
                self._drop(self._entries[0].index, index, keep_front=True)
                self._configurations.cut_from(index)
            case CutTo(index=index):
                self._drop(self._entries[0].index, index, keep_front=False)
                self._configurations.cut_to(index)
            case Clear():
                self._entries.clear()
                self._bytes = 0
                self._configurations.clear()
            case Ballot(term=term, vote=vote):
                self._term, self._vote = term, vote
            case Stand(standing=standing):
                self._standing = standing
                told = Configuration(voters=standing.voters, learners=standing.learners, index=standing.configured)
                self._configurations.base_on(told, standing.known)

    def _drop(self, first: int, index: int, *, keep_front: bool) -> None:
        gone = slice(index - first, None) if keep_front else slice(0, index - first)
        self._bytes -= sum(len(entry.command) for entry in self._entries[gone])
        del self._entries[gone]

    # --- pysyncobj's interface: positions count from the first entry held

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._change(Add(Entry(bytes(command), idx, term)))

    def clear(self) -> None:
        self._change(Clear())

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        if entryFrom < len(self._entries):
            self._change(CutFrom(self._entries[0].index + entryFrom))

    def deleteEntriesTo(self, entryTo: int) -> None:
        if entryTo > 0:
            self._change(CutTo(self._entries[0].index + entryTo))

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self._change(Ballot(term, votedForNodeId))

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        pass  # see the module's docstring

    def getRaftCommitIndex(self) -> int:
        return 1

    def _destroy(self) -> None:
        self.close()
