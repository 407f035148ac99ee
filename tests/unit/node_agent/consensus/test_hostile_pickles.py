"""Hostile bytes through every door of consensus: each answers with its own error, or takes them for bytes, and opens nothing."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import msgspec
import pytest
from hostile_bytes import everything, nothing_is_opened, pickles
from raft_conversation import append, entry

from hmcore.errors import StorageDamaged
from hmcore.records import Cluster
from node_agent.consensus import codec
from node_agent.consensus.log import changes, entries, snapshots, wal
from node_agent.consensus.log.changes import Add, Ballot, Stand, Standing
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.log.snapshots import Snapshot
from node_agent.consensus.protocol import messages
from node_agent.consensus.protocol.append_guard import Append
from node_agent.consensus.protocol.messages import BadMessage, NextIndex, SnapshotChunk
from node_agent.consensus.statemachine import commands, levels, machine
from node_agent.consensus.statemachine import state as states
from node_agent.consensus.statemachine.commands import Proposal, Refused
from node_agent.consensus.statemachine.machine import State

MARKER = Path("/proc/self/hostile")  # nowhere: it cannot be made even if all else fails
HOSTILE = everything(MARKER)
PICKLES = pickles(MARKER)

BARE = PICKLES | {name: data for name, data in HOSTILE.items() if ";" not in name}  # for doors that fsync

each_bare = pytest.mark.parametrize("data", BARE.values(), ids=BARE.keys())
each_pickle = pytest.mark.parametrize("data", PICKLES.values(), ids=PICKLES.keys())


def each(check: Callable[[bytes], None]) -> Callable[[], None]:
    """One test of all of them, where hundreds would take longer to set up than to run."""

    def test() -> None:
        for name, data in HOSTILE.items():
            try:
                check(data)
            except BaseException as error:
                error.add_note(name)
                raise

    test.__doc__ = check.__doc__
    return test


@pytest.fixture(autouse=True)
def unopened(tmp_path):
    with nothing_is_opened(MARKER):
        yield


def state_of(body: bytes) -> bytes:
    """A state whose header holds."""
    return states._SNAPSHOT.pack(states._MAGIC, states._FORMAT, google_crc32c.value(body)) + body


def snapshot_of(body: bytes) -> bytes:
    """A snapshot whose header holds."""
    return snapshots._HEADER.pack(snapshots._MAGIC, snapshots._FORMAT, len(body), google_crc32c.value(body)) + body


def whole(state: bytes) -> bytes:
    return snapshots.pack(Snapshot(previous=entry(8, 1), last=entry(9, 1), voters=("n0", "n1", "n2"), state=state))


# --- the codec that stands in pickle's place


@each
def test_the_codec_gives_values_or_one_error(data):
    try:
        value = codec.loads(data)
    except msgspec.DecodeError:
        return
    assert value is None or isinstance(value, int | bytes | msgspec.msgpack.Ext | dict)  # what msgpack can say, and no more


@each
def test_no_log_entry_is_made_of_them(data):
    for kind in (b"", codec.REGULAR, codec.NO_OP, b"\x02", b"\x03"):
        assert not entries.is_command(kind + data) or kind + data == codec.NO_OP


# --- messages of other voters


def test_as_a_message_they_are_dropped(converse):
    n0 = converse().open()
    for number, data in enumerate(HOSTILE.values(), 1):
        n0.member.receive("n1", data)
        assert n0.member.transport.refused == number
    assert n0.member.failure is None


@each
def test_no_field_of_any_message_takes_them_for_something_else(data):
    """In the place of each field in turn. Where the schema has bytes they stay bytes."""
    intact = [
        Append(5, 1, 1, 0, (entry(2, 5),)),
        SnapshotChunk(5, 1, b"data", True, True),
        NextIndex(2, False, True),
        messages.RequestVote(5, 1, 0),
        messages.Vote(5),
        messages.TimeoutNow(5),
        messages.PreVote(5, 1, 0),
        messages.PreVoteGranted(5),
        messages.StaleTerm(5),
        messages.Confirm(5, 1),
        messages.Confirmed(5, 1),
        messages.AskStanding(),
        messages.TellStanding(5, True, True, ("n0", "n1")),
    ]
    kinds = {type(message) for message in intact}
    assert kinds == set(messages.Message.__args__), "a message that is not tried"
    for message in intact:
        fields = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
        for position in range(len(fields) + 1):
            for value in (msgspec.msgpack.encode(data), data):
                if data and value is data and _one_value(data):
                    continue  # it may be a good value of that field
                payload = _envelope(
                    [*map(msgspec.msgpack.encode, fields[:position]), value, *map(msgspec.msgpack.encode, fields[position + 1 :])]
                )
                try:
                    read = messages.decode(payload).message
                except BadMessage:
                    continue
                assert isinstance(read, SnapshotChunk) or position == len(fields)  # at the end: what a later release may add
                if isinstance(read, SnapshotChunk) and position < len(fields):
                    assert read.data == data


def _one_value(data: bytes) -> bool:
    try:
        codec.loads(data)
    except msgspec.DecodeError:
        return False
    return True


def _envelope(fields: list[bytes]) -> bytes:
    head = b"\x96" + b"".join(map(msgspec.msgpack.encode, (messages.VERSION, 1, 1, 1, 5)))
    return head + b"\xdc" + len(fields).to_bytes(2, "big") + b"".join(fields)


def test_as_an_entry_of_the_leader_they_are_dropped_or_refused_by_the_state_machine(converse):
    n0 = converse().open()
    term = 0
    for index, (name, data) in enumerate(HOSTILE.items(), 2):
        for command in (data, codec.REGULAR + data):
            n0.say("n1", append(5, (index - 1, term), Entry(command, index, 5), commit=index))
            assert n0.log[-1] == (index - 1, term), name
        n0.say("n1", append(5, (index - 1, term), Entry(codec.REGULAR + codec.dumps((0, (data,))), index, 5), commit=index))
        n0.member.tick()
        assert n0.member.failure is None
        assert n0.member.replica.state == State(index=index), name
        term = 5


@each_bare
def test_as_a_snapshot_of_the_leader_they_are_not_installed(converse, data):
    n0 = converse().open()
    for chunk in (data, snapshot_of(data), whole(data), whole(state_of(data))):
        n0.say("n1", SnapshotChunk(5, 9, chunk, first=True, last=True))
        n0.member.tick()
        assert n0.log == [(1, 0)]
        assert n0.member.failure is None
    n0.say("n1", append(5, (1, 0), entry(2, 5)))
    assert n0.log == [(1, 0), (2, 5)]  # and it goes on


# --- files


@each_bare
def test_as_a_journal_they_are_damage(converse, tmp_path, data):
    converse().open()
    file = tmp_path / "raft" / "journal"
    before = file.read_bytes()
    for content in (data, gzip.compress(data), wal.MAGIC + wal.frame(data), before + wal.frame(data)):
        file.write_bytes(content)
        with pytest.raises(StorageDamaged) as caught:
            converse().open()
        assert caught.value.offset <= len(before)
    file.write_bytes(before)
    converse().open()


@each_pickle
def test_within_a_journals_frame_they_are_damage_or_a_text(converse, tmp_path, data):
    converse().open()
    file = tmp_path / "raft" / "journal"
    before = file.read_bytes()
    for change in (
        Add(Entry(data, 2, 1)),
        Add(Entry(codec.REGULAR + data, 2, 1)),
        Ballot(1, data),  # type: ignore[arg-type]
        Stand(Standing(bootstrap=data)),  # type: ignore[arg-type]
        Stand(Standing(voters=(data,))),  # type: ignore[arg-type]
    ):
        file.write_bytes(before + wal.frame(changes.encode([change])))
        with pytest.raises(StorageDamaged):
            converse().open()


@each_bare
def test_as_a_snapshot_file_they_are_damage(converse, tmp_path, data):
    converse().open()
    for content in (data, gzip.compress(data), snapshot_of(data), whole(data), whole(state_of(data))):
        (tmp_path / "raft" / "snapshot").write_bytes(content)
        with pytest.raises(StorageDamaged):
            converse().open()


# --- the state machine


@each
def test_as_a_command_or_a_batch_they_are_refused_and_change_nothing(data):
    state = State(index=6)
    after, result = machine.apply(state, data, machine.Entry(7))
    assert after == state
    assert isinstance(commands.decode_result(result), Refused)
    assert machine.apply_batch(state, data, 7) == (State(index=7), [], [])
    after, (receipt,), _ = machine.apply_batch(state, machine.encode_batch([Proposal("hostile", data)]), 7)
    assert isinstance(commands.decode_result(receipt.result), Refused)
    with pytest.raises(msgspec.DecodeError):
        commands.decode_result(data)
    with pytest.raises(ValueError):
        machine.restore(data)
    with pytest.raises(ValueError):
        machine.restore(state_of(data))


@each_pickle
def test_as_a_proposal_they_are_refused_by_everybody_alike(converse, data):
    n0 = converse().open()
    term = n0.lead()
    results: list[object] = []
    n0.member.propose(Proposal("hostile", data), results.append)
    n0.member.tick()
    n0.say("n1", NextIndex(4, reset=False, success=True), term=term)
    n0.member.tick()
    (receipt,) = results
    assert isinstance(receipt, machine.Receipt)
    assert isinstance(commands.decode_result(receipt.result), Refused)
    assert n0.member.failure is None


@pytest.mark.parametrize(
    ("field", "instead"),
    [
        ({"name": "XXXX"}, b"\xa4\xff\xfe\xff\xfe"),
        ({"name": "XXXX"}, b"\x91" * 100_000 + b"\xc0"),
        ({"name": "a", "added": "XXXX"}, b"\x91" * 100_000 + b"\xc0"),
    ],
    ids=["no UTF-8", "too deep", "too deep, in a field of a later release"],
)
def test_a_command_that_cannot_be_read_to_its_end_stops_nobody(converse, field, instead):
    """Inside an intact command, where only a decoder that is not total stumbles: the entry would stop every node, again and again."""
    command = msgspec.msgpack.encode({"type": "remove-node", **field}).replace(b"\xa4XXXX", instead)
    batch = machine.encode_batch([Proposal("hostile", command)])
    n0 = converse().open()
    n0.say("n1", append(5, (1, 0), Entry(codec.REGULAR + codec.dumps((0, (batch,))), 2, 5), commit=2))
    n0.member.tick()
    assert n0.member.failure is None
    assert isinstance(commands.decode_result(n0.member.replica.state.receipts["hostile"].result), Refused)


@pytest.mark.parametrize("instead", [b"\xa4\xff\xfe\xff\xfe", b"\x91" * 100_000 + b"\xc0"], ids=["no UTF-8", "too deep"])
def test_a_voter_cannot_stop_another_with_a_text_that_is_none(converse, instead):
    n0 = converse().open()
    for message in (["tell-standing", 5, True, True, ["XXXX"]], ["ask-standing", "XXXX"]):
        payload = msgspec.msgpack.encode([messages.VERSION, 1, 1, 1, 5, message]).replace(b"\xa4XXXX", instead)
        n0.member.receive("n1", payload)
        assert n0.member.failure is None


def test_the_refusal_is_the_same_whatever_was_wrong():
    """It is part of the state that all nodes must agree on, and neither depth of stack nor release of a library is the same on all."""
    trusted = State(index=6, cluster=Cluster(id="hm-abc123defg", bootstrap="b1", feature_level=levels.TRUSTED))
    assert len({machine.apply(trusted, data, states.Entry(7))[1] for data in HOSTILE.values()}) == 1
