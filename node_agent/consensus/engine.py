"""pysyncobj itself, fitted with our journal, snapshots, codec and transport; the one place that touches its inside (docs/adr/0003).

pysyncobj has no constructor arguments for some of them, so `install` replaces five module globals. tests/unit/.../test_engine.py fails
if a release of pysyncobj no longer has one of the seams or of the private names that this module uses.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pysyncobj.serializer
import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.config import FAIL_REASON
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from hmcore.errors import ConsensusError
from node_agent.consensus import codec
from node_agent.consensus.commands import Receipt
from node_agent.consensus.journal import Journal
from node_agent.consensus.snapshots import SnapshotStore


class Timing(Protocol):
    """Seconds, as in hmcore.config.settings.Raft."""

    @property
    def heartbeat(self) -> float: ...
    @property
    def election_min(self) -> float: ...
    @property
    def election_max(self) -> float: ...


class Voter(Node):  # type: ignore[misc]  # pysyncobj has no types
    """A voter, by name. Its hash does not change from run to run: pysyncobj walks sets of them, and a simulation must be repeatable."""

    def __hash__(self) -> int:
        return zlib.crc32(self.id.encode())


def install() -> None:
    """The seams. `createJournal` and `Serializer` become ways to hand in an object of ours through SyncObjConf."""
    syncobj, serializer = pysyncobj.syncobj, pysyncobj.serializer
    seams = [
        (syncobj, "createJournal"),
        (syncobj, "Serializer"),
        (syncobj, "pickle"),
        (syncobj, "PIPE_NOTIFIER_ENABLED"),
        (serializer, "pickle"),
    ]
    if missing := [f"{module.__name__}.{name}" for module, name in seams if not hasattr(module, name)]:
        raise ConsensusError(f"this release of pysyncobj lacks {', '.join(missing)}", fix="install the release that pyproject.toml pins")
    syncobj.createJournal = _given_journal
    syncobj.Serializer = _given_store
    syncobj.pickle = serializer.pickle = codec  # nothing is ever unpickled
    syncobj.PIPE_NOTIFIER_ENABLED = False  # it leaks two descriptors a member


def _given_journal(journal_file: Journal) -> Journal:
    return journal_file


def _given_store(file: str, batch: int, fork: bool, serializer: SnapshotStore, deserializer: SnapshotStore, checker: None) -> SnapshotStore:
    return serializer


class _Core(SyncObj):  # type: ignore[misc]
    """Only the replicated method. pysyncobj looks at every attribute of this class while it constructs itself: keep it bare."""

    def __init__(self, apply_batch: Callable[[bytes, int], list[Receipt]], *arguments: Any, **named: Any) -> None:
        self._apply_batch = apply_batch
        super().__init__(*arguments, **named)

    @replicated  # type: ignore[untyped-decorator]
    def apply(self, batch: bytes) -> list[Receipt]:
        return self._apply_batch(batch, self.raftLastApplied + 1)


class Engine:
    """Raft for opaque batches. `apply_batch(batch, index)` is called once per committed batch, in order, and must not raise."""

    def __init__(
        self,
        name: str,
        others: Sequence[str],
        *,
        timing: Timing,
        journal: Journal,
        store: SnapshotStore,
        transport: Transport,
        apply_batch: Callable[[bytes, int], list[Receipt]],
        compact_entries: int,
        max_append: int,
    ) -> None:
        install()
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=False,  # send at once; we batch ourselves
            appendEntriesPeriod=timing.heartbeat,
            raftMinTimeout=timing.election_min,
            raftMaxTimeout=timing.election_max,
            leaderFallbackTimeout=(timing.election_min + timing.election_max) / 2,
            connectionTimeout=timing.election_max,  # unused: the connections are ours
            appendEntriesBatchSizeBytes=max_append,
            logCompactionMinEntries=compact_entries,
            logCompactionMinTime=10**9,  # by size only
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
            useFork=False,
            journalFile=journal,
            fullDumpFile="",  # never a file: `load_snapshot` is called instead
            serializer=store,
            deserializer=store,
        )
        voters = [Voter(other) for other in others]
        self._core = _Core(apply_batch, Voter(name), voters, conf, nodeClass=Voter, transport=transport)

    def tick(self) -> None:
        self._core.doTick(0)

    def propose(self, batch: bytes, done: Callable[[list[Receipt] | None], None]) -> None:
        """Queue a batch for the next tick. `done` gets the receipts, or None if pysyncobj says that it is lost; it may never be called."""
        self._core.apply(batch, callback=lambda receipts, reason: done(receipts if reason == FAIL_REASON.SUCCESS else None))

    def compact(self) -> None:
        """Store a snapshot at the next tick, however short the log is."""
        self._core.forceLogCompaction()

    def transfer(self) -> None:
        """Ask the follower that is furthest ahead to stand for election now. Best effort."""
        self._core.transferLeadership()

    def resend(self, name: str, index: int) -> None:
        """Let the next append to a follower begin at `index`: pysyncobj counted what it sent as sent, whatever the transport said."""
        self._core._SyncObj__raftNextIndex[Voter(name)] = index

    def load_snapshot(self) -> None:
        """Take the state from the snapshot on disk. What goes wrong is in the store's `failure`: pysyncobj swallows it."""
        self._core._SyncObj__loadDumpFile(clearJournal=False)

    @property
    def term(self) -> int:
        return int(self._core.raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        return int(self._core.raftCommitIndex)

    @property
    def applied_index(self) -> int:
        return int(self._core.raftLastApplied)

    @property
    def leads(self) -> bool:
        return bool(self._core._isLeader())

    @property
    def stands(self) -> bool:
        return bool(self._core._SyncObj__raftState == pysyncobj.syncobj._RAFT_STATE.CANDIDATE)

    @property
    def leader(self) -> str | None:
        """Whoever pysyncobj followed last. It may be gone."""
        node = self._core._getLeader()
        return None if node is None else str(node.id)

    @property
    def election_deadline(self) -> float:
        return float(self._core._SyncObj__raftElectionDeadline)

    @property
    def heartbeat_deadline(self) -> float:
        return float(self._core._SyncObj__newAppendEntriesTime)


def now() -> float:
    """pysyncobj's clock: seconds, monotonic."""
    return float(pysyncobj.syncobj.monotonicTime())
