"""Snapshots: durable before anybody depends on them, and never loaded when broken."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node
from raft_conversation import entry
from raft_cramped import Cramped
from rpds import HashTrieMap

from hmcore.errors import StorageDamaged
from hmcore.records import Cluster, Configuration, KeyValue
from node_agent.consensus.log import snapshots
from node_agent.consensus.log.snapshots import Snapshot, SnapshotStore
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import State
from node_agent.consensus.statemachine.replica import Replica
from node_agent.consensus.statemachine.state import pieces

A_SNAPSHOT = Snapshot(previous=entry(9, 2), last=entry(10, 3), voters=("n0", "n1"), state=machine.snapshot(State(index=10)))


@pytest.fixture
def disk(tmp_path: Path):
    disk = Cramped(tmp_path / "raft")
    yield disk
    disk.close()


class Formed:
    """The configurations of a cluster in which nothing has changed."""

    def configuration_at(self, index: int) -> Configuration:
        return Configuration(voters=("n0", "n1"))

    def base_on(self, configuration: Configuration) -> None:
        pass


def stored(disk: Cramped, *, chunk: int = 50) -> SnapshotStore:
    replica = Replica()
    replica.state = State(index=10)
    store = SnapshotStore(disk, replica, Formed(), chunk=chunk)
    store.serialize((None, entry(10, 3), entry(9, 2), {Node("n1"), Node("n0")}), 9)
    return store


@given(st.binary(max_size=300), st.integers(1, 10**9))
def test_round_trip(state, index):
    snapshot = Snapshot(previous=entry(index, 1), last=entry(index + 1, 2), voters=("a",), state=state)
    assert snapshots.unpack(snapshots.pack(snapshot)) == snapshot


@given(st.binary(max_size=100))
def test_any_other_bytes_are_refused(data):
    for candidate in (data, snapshots.pack(A_SNAPSHOT)[:14] + data):
        with pytest.raises(ValueError):
            snapshots.unpack(candidate)


@given(st.integers(0, len(snapshots.pack(A_SNAPSHOT)) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_found(position, bit):
    data = bytearray(snapshots.pack(A_SNAPSHOT))
    data[position] ^= 1 << bit
    with pytest.raises(ValueError):
        snapshots.unpack(bytes(data))


def test_a_stored_snapshot_is_loaded(disk):
    store = stored(disk)
    assert store.checkSerializing() == (SERIALIZER_STATE.SUCCESS, 9)
    assert store.checkSerializing() == (SERIALIZER_STATE.NOT_SERIALIZING, None)
    assert SnapshotStore(disk, Replica(), Formed()).load() == A_SNAPSHOT


def test_a_broken_file_is_refused_and_the_failure_kept_although_pysyncobj_swallows_it(disk, tmp_path):
    store = stored(disk)
    file = tmp_path / "raft" / "snapshot"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(StorageDamaged) as caught:
        SnapshotStore(disk, Replica(), Formed()).load()
    assert caught.value.path == str(file)
    with pytest.raises(StorageDamaged):
        store.deserialize()
    assert isinstance(store.failure, StorageDamaged)


def test_a_state_that_cannot_be_restored_is_damage(disk, tmp_path):
    store = stored(disk)
    (tmp_path / "raft" / "snapshot").write_bytes(
        snapshots.pack(Snapshot(previous=entry(1, 1), last=entry(2, 1), voters=(), state=b"no state"))
    )
    with pytest.raises(StorageDamaged):
        store.deserialize()


def test_it_is_sent_in_chunks_and_a_chunk_that_did_not_leave_is_sent_again(disk):
    store, n1 = stored(disk), Node("n1")
    assert store.getTransmissionData(n1) is None  # pysyncobj has not asked yet what became of it
    store.checkSerializing()
    received, last = b"", False
    for number in range(1000):
        chunk = store.getTransmissionData(n1)
        assert chunk is not None
        if number % 3 == 1:
            store.rewind("n1")
            continue
        data, first, last = chunk
        assert first == (received == b"")
        received += data
        if last:
            break
    assert last
    assert store.judge(received) == A_SNAPSHOT


def test_without_room_the_old_one_stays_and_the_next_attempt_waits(disk, tmp_path):
    store = stored(disk)
    store.checkSerializing()
    before = (tmp_path / "raft" / "snapshot").read_bytes()
    disk.error = errno.ENOSPC
    store.serialize((None, entry(20, 3), entry(19, 2), {Node("n0")}), 19)
    assert store.checkSerializing()[0] == SERIALIZER_STATE.FAILED
    assert store.checkSerializing()[0] == SERIALIZER_STATE.SERIALIZING  # for pysyncobj: do not try now
    assert (tmp_path / "raft" / "snapshot").read_bytes() == before
    assert not (tmp_path / "raft" / "snapshot.new").exists()
    assert store.failure is None
    assert not store.setTransmissionData((snapshots.pack(A_SNAPSHOT), True, True))
    assert store.full is not None


def state_of(keys: int) -> State:
    table = HashTrieMap({f"k{number}": KeyValue(value=b"v" * (number % 7), created=1, changed=number) for number in range(keys)})
    return State(index=10, cluster=Cluster(id="hm-a", bootstrap="b1", feature_level=2), keys=table, keys_size=keys)


@pytest.mark.parametrize("keys", [0, 1, 15, 16, 63, 64, 65, 70_000])
def test_a_state_in_pieces_is_the_whole_state(keys):
    state = state_of(keys)
    decoded = msgspec.msgpack.decode(b"".join(pieces(state)), type=State)
    assert dict(decoded.keys.items()) == dict(state.keys.items())
    assert msgspec.structs.replace(decoded, keys=state.keys) == state


def test_a_large_snapshot_takes_several_ticks_and_is_what_was_when_it_was_begun(disk, tmp_path):
    replica = Replica()
    replica.state = state_of(1000)
    begun = b"".join(pieces(replica.state))
    store = SnapshotStore(disk, replica, Formed(), portion=2000)
    store.serialize((None, entry(10, 3), entry(9, 2), {Node("n1"), Node("n0")}), 9)
    steps = 0
    while (found := store.checkSerializing())[0] == SERIALIZER_STATE.SERIALIZING:
        assert not (tmp_path / "raft" / "snapshot").exists()
        replica.state = state_of(steps)  # it goes on meanwhile
        steps += 1
    assert found == (SERIALIZER_STATE.SUCCESS, 9)
    assert steps > 10
    snapshot = store.load()
    assert snapshot is not None
    assert snapshot.anchor.last == entry(10, 3)
    assert snapshot.state.endswith(begun)


def test_a_snapshot_of_the_leader_s_takes_the_place_of_one_that_is_on_its_way(disk, tmp_path):
    replica = Replica()
    replica.state = state_of(1000)
    store = SnapshotStore(disk, replica, Formed(), portion=2000)
    store.serialize((None, entry(10, 3), entry(9, 2), {Node("n1"), Node("n0")}), 9)
    while not (tmp_path / "raft" / "snapshot.new").exists():
        assert store.checkSerializing()[0] == SERIALIZER_STATE.SERIALIZING
    assert store.setTransmissionData((snapshots.pack(A_SNAPSHOT), True, True))
    assert store.checkSerializing() == (SERIALIZER_STATE.NOT_SERIALIZING, None)
    assert store.load() == A_SNAPSHOT
