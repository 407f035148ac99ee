"""What the history tells is what a memory without bounds would tell, or that it has been lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.watch import Change, Entry
from node_agent.consensus.statemachine.history import OVERHEAD, History, Lost, Portion
from node_agent.consensus.statemachine.state import TABLES

changes = st.builds(
    Change, st.sampled_from(["keys", "nodes", "locks"]), st.sampled_from(["a", "ab", "b"]), st.one_of(st.none(), st.binary(max_size=40))
)
steps = st.lists(st.tuples(st.integers(0, 19), st.lists(changes, min_size=1, max_size=4)), min_size=4, max_size=40)


class Memory:
    """All that ever changed, and where the first thing that is known stands."""

    def __init__(self) -> None:
        self.index = 0
        self.begins = 0
        self.entries: list[Entry] = []

    def since(self, since: int, tables: tuple[str, ...], prefix: str) -> list[Entry]:
        told = [
            Entry(entry.index, kept)
            for entry in self.entries
            if entry.index > since
            and (kept := tuple(each for each in entry.changes if each.table in tables and each.key.startswith(prefix)))
        ]
        return told


def by_table(entries: tuple[Entry, ...] | list[Entry]) -> list[tuple[int, dict[str, list[Change]]]]:
    """Within one entry, the order of different tables means nothing."""
    return [(entry.index, {table: [each for each in entry.changes if each.table == table] for table in TABLES}) for entry in entries]


@pytest.mark.long
@settings(deadline=None, max_examples=200)
@given(steps, st.integers(2, 60), st.integers(2, 60), st.data())
def test_all_that_changed_is_told_once_and_in_order_or_that_it_is_lost(walk, most, size, data):
    history, memory = History(changes=most, size=size * (OVERHEAD + 40)), Memory()
    for kind, step in walk:
        index = memory.index + data.draw(st.integers(1, 3), label="gap")  # pysyncobj's own entries are not ours
        memory.index = index
        if kind == 7:  # a snapshot is installed
            memory.entries.clear()
            memory.begins = index
            history.restart(index)
        else:
            memory.entries.append(Entry(index, tuple(step)))
            history.add(index, step)
    tables = tuple(data.draw(st.sets(st.sampled_from(["keys", "nodes", "locks"]), min_size=1), label="tables"))
    prefix = data.draw(st.sampled_from(["", "", "a", "ab", "x"]), label="prefix")
    since = data.draw(st.one_of(st.integers(0, memory.index + 2), st.integers(memory.begins, memory.begins + 3)), label="since")
    wanted = memory.since(since, tables, prefix)
    told: list[Entry] = []
    while True:
        found = history.since(since, tables, prefix, size=data.draw(st.integers(0, 100), label="portion"))
        match found:
            case Lost(oldest=oldest):
                assert not told, "a portion was told, and the next one is lost"
                assert since < oldest <= memory.index
                assert isinstance(history.since(oldest, tables, prefix), Portion), "the oldest index can be followed from"
                return
            case Portion(index=reached, entries=entries):
                assert since >= memory.begins or since > memory.index
                told += entries
                if reached >= memory.index:
                    break
                assert entries, "a portion that does not reach the end has something in it"
                assert reached == entries[-1].index > since
                since = reached
    assert by_table(told) == by_table(wanted)
    assert reached == memory.index


def test_a_busy_table_does_not_push_out_what_others_tell():
    history = History(changes=3)
    history.add(1, [Change("nodes", "node1", b"1")])
    for index in range(2, 100):
        history.add(index, [Change("keys", "k", b"%d" % index)])
    assert history.since(0, ("nodes",)) == Portion(99, (Entry(1, (Change("nodes", "node1", b"1"),)),))
    assert history.since(0, ("keys",)) == Lost(96)
    assert history.since(0, ("keys", "nodes")) == Lost(96)
    assert isinstance(history.since(96, ("keys", "nodes")), Portion)


def test_bytes_are_bounded_as_well():
    history = History(size=10 * (OVERHEAD + 1001))
    for index in range(1, 100):
        history.add(index, [Change("keys", "k", bytes(1000))])
    assert history.oldest(("keys",)) == 89


def test_what_is_kept_of_a_small_table_that_changes_often_is_little():
    """A node tells its whole list each time."""
    history = History(size=1 << 20, least=10_000)
    for index in range(1, 200):
        history.add(index, [Change("nodes", "n1", bytes(1000))])
    kept = history.since(history.oldest(["nodes"]), ["nodes"], size=1 << 30)
    assert isinstance(kept, Portion)
    assert len(kept.entries) == (10_000 + 1000 + OVERHEAD) // (1000 + OVERHEAD + 2)


def test_of_a_table_that_is_large_itself_as_much_is_kept_beside():
    history = History(size=1 << 20, least=10_000)
    for index in range(1, 200):
        history.add(index, [Change("nodes", f"n{index}", bytes(1000))])
    assert history.oldest(["nodes"]) == 0
    for index in range(200, 400):
        history.add(index, [Change("nodes", f"n{index - 199}", None)])
    assert history.oldest(["nodes"]) > 0


def test_one_entry_is_never_told_in_parts():
    history = History()
    history.add(1, [Change("keys", "a", bytes(100)), Change("nodes", "a", bytes(100))])
    history.add(2, [Change("keys", "a", bytes(100))])
    assert history.since(0, TABLES, size=1) == Portion(1, _portion(history, 0)), "it says how far it tells, not how far the node is"
    assert [entry.index for entry in _portion(history, 0)] == [1]
    assert [entry.index for entry in _portion(history, 1)] == [2]
    assert len(_portion(history, 0)[0].changes) == 2


def _portion(history: History, since: int) -> tuple[Entry, ...]:
    found = history.since(since, TABLES, size=1)
    assert isinstance(found, Portion)
    return found.entries


@pytest.mark.parametrize("since", [5, 7])
def test_whoever_is_ahead_is_told_nothing_and_an_index_before_its_own(since):
    history = History()
    history.restart(3)
    history.add(4, [Change("keys", "a", b"1")])
    assert history.since(since, ("keys",)) == Portion(4, ())
