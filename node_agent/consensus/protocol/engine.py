"""pysyncobj itself, fitted with our journal, snapshots, codec and transport; the one place that touches its inside (docs/adr/0003).

pysyncobj has no constructor arguments for some of them, so `install` replaces five module globals. tests/unit/.../test_engine.py fails
if a release of pysyncobj no longer has one of the seams or of the private names that this module uses.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import pysyncobj.serializer
import pysyncobj.syncobj
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.config import FAIL_REASON
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from hmcore.errors import ConsensusError
from hmcore.records import Configuration
from node_agent.consensus import codec
from node_agent.consensus.log import entries
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.log.snapshots import SnapshotStore
from node_agent.consensus.statemachine.commands import Receipt

AT_ONCE = 0.01  # seconds for which committed entries are applied in one tick
TELL = 0.005  # seconds that news of a commit may wait for entries to travel with


class Timing(Protocol):
    """Seconds, as in hmcore.config.settings.Raft."""

    @property
    def heartbeat(self) -> float: ...
    @property
    def election_min(self) -> float: ...
    @property
    def election_max(self) -> float: ...


class Apply(Protocol):
    """Carry out the log entry at `index`; `configures`: it is a configuration."""

    def __call__(self, batch: bytes, index: int, *, configures: bool = False) -> list[Receipt]: ...


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
    """Only the replicated methods; pysyncobj numbers them by their names: apply is 0, reconfigure 1 (entries.py). It looks at every
    attribute of this class while it constructs itself: keep it bare."""

    def __init__(self, apply_batch: Apply, *arguments: Any, **named: Any) -> None:
        self._apply_batch = apply_batch
        super().__init__(*arguments, **named)

    def _SyncObj__applyLogEntries(self) -> bool:
        """In pysyncobj's place: what is committed is applied for AT_ONCE seconds, the rest at the next ticks. After a restart it is the
        whole log: in one go, a voter was neither heard nor heard others for seconds."""
        committed, until = self.raftCommitIndex, now() + AT_ONCE
        try:
            while self.raftLastApplied < committed:
                self._SyncObj__raftCommitIndex = self.raftLastApplied + 1
                super()._SyncObj__applyLogEntries()
                if now() >= until:
                    break
        finally:
            self._SyncObj__raftCommitIndex = committed
        return False  # whether to send at once: batches are sent otherwise

    @replicated  # type: ignore[untyped-decorator]
    def apply(self, batch: bytes) -> list[Receipt]:
        return self._apply_batch(batch, self.raftLastApplied + 1)

    @replicated  # type: ignore[untyped-decorator]
    def reconfigure(self, batch: bytes) -> list[Receipt]:
        return self._apply_batch(batch, self.raftLastApplied + 1, configures=True)


class Engine:
    """Raft for opaque batches. `apply_batch(batch, index)` is called once per committed batch, in order, and must not raise."""

    def __init__(
        self,
        name: str,
        configuration: Configuration,
        *,
        timing: Timing,
        journal: Journal,
        store: SnapshotStore,
        transport: Transport,
        apply_batch: Apply,
        compact_entries: int,
        max_append: int,
    ) -> None:
        install()
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,  # it sends by itself only as heartbeats: `tick` says what else, and when
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
        self._name = name
        self._journal = journal
        self._sent = (0, 0)  # the term, and the last entry that was sent in it
        self._told = 0  # the latest commit index that followers were told
        self.tell_at = float("inf")  # when a later one is sent by itself, unless it has gone with entries by then
        others = [Voter(voter) for voter in configuration.voters if voter != name]
        self._core = _Core(apply_batch, Voter(name), others, conf, nodeClass=Voter, transport=transport)
        self.configure(configuration)

    def tick(self) -> None:
        beat = self.heartbeat_deadline
        self._core.doTick(0)
        if self.leads:
            self._send_what_is_due(beaten=self.heartbeat_deadline != beat)
        else:
            self.tell_at = float("inf")

    def _send_what_is_due(self, *, beaten: bool) -> None:
        """New entries at once, with the latest commit index; news of a commit alone may wait a little for entries to travel with.

        Told of each commit by itself, followers read and answer twice as often, while a writer that goes on tells them anyway.
        """
        if beaten:
            self._told = self.commit_index
        here = (self.term, self._journal[-1].index)
        if self.commit_index <= self._told:
            self.tell_at = float("inf")
        elif self.tell_at == float("inf"):
            self.tell_at = now() + TELL
        if here != self._sent or now() >= self.tell_at:
            self._core._SyncObj__sendAppendEntries()
            self._sent, self._told, self.tell_at = here, self.commit_index, float("inf")

    def propose(self, batch: bytes, done: Callable[[list[Receipt] | None], None]) -> None:
        """Queue a batch for the next tick. `done` gets the receipts, or None if pysyncobj says that it is lost; it may never be called."""
        self._core.apply(batch, callback=lambda receipts, reason: done(receipts if reason == FAIL_REASON.SUCCESS else None))

    def configure(self, configuration: Configuration) -> None:
        """From now on these vote and learn, wherever pysyncobj is: also between adding an entry and sending it."""
        core, now_ = self._core, now()
        voters = {Voter(name) for name in configuration.voters if name != self._name}
        learners = {Voter(name) for name in configuration.learners if name != self._name}
        if self._name not in configuration.voters and (self.leads or self.stands):
            core._SyncObj__setState(pysyncobj.syncobj._RAFT_STATE.FOLLOWER)  # it would go on counting itself
            core._SyncObj__raftLeader = None
        core._SyncObj__otherNodes = voters
        core._SyncObj__readonlyNodes = learners
        for table, initial in (
            (core._SyncObj__raftNextIndex, self._journal[-1].index + 1),
            (core._SyncObj__raftMatchIndex, 0),
            (core._SyncObj__lastResponseTime, now_),
        ):
            for gone in table.keys() - voters - learners:
                del table[gone]
            for node in voters | learners:
                table.setdefault(node, initial)

    def reconfigure(self, batch: bytes) -> None:
        """Add a configuration to the log, now: what made it right to do so must not change in between. Only while this node leads."""
        core, log = self._core, self._journal
        log.add(entries.command(entries.RECONFIGURE, batch), log[-1].index + 1, self.term)
        core._SyncObj__sendAppendEntries()

    def match(self, name: str) -> int:
        """Up to which log index a follower holds what this leader holds."""
        return int(self._core._SyncObj__raftMatchIndex.get(Voter(name), 0))

    def compact(self) -> None:
        """Store a snapshot at the next tick, however short the log is."""
        self._core.forceLogCompaction()

    def transfer(self, name: str) -> None:
        """Ask a follower that holds our last entry to stand for election now. Best effort: it may not hear."""
        self._core.transferLeadership(Voter(name))

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
    def last_index(self) -> int:
        return self._journal[-1].index

    @property
    def own_term_committed(self) -> bool:
        """Whether the last committed entry is of the current term. A leader's commit index may be behind what was acknowledged before."""
        return self._of_own_term(self.commit_index)

    @property
    def own_term_applied(self) -> bool:
        """The same of what is applied: a leader's state may be behind what was acknowledged before, too."""
        return self._of_own_term(self.applied_index)

    def _of_own_term(self, index: int) -> bool:
        position = index - self._journal[0].index
        return 0 <= position < len(self._journal) and self._journal[position].term == self.term

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
