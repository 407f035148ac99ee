"""The configuration in force is the latest in the log, whatever becomes of the log; against a model that keeps all of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft_conversation import configuring, entry

from hmcore.records import Configuration
from node_agent.consensus import codec
from node_agent.consensus.log import entries
from node_agent.consensus.log.changes import Standing
from node_agent.consensus.log.configurations import Configurations, of
from node_agent.consensus.log.disk import Directory
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.log.journal import Anchor, Journal
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.machine import Proposal

FOUNDERS = ("n0", "n1", "n2")
FORMED = Configuration(voters=FOUNDERS)


class Model:
    """All entries that ever were and were not cut off, and how far a snapshot goes."""

    def __init__(self) -> None:
        self.log = [entry(1, 0)]
        self.covered = 0  # by the snapshot: index of its last entry

    def at(self, index: int) -> Configuration:
        found = [of(one) for one in self.log if one.index <= index]
        return next((one for one in reversed(found) if one is not None), FORMED)

    @property
    def last(self) -> int:
        return self.log[-1].index

    @property
    def anchor(self) -> Anchor | None:
        if not self.covered:
            return None
        return Anchor(self.log[self.covered - 2], self.log[self.covered - 1], self.at(self.covered))


class Host:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.model = Model()
        self.open()
        for one in self.model.log:
            self.journal.add(*one)

    def open(self) -> None:
        self.disk = Directory(self.directory)
        self.journal = Journal(self.disk, slack=300, founders=FOUNDERS)
        self.journal.open(self.model.anchor)

    def restart(self) -> None:
        self.journal.sync()
        self.close()
        self.open()

    def close(self) -> None:
        self.journal.close()
        self.disk.close()

    def grow(self, one: Entry) -> None:
        self.model.log.append(one)
        self.journal.add(*one)

    def cut_from(self, index: int) -> None:
        """Only what no snapshot covers."""
        if max(self.model.covered, 1) < index <= self.model.last:
            del self.model.log[index - 1 :]
            self.journal.deleteEntriesFrom(index - self.journal[0].index)

    def snapshot(self, index: int, *, compact: bool) -> None:
        """Without compaction: a crash comes between the two."""
        if self.model.covered < index <= self.model.last and index >= 2:
            self.model.covered = index
            if compact:
                self.journal.deleteEntriesTo(index - 1 - self.journal[0].index)
            else:
                self.restart()

    def install(self) -> None:
        """Another's snapshot takes the log's place; it goes further than ours."""
        first, second = self.model.last + 1, self.model.last + 2
        self.model.log += [configuring(first, 9, ("n0", "n7")), entry(second, 9)]
        self.model.covered = second
        anchor = self.model.anchor
        assert anchor is not None
        self.journal.base_on(anchor.configuration)
        self.journal.clear()
        for one in (anchor.previous, anchor.last):
            self.journal.add(*one)

    def check(self) -> None:
        assert self.journal.configuration == self.model.at(self.model.last)
        for index in range(max(self.model.covered, 1), self.model.last + 1):
            assert self.journal.configuration_at(index) == self.model.at(index)


members = st.sets(st.sampled_from(["n0", "n1", "n2", "n3", "n4"]), min_size=1)
grow = st.one_of(st.tuples(st.just("entries"), st.integers(1, 4)), st.tuples(st.just("configuration"), members))
shrink = st.one_of(
    st.tuples(st.just("cut"), st.integers(1, 4)),
    st.tuples(st.just("snapshot"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("install")),
    st.tuples(st.just("sync")),
    st.tuples(st.just("restart")),
)
moves = st.lists(st.tuples(st.lists(grow, min_size=1, max_size=3), shrink), min_size=3, max_size=15).map(
    lambda pairs: [move for grown, shrunk in pairs for move in (*grown, shrunk)]  # else it hardly ever grows enough to be compacted
)


@pytest.mark.long
@settings(deadline=None, max_examples=150)
@given(moves)
def test_whatever_happens_to_the_log_the_journal_knows_the_configuration(history):
    with tempfile.TemporaryDirectory() as directory:
        host = Host(Path(directory) / "raft")
        try:
            for move in history:
                last = host.model.last
                match move:
                    case ("entries", count):
                        for index in range(last + 1, last + 1 + count):
                            host.grow(entry(index, 1))
                    case ("configuration", voters):
                        host.grow(configuring(last + 1, 1, tuple(sorted(voters))))
                    case ("cut", count):
                        host.cut_from(last + 1 - count)
                    case ("snapshot", behind, compact):
                        host.snapshot(last - behind, compact=compact)
                    case ("install",):
                        host.install()
                    case ("sync",):
                        host.journal.sync()
                    case _:
                        host.restart()
                host.check()
        finally:
            host.close()


# --- what others told


def test_what_is_told_counts_until_the_log_knows_better():
    known = Configurations(FOUNDERS)
    known.add(entry(1, 0))
    known.add(configuring(5, 1, ("n0", "n1")))
    told = Configuration(voters=("n1", "n2"), index=9)
    known.base_on(told)
    assert known.latest == told
    known.add(configuring(9, 3, ("n1", "n2")))
    known.add(configuring(12, 3, ("n0", "n1", "n2")))
    assert known.latest.index == 12
    known.cut_from(11)
    assert known.latest == told


def test_a_log_that_contradicts_what_is_committed_makes_no_configuration():
    known = Configurations(FOUNDERS)
    known.add(entry(1, 0))
    known.add(configuring(9, 2, ("n0", "n1", "n2", "n3")))
    known.add(configuring(11, 2, ("n0", "n1")))
    told = Configuration(voters=("n1", "n2"), index=9)
    known.base_on(told)
    assert known.latest == told


def test_an_older_word_changes_nothing():
    known = Configurations(FOUNDERS)
    known.base_on(Configuration(voters=("n1",), index=9))
    known.base_on(Configuration(voters=FOUNDERS))
    assert known.latest.index == 9


def test_the_founders_count_until_anything_is_known(tmp_path):
    disk = Directory(tmp_path / "raft")
    journal = Journal(disk, founders=("n1", "n0"))
    journal.open(None)
    assert journal.configuration == Configuration(voters=("n0", "n1"))
    journal.standing = Standing(formed=True, voters=("n5",), learners=("n6",), configured=7)
    assert journal.configuration == Configuration(voters=("n5",), learners=("n6",), index=7)
    journal.close()
    disk.close()


def test_a_change_is_told_once_and_at_once(tmp_path):
    disk = Directory(tmp_path / "raft")
    journal = Journal(disk, founders=FOUNDERS)
    journal.open(None)
    heard: list[int] = []
    journal.on_configuration = lambda: heard.append(journal.configuration.index)
    for one in (entry(1, 0), configuring(2, 1, ("n0",)), entry(3, 1), configuring(4, 1, ("n0", "n1"))):
        journal.add(*one)
    journal.deleteEntriesFrom(3)
    assert heard == [2, 4, 2]
    journal.close()
    disk.close()


# --- what an entry must be to count as one


def batch(*commands: machine.Command) -> bytes:
    return machine.encode_batch([Proposal(f"{number}", machine.encode(one)) for number, one in enumerate(commands)])


CHANGE = machine.ChangeVoters(voters=("n0", "n1"))


@pytest.mark.parametrize(
    "content",
    [
        batch(),
        batch(CHANGE, CHANGE),
        batch(machine.Noop()),
        batch(machine.ChangeVoters(voters=())),
        b"nonsense",
        b"",
    ],
)
def test_any_other_call_of_that_method_is_no_command(content):
    assert entries.configuration(entries.command(entries.RECONFIGURE, content)) is None
    assert not entries.is_command(entries.command(entries.RECONFIGURE, content))


def test_a_configuration_is_one_only_in_an_entry_of_its_own():
    assert entries.is_command(entries.command(entries.RECONFIGURE, batch(CHANGE)))
    assert entries.configuration(entries.command(entries.APPLY, batch(CHANGE))) is None
    assert entries.configuration(codec.NO_OP) is None
    for odd in ((2, (batch(CHANGE),)), (1, batch(CHANGE)), (1, (batch(CHANGE), b"")), (1, (batch(CHANGE),), {})):
        assert not entries.is_command(codec.REGULAR + codec.dumps(odd))
