"""pysyncobj's seams are where we found them, and no pickle is opened behind any door."""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path

import msgspec
import pysyncobj
import pysyncobj.pickle
import pysyncobj.serializer
import pysyncobj.syncobj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raft_conversation import append, entry

from hmcore.errors import ConsensusError, StorageDamaged
from node_agent.consensus import codec
from node_agent.consensus.log import changes, entries, snapshots, wal
from node_agent.consensus.log.changes import Add
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.log.snapshots import Snapshot
from node_agent.consensus.protocol import engine, messages
from node_agent.consensus.protocol.messages import NextIndex, SnapshotChunk
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal, State


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def bomb(tmp_path, monkeypatch):
    """A pickle that leaves a mark when it is opened; and whoever opens any pickle fails."""
    marker = tmp_path / "opened"
    data = pickle.dumps(Bomb(marker), 2)

    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("a pickle was opened")

    for module in (pysyncobj.pickle, pickle):
        for name in ("load", "loads", "_load", "_loads", "Unpickler", "_Unpickler"):
            monkeypatch.setattr(module, name, refuse, raising=False)
    yield data
    assert not marker.exists()


def test_the_seams_exist(converse):
    engine.install()
    syncobj = pysyncobj.syncobj
    assert pysyncobj.version.VERSION == "0.3.17"
    assert syncobj.pickle is codec
    assert pysyncobj.serializer.pickle is codec
    assert syncobj.PIPE_NOTIFIER_ENABLED is False
    n0 = converse().open()
    core = n0.engine._core
    assert core._SyncObj__raftLog is n0.member.journal
    assert core._SyncObj__serializer is n0.member.store
    assert core._SyncObj__transport is n0.member.transport
    assert core._SyncObj__thread is None
    assert core._methodToID == {"apply_v0": 0, "reconfigure_v0": 1}  # entries.is_command relies on it
    for name in ("term", "commit_index", "applied_index", "leads", "stands", "leader", "election_deadline", "heartbeat_deadline"):
        getattr(n0.engine, name)


def test_a_release_without_a_seam_is_refused(monkeypatch):
    monkeypatch.delattr(pysyncobj.syncobj, "createJournal")
    with pytest.raises(ConsensusError, match="createJournal"):
        engine.install()


def test_the_codec_gives_tuples_back():
    value = (0, (b"\x80\x02", "text", None), {"key": (1, (2,))})
    assert codec.loads(codec.dumps(value)) == value
    stream = io.BytesIO()
    codec.dump(value, stream)
    stream.seek(0)
    assert codec.load(stream) == value


@given(st.binary(max_size=50))
def test_the_codec_refuses_with_an_error_that_can_be_caught(data):
    try:
        codec.loads(data)
    except ValueError:
        assert not entries.is_command(codec.REGULAR + data)


def test_only_our_own_commands_are_commands():
    assert entries.is_command(entry(2, 1).command)
    assert entries.is_command(codec.NO_OP)
    for other in (
        b"",
        b"\x00",
        b"\x01x",
        b"\x02" + codec.dumps(("add", "n9", "n9")),
        b"\x03" + codec.dumps(7),
        codec.REGULAR + codec.dumps((1, (b"",))),
    ):
        assert not entries.is_command(other)


# --- doors


def test_the_codec_opens_no_pickle(bomb):
    with pytest.raises(msgspec.DecodeError):
        codec.loads(bomb)
    with pytest.raises(msgspec.DecodeError):
        pysyncobj.syncobj.pickle.loads(bomb)


def test_a_message_opens_no_pickle(converse, bomb):
    n0 = converse().open()
    n0.member.receive("n1", bomb)
    command = codec.REGULAR + bomb
    n0.say("n1", append(5, (1, 0), Entry(command, 2, 5), commit=2))
    n0.member.tick()
    assert n0.member.transport.refused == 2
    assert n0.log == [(1, 0)]


def test_a_batch_in_the_log_opens_no_pickle(converse, bomb):
    n0 = converse().open()
    command = codec.REGULAR + codec.dumps((0, (bomb,)))
    n0.say("n1", append(5, (1, 0), Entry(command, 2, 5), commit=2))
    n0.member.tick()
    assert n0.engine.applied_index == 2
    assert n0.member.failure is None
    assert n0.member.replica.state == State(index=2)


def test_a_proposal_opens_no_pickle(converse, bomb):
    n0 = converse().open()
    term = n0.lead()
    results: list[object] = []
    n0.member.propose(Proposal("hostile", bomb), results.append)
    n0.member.tick()
    n0.say("n1", NextIndex(4, reset=False, success=True), term=term)
    n0.member.tick()
    (receipt,) = results
    assert isinstance(receipt, machine.Receipt)
    assert isinstance(machine.decode_result(receipt.result), machine.Refused)


@pytest.mark.parametrize("hide", [lambda data: data, lambda data: wal.MAGIC + wal.frame(data), gzip.compress])
def test_a_journal_opens_no_pickle(converse, bomb, tmp_path, hide):
    converse().open()
    (tmp_path / "raft" / "journal").write_bytes(hide(bomb))
    with pytest.raises(StorageDamaged):
        converse().open()


def test_an_entry_in_the_journal_opens_no_pickle(converse, bomb, tmp_path):
    converse().open()
    with (tmp_path / "raft" / "journal").open("ab") as file:
        file.write(wal.frame(changes.encode([Add(Entry(codec.REGULAR + bomb, 2, 1))])))
    with pytest.raises(StorageDamaged):
        converse().open()


@pytest.mark.parametrize(
    "hide",
    [
        lambda data: data,
        gzip.compress,
        lambda data: snapshots.pack(Snapshot(previous=entry(1, 1), last=entry(2, 1), voters=(), state=data)),
    ],
)
def test_a_snapshot_opens_no_pickle(converse, bomb, tmp_path, hide):
    converse().open()
    (tmp_path / "raft" / "snapshot").write_bytes(hide(bomb))
    with pytest.raises(StorageDamaged):
        converse().open()


def test_a_snapshot_from_a_peer_opens_no_pickle(converse, bomb):
    n0 = converse().open()
    for data in (bomb, snapshots.pack(Snapshot(previous=entry(8, 1), last=entry(9, 1), voters=(), state=bomb))):
        n0.say("n1", SnapshotChunk(5, 9, data, first=True, last=True))
    assert n0.log == [(1, 0)]
    assert n0.member.failure is None


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(data):
    with pytest.raises(messages.BadMessage):
        messages.decode(data)


def test_entries_out_of_order_are_no_message():
    for wrong in (
        append(5, (1, 0), entry(3, 5)),
        append(5, (1, 3), entry(2, 2)),
        append(5, (1, 0), entry(2, 6)),
    ):
        payload = messages.encode(messages.Envelope(messages.VERSION, 1, 1, 1, 5, wrong))
        with pytest.raises(messages.BadMessage):
            messages.decode(payload)
