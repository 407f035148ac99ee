"""The journal on a real file system: what survives, what is refused, and what a full disk does to it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from raft_conversation import entry
from raft_cramped import Cramped

from hmcore.errors import ConsensusError, StorageDamaged, StorageFailed, StorageFull
from node_agent.consensus.log import changes, wal
from node_agent.consensus.log.changes import Add, CutTo, Standing
from node_agent.consensus.log.disk import Directory
from node_agent.consensus.log.journal import Anchor, Journal

LOG = [entry(index, 1) for index in range(1, 11)]


class Reopened:
    """Another process's view of the same directory."""

    def __init__(self, directory: Path, anchor: Anchor | None = None, **options: int) -> None:
        self.disk = Cramped(directory)
        self.journal = Journal(self.disk, **options)
        try:
            self.journal.open(anchor)
        except BaseException:
            self.disk.close()
            raise

    def __enter__(self) -> Journal:
        return self.journal

    def __exit__(self, *_: object) -> None:
        self.journal.close()
        self.disk.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With a journal that holds LOG."""
    with Reopened(tmp_path / "raft") as journal:
        for item in LOG:
            journal.add(*item)
            journal.sync()
    return tmp_path / "raft"


def test_everything_is_there_after_a_restart(directory):
    with Reopened(directory) as journal:
        journal.setCurrentTerm(7, "n1")
        journal.standing = Standing(bootstrap="b1", formed=True)
        journal.deleteEntriesFrom(8)
        journal.deleteEntriesTo(0)
        journal.sync()
    with Reopened(directory) as journal:
        assert journal[:] == LOG[:8]
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (7, "n1")
        assert journal.standing == Standing(bootstrap="b1", formed=True)
        assert journal.getRaftCommitIndex() == 1
        assert not journal.empty


def test_entries_are_tuples_as_pysyncobj_compares_them(directory):
    with Reopened(directory) as journal:
        assert journal[3] == tuple(LOG[3])
        assert isinstance(journal[3], tuple)
        assert journal[-1][1] == 10


def test_what_was_not_synced_is_gone(directory):
    with Reopened(directory) as journal:
        journal.add(*entry(11, 1))
    with Reopened(directory) as journal:
        assert len(journal) == 10


def test_a_batch_is_all_or_nothing(directory):
    with Reopened(directory) as journal:
        journal.clear()
        journal.add(*entry(50, 3))
        journal.add(*entry(51, 3))
        journal.sync()
    file = directory / "journal"
    file.write_bytes(file.read_bytes()[:-1])
    with Reopened(directory) as journal:
        assert journal[:] == LOG
        assert journal.torn > 0
    with Reopened(directory) as journal:
        assert journal.torn == 0  # it was cut off for good


def test_writing_goes_on_behind_a_torn_frame(directory):
    file = directory / "journal"
    file.write_bytes(file.read_bytes() + wal.frame(b"x" * 100)[:50] + bytes(500))
    with Reopened(directory) as journal:
        journal.add(*entry(11, 1))
        journal.sync()
    with Reopened(directory) as journal:
        assert journal[-1] == entry(11, 1)


@pytest.mark.parametrize("position", [3, 40, 300, -2])
def test_damage_is_refused_and_says_where_and_what_to_do(directory, position):
    file = directory / "journal"
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(data)
    with pytest.raises(StorageDamaged) as caught:
        Reopened(directory)
    assert caught.value.path == str(file)
    assert 0 <= caught.value.offset <= position % len(data)
    assert "re-seeded from its peers" in str(caught.value)
    assert caught.value.fix == "hmctl raft reseed NODE"


@pytest.mark.parametrize(
    "frame",
    [
        [Add(entry(12, 1))],  # a gap
        [Add(entry(11, 1)._replace(command=b"\x00garbage"))],
        [Add(entry(11, 1)._replace(command=b"\x03\x05"))],  # pysyncobj's own change of code version
        [CutTo(99)],
        [["nonsense"]],
    ],
)
def test_a_frame_that_makes_no_sense_is_damage(directory, frame):
    file = directory / "journal"
    before = file.read_bytes()
    file.write_bytes(before + wal.frame(changes.encode(frame)))
    with pytest.raises(StorageDamaged) as caught:
        Reopened(directory)
    assert caught.value.offset == len(before)


def test_an_empty_file_is_damage(directory):
    (directory / "journal").write_bytes(b"")
    with pytest.raises(StorageDamaged):
        Reopened(directory)


def test_a_snapshot_without_its_journal_is_damage(directory):
    (directory / "journal").unlink()
    with pytest.raises(StorageDamaged, match="missing"):
        Reopened(directory, Anchor(LOG[4], LOG[5]))


def test_a_compacted_journal_without_its_snapshot_is_damage(directory):
    with Reopened(directory) as journal:
        journal.deleteEntriesTo(5)
        journal.sync()
    for anchor in (None, Anchor(LOG[2], LOG[3])):
        with pytest.raises(StorageDamaged, match="snapshot"):
            Reopened(directory, anchor)
    with Reopened(directory, Anchor(LOG[5], LOG[6])) as journal:
        assert journal[:] == LOG[5:]


def test_a_crash_between_snapshot_and_compaction_keeps_the_entries_behind(directory):
    """pysyncobj keeps the log only if it begins with the snapshot's last two entries."""
    with Reopened(directory, Anchor(LOG[5], LOG[6])) as journal:
        assert journal[:] == LOG[5:]


