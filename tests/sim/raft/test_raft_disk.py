"""What a process that ended badly leaves in memory only must not be built on before it is on the disk (docs/adr/0028).

The simulated disk can lose power after a kill, and after a sync that failed: the two cases in which a file reads better than it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from raft_sim_disk import Crash, SimDisk

from hmcore.errors import StorageFailed
from node_agent.consensus import codec
from node_agent.consensus.log import snapshots
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.log.journal import Anchor, Journal
from node_agent.consensus.log.snapshots import Snapshot, SnapshotStore
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal, State
from node_agent.consensus.statemachine.replica import Replica

LOSSES = range(40)  # ways in which the power loss turns out


def entry(index: int) -> Entry:
    batch = machine.encode_batch([Proposal(f"{index}", machine.encode(machine.Noop()))])
    return Entry(codec.REGULAR + codec.dumps((0, (batch,))), index, 1)


LOG = [entry(index) for index in range(1, 6)]


def opened(disk: SimDisk, anchor: Anchor | None = None, kind: type[Journal] = Journal) -> Journal:
    journal = kind(disk)
    journal.open(anchor)
    return journal


def written(disk: SimDisk) -> Journal:
    journal = opened(disk)
    for item in LOG:
        journal.add(*item)
    journal.sync()
    return journal


def killed_before_the_sync(disk: SimDisk) -> None:
    journal = written(disk)
    journal.add(*entry(6))
    journal.setCurrentTerm(7, "n1")
    steps = iter([False, True])  # the write goes through, the fdatasync does not
    disk.step = lambda: _crash() if next(steps) else None  # type: ignore[method-assign]
    with pytest.raises(Crash):
        journal.sync()
    del disk.step  # type: ignore[method-assign]
    disk.kill()


def _crash() -> None:
    raise Crash


def failed_in_the_sync(disk: SimDisk) -> None:
    journal = written(disk)
    journal.add(*entry(6))
    journal.setCurrentTerm(7, "n1")
    disk.failing = True
    with pytest.raises(StorageFailed):
        journal.sync()


class BelievesWhatItReads(Journal):
    def _make_durable(self, data: bytes) -> None:
        self._file = self._disk.open("journal")


@pytest.mark.parametrize("end", [killed_before_the_sync, failed_in_the_sync])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_was_read_at_the_start_survives_a_power_loss(end: Callable[[SimDisk], None], loss: int) -> None:
    disk = SimDisk(random.Random(loss))
    end(disk)
    journal = opened(disk)
    assert journal[:] == [*LOG, entry(6)]  # so it may have been acknowledged since, without any change to sync
    disk.crash()
    journal = opened(disk)
    assert journal[:] == [*LOG, entry(6)]
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (7, "n1")


@pytest.mark.parametrize("end", [killed_before_the_sync, failed_in_the_sync])
def test_one_that_believes_what_it_reads_loses_it(end: Callable[[SimDisk], None]) -> None:
    lost = 0
    for loss in LOSSES:
        disk = SimDisk(random.Random(loss))
        end(disk)
        believed = opened(disk, kind=BelievesWhatItReads)[:]
        disk.crash()
        lost += opened(disk)[:] != believed
    assert lost


@pytest.mark.parametrize("loss", LOSSES)
def test_after_a_failed_sync_what_is_written_later_is_not_behind_a_hole(loss: int) -> None:
    disk = SimDisk(random.Random(loss))
    failed_in_the_sync(disk)
    journal = opened(disk)
    journal.add(*entry(7))
    journal.sync()
    disk.crash()
    assert opened(disk)[:] == [*LOG, entry(6), entry(7)]


@pytest.mark.parametrize("loss", LOSSES)
def test_without_room_for_a_copy_what_a_killed_process_left_is_synced(loss: int) -> None:
    disk = SimDisk(random.Random(loss))
    killed_before_the_sync(disk)
    disk.full = True
    journal = opened(disk)
    assert journal[:] == [*LOG, entry(6)]
    disk.crash()
    assert opened(disk)[:] == [*LOG, entry(6)]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_snapshot_is_in_its_place_before_the_journal_lets_go_of_what_it_covers(loss: int) -> None:
    """Killed between the snapshot's rename and the fsync of its directory: the next process sees it, a power loss may take it back."""
    disk = SimDisk(random.Random(loss))
    written(disk)
    state = Replica()
    state.state = State(index=4)
    content = snapshots.pack(Snapshot(previous=LOG[2], last=LOG[3], voters=("n0",), state=machine.snapshot(state.state)))
    file = disk.create("snapshot.new")
    file.append(content)
    file.sync()
    disk.rename("snapshot.new", "snapshot")
    disk.kill()
    for attempt in range(2):
        found = SnapshotStore(disk, Replica(), Journal(disk)).load()
        assert found is not None
        journal = opened(disk, found.anchor)
        assert journal[:] == LOG[2:]
        if attempt == 0:
            journal.add(*entry(6))
            journal.sync()  # the cut with it
            journal.deleteEntriesFrom(3)
            journal.sync()
            disk.crash()
