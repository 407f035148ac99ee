"""Whole journals and snapshots, changed in any place: refused with the place, or cut at a torn end; never taken for other content."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft_sim_disk import SimDisk

from hmcore.errors import StorageDamaged
from node_agent.consensus import codec
from node_agent.consensus.log import changes, snapshots, wal
from node_agent.consensus.log.changes import Add, Ballot, Change, Clear, CutFrom, CutTo, Stand, Standing
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.log.snapshots import Snapshot, SnapshotStore
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import State
from node_agent.consensus.statemachine.replica import Replica

Content = tuple[list[Entry], int, str | None, Standing]


def entry(index: int, term: int = 1) -> Entry:
    batch = machine.encode_batch([machine.Proposal(f"{index}-{term}", machine.encode(machine.Noop()))])
    return Entry(codec.REGULAR + codec.dumps((0, (batch,))), index, term)


def held(journal: Journal) -> Content:
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId(), journal.standing


def opened(content: bytes) -> Journal:
    disk = SimDisk(random.Random(1))
    disk.create("journal").append(content)
    journal = Journal(disk)
    journal.open(None)
    return journal


Step = tuple[str, int]
steps = st.lists(st.tuples(st.sampled_from(["add", "cut", "vote", "stand"]), st.integers(1, 6)), min_size=1, max_size=12)


def written(script: list[Step]) -> tuple[bytes, list[tuple[int, Content]]]:
    """A journal's bytes, and what it held at which sizes of the file: after each frame."""
    disk = SimDisk(random.Random(1))
    journal = Journal(disk, slack=1 << 30)
    journal.open(None)
    after = [(len(wal.MAGIC), held(journal))]
    for kind, number in script:
        match kind:
            case "add":
                first = len(journal) + 1
                for index in range(first, first + number):
                    journal.add(*entry(index))
            case "cut":
                journal.deleteEntriesFrom(max(0, len(journal) - number))
            case "vote":
                journal.setCurrentTerm(journal.getCurrentTerm() + number, f"n{number}")
            case "stand":
                journal.standing = Standing(bootstrap=f"b{number}", formed=True, voters=("n0", "n1"))
        journal.sync()
        size = len(disk.read("journal") or b"")
        if size > after[-1][0]:
            after.append((size, held(journal)))
    return disk.read("journal") or b"", after


@settings(max_examples=60, deadline=None)
@given(steps, st.data())
def test_any_flipped_bit_of_a_journal_is_refused_with_its_place(script, data):
    content, after = written(script)
    assert held(opened(content)) == after[-1][1]
    position = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StorageDamaged) as caught:
        opened(bytes(flipped))
    begin = max((size for size, _ in after if size <= position), default=0)  # of the frame that holds the bit
    assert caught.value.offset == begin
    assert str(begin) in str(caught.value)


def test_every_single_bit_of_a_journal():
    content, _ = written([("add", 2), ("vote", 3), ("cut", 1), ("stand", 1)])
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            with pytest.raises(StorageDamaged):
                opened(bytes(flipped))


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(0, 200), st.data())
def test_a_torn_end_is_cut_off_and_a_bit_flipped_within_it_changes_nothing_before(script, zeros, data):
    content, after = written(script)
    torn_at = data.draw(st.integers(len(wal.MAGIC), len(content)))
    torn = bytearray(content[:torn_at] + bytes(zeros))
    size, kept = max((item for item in after if item[0] <= torn_at), key=lambda item: item[0])
    journal = opened(bytes(torn))
    assert held(journal) == kept
    assert journal.torn == len(torn) - size
    if size < len(torn):
        position = data.draw(st.integers(size, len(torn) - 1))
        torn[position] ^= 1 << data.draw(st.integers(0, 7))
        try:
            found, offset = held(opened(bytes(torn))), size
        except StorageDamaged as error:
            found, offset = kept, error.offset
        assert (found, offset) == (kept, size)


indexes = st.integers(-3, 12)
entries = st.builds(entry, indexes, st.integers(0, 4))
wild: st.SearchStrategy[Change] = st.one_of(
    st.builds(Add, entries),
    st.builds(CutFrom, indexes),
    st.builds(CutTo, indexes),
    st.builds(Clear),
    st.builds(Ballot, st.integers(0, 9), st.none() | st.sampled_from(["n0", "n1"])),
    st.builds(Stand, st.builds(Standing, bootstrap=st.sampled_from(["", "b"]), floor=st.integers(0, 5))),
)


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(wild, max_size=5), max_size=6))
def test_frames_whose_checksums_hold_make_a_log_or_are_damage(frames):
    content = wal.MAGIC + b"".join(wal.frame(changes.encode(frame)) for frame in frames)
    try:
        journal = opened(content)
    except StorageDamaged:
        return
    log = journal[:]
    assert [item.index for item in log] == list(range(1, len(log) + 1))  # without a snapshot, from the first


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=4), st.binary(max_size=40))
def test_any_bytes_in_frames_are_a_journal_or_damage(bodies, rest):
    end = len(wal.MAGIC) + sum(map(wal.size, bodies))
    try:
        opened(wal.MAGIC + b"".join(map(wal.frame, bodies)) + rest)
        offset = end
    except StorageDamaged as error:
        offset = error.offset
    assert offset <= end


SNAPSHOT = snapshots.pack(Snapshot(previous=entry(4), last=entry(5), voters=("n0", "n1"), state=machine.snapshot(State())))


def test_every_single_bit_of_a_snapshot():
    for position in range(len(SNAPSHOT)):
        for bit in range(8):
            flipped = bytearray(SNAPSHOT)
            flipped[position] ^= 1 << bit
            disk = SimDisk(random.Random(1))
            disk.create("snapshot").append(bytes(flipped))
            with pytest.raises(StorageDamaged) as caught:
                SnapshotStore(disk, Replica(), Journal(disk)).load()
            assert caught.value.path == "/sim/snapshot"


@given(st.integers(0, len(SNAPSHOT) - 1), st.integers(0, 300))
def test_a_snapshot_that_ends_early_or_late_is_damage(kept, zeros):
    for content in (SNAPSHOT[:kept] + bytes(zeros), SNAPSHOT + bytes(zeros + 1)):
        if content == SNAPSHOT:
            continue
        disk = SimDisk(random.Random(1))
        disk.create("snapshot").append(content)
        with pytest.raises(StorageDamaged):
            SnapshotStore(disk, Replica(), Journal(disk)).load()