def test_a_log_that_contradicts_the_snapshot_is_left_to_pysyncobj(directory):
    with Reopened(directory, Anchor(entry(6, 2), entry(7, 2))) as journal:
        assert journal[:] == LOG


def test_the_file_is_rewritten_when_most_of_it_is_void(directory):
    with Reopened(directory, slack=2000) as journal:
        for index in range(11, 200):
            journal.add(*entry(index, 1))
            journal.deleteEntriesTo(1)
            journal.setCurrentTerm(index, "n2")
            journal.sync()
        assert (directory / "journal").stat().st_size < 4000 + 2000
        held = journal[:]
    with Reopened(directory, Anchor(held[0], held[1])) as journal:
        assert journal[:] == held
        assert journal.getCurrentTerm() == 199


def test_a_full_disk_loses_nothing_and_is_overcome(directory):
    reopened = Reopened(directory)
    with reopened as journal:
        reopened.disk.error = errno.ENOSPC
        journal.add(*entry(11, 1))
        for _ in range(3):
            with pytest.raises(StorageFull):
                journal.sync()
            journal.setCurrentTerm(journal.getCurrentTerm() + 1, None)
        assert journal.dirty
        reopened.disk.error = None
        journal.sync()
        assert not journal.dirty
    with Reopened(directory) as journal:
        assert journal[:] == [*LOG, entry(11, 1)]
        assert journal.getCurrentTerm() == 3


def test_a_crash_on_a_full_disk_leaves_a_torn_frame(directory):
    reopened = Reopened(directory)
    with reopened as journal:
        reopened.disk.error = errno.ENOSPC
        journal.add(*entry(11, 1))
        with pytest.raises(StorageFull):
            journal.sync()
    with Reopened(directory) as journal:
        assert journal[:] == LOG
        assert journal.torn > 0


def test_no_room_for_a_second_copy_is_no_reason_to_stop(directory):
    reopened = Reopened(directory, slack=100)
    create = reopened.disk.create
    with reopened as journal:

        def refuse(name: str):
            reopened.disk.error = errno.ENOSPC
            return create(name)

        reopened.disk.create = refuse  # type: ignore[method-assign]
        journal.deleteEntriesTo(8)
        journal.sync()
        assert not (directory / "journal.new").exists()
        reopened.disk.error = None
        journal.add(*entry(11, 1))
        journal.sync()
    with Reopened(directory, Anchor(LOG[8], LOG[9])) as journal:
        assert journal[:] == [*LOG[8:], entry(11, 1)]


def test_any_other_failure_of_the_disk_is_final(directory):
    reopened = Reopened(directory)
    with reopened as journal:
        reopened.disk.error = errno.EIO
        journal.add(*entry(11, 1))
        with pytest.raises(StorageFailed):
            journal.sync()


def test_a_disk_that_cannot_be_read_is_told_from_one_that_is_damaged(directory, monkeypatch):
    def refuse(self: Directory, name: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Directory, "read", refuse)
    with pytest.raises(StorageFailed, match="Input/output error"):
        Reopened(directory)


def test_one_directory_has_one_agent(tmp_path):
    disk = Directory(tmp_path / "raft")
    with pytest.raises(ConsensusError, match="in use"):
        Directory(tmp_path / "raft")
    disk.close()
    Directory(tmp_path / "raft").close()


def test_the_files_are_nobody_elses_business(directory):
    assert directory.stat().st_mode & 0o077 == 0
    assert (directory / "journal").stat().st_mode & 0o077 == 0
