"""The guard against a model of pysyncobj: what is delivered must leave the log as Raft's own rule would (section 5.3)."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hmcore.errors import CommittedConflict
from node_agent.consensus.log.entries import Entry
from node_agent.consensus.protocol.append_guard import Append, guard


def logs(first: int = 1) -> st.SearchStrategy[list[Entry]]:
    """Logs whose terms only grow, and in which (index, term) names one command."""
    terms = st.lists(st.integers(0, 2), min_size=1, max_size=8)
    return terms.map(lambda steps: [Entry(b"", first + i, 1 + sum(steps[: i + 1])) for i in range(len(steps))])


def pysyncobj(log: list[Entry], append: Append) -> tuple[list[Entry], bool, int]:
    """What pysyncobj does with an append: the log after, whether it says yes, the next index that it asks for."""
    first, last = log[0].index, log[-1].index
    if append.prev_index is None or not first <= append.prev_index <= last:
        return log, False, last + 1
    kept = log[: append.prev_index - first + 1]
    if kept[-1].term != append.prev_term:
        return log, False, append.prev_index
    after = [*kept, *append.entries]
    return after, True, after[-1].index + 1


def raft(log: list[Entry], append: Append) -> list[Entry]:
    """Raft's rule: delete from the first conflict on, then add what is new."""
    first = log[0].index
    after = list(log)
    for entry in append.entries:
        position = entry.index - first
        if position < len(after) and after[position].term != entry.term:
            after = after[:position]
        if position >= len(after):
            after.append(entry)
    return after


@given(logs(), logs(), st.data())
def test_the_log_becomes_what_raft_says(ours, leaders, data):
    """Our log and the leader's share a prefix (log matching); the leader sends any piece of its log, also an old one."""
    common = data.draw(st.integers(1, min(len(ours), len(leaders))))
    leaders = [*ours[:common], *(entry._replace(term=max(entry.term, ours[common - 1].term) + 10) for entry in leaders[common:])]
    base = data.draw(st.integers(1, common))
    start = data.draw(st.integers(1, len(leaders)))
    end = data.draw(st.integers(start, len(leaders)))
    later = ours != leaders[: len(ours)]  # a leader of the term of our last entry wrote that entry
    term = max(ours[-1].term, leaders[-1].term) + (1 if later else data.draw(st.integers(0, 1)))
    append = Append(term, data.draw(st.integers(0, 9)), start, leaders[start - 1].term, tuple(leaders[start:end]))
    verdict = guard(append, ours, base)
    after, accepted, asked = pysyncobj(ours, verdict.append)
    if start > len(ours) or ours[start - 1].term != leaders[start - 1].term:
        assert (after, accepted) == (ours, False)
        assert verdict.answer_next is not None
        assert base + 1 <= verdict.answer_next <= start  # nearer to where we surely agree with each refusal
        return
    assert accepted
    assert after == raft(ours, append)
    vouched = asked if verdict.answer_next is None else verdict.answer_next
    assert after[: vouched - 1] == leaders[: vouched - 1]  # it never claims more than it shares with the leader
    commits = min(verdict.append.commit_index, after[-1].index)
    assert after[:commits] == leaders[:commits] or commits > len(leaders)


@given(logs(), logs(), st.data())
def test_the_leader_finds_where_we_agree_in_a_round_trip_a_term(ours, leaders, data):
    common = data.draw(st.integers(1, min(len(ours), len(leaders))))
    leaders = [*ours[:common], *(entry._replace(term=max(entry.term, ours[common - 1].term) + 10) for entry in leaders[common:])]
    log, following, refusals = ours, len(leaders) + 1, 0
    while True:
        append = Append(99, 0, following - 1, leaders[following - 2].term, tuple(leaders[following - 1 :]))
        verdict = guard(append, log, 1)  # as after a restart: nothing is known to be committed but the first
        log, accepted, asked = pysyncobj(log, verdict.append)
        if accepted:
            break
        refusals += 1
        following = verdict.answer_next or asked
    assert log[: len(leaders)] == leaders
    assert refusals <= 1 + len({entry.term for entry in ours[common:]})


@given(logs(first=5), st.integers(1, 4), st.data())
def test_a_compacted_prefix_counts_as_agreed(ours, start, data):
    whole = [*(Entry(b"", index, 1) for index in range(1, 5)), *ours]
    end = data.draw(st.integers(start, len(whole)))
    append = Append(whole[-1].term, 0, start, whole[start - 1].term, tuple(whole[start:end]))
    verdict = guard(append, ours, 5)
    after, accepted, _ = pysyncobj(ours, verdict.append)
    assert accepted
    assert after == ours


def test_a_contradiction_of_what_is_committed_stops_the_node():
    log = [Entry(b"", 1, 1), Entry(b"", 2, 1), Entry(b"", 3, 1)]
    with pytest.raises(CommittedConflict):
        guard(Append(3, 3, 2, 2, ()), log, base=2)
    with pytest.raises(CommittedConflict):
        guard(Append(3, 3, 1, 1, (Entry(b"", 2, 3),)), log, base=2)


@given(logs(), logs(), st.data())
def test_nothing_committed_is_ever_truncated(ours, leaders, data):
    start = data.draw(st.integers(1, len(leaders)))
    base = data.draw(st.integers(1, len(ours)))
    append = Append(leaders[-1].term, 0, start, leaders[start - 1].term, tuple(leaders[start:]))
    try:
        verdict = guard(append, ours, base)
    except CommittedConflict:
        assume(False)
        return
    assert pysyncobj(ours, verdict.append)[0][:base] == ours[:base]
