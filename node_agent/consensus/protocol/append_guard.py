"""Keep pysyncobj from truncating entries that a follower has already acknowledged.

pysyncobj deletes everything behind `prevLogIdx` whenever an append overlaps its log, conflict or not. Raft allows that only
from the first entry whose term differs (Ongaro & Ousterhout 2014, section 5.3). `guard` rewrites an incoming append so that
pysyncobj, doing what it always does, does the right thing. Pure: a message, a log and an index in; a verdict out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from hmcore.errors import CommittedConflict
from node_agent.consensus.log.entries import Entry


class Append(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """A leader's append. `prev_index` is None when its next index for us lies behind its own log."""

    term: int
    commit_index: int
    prev_index: int | None
    prev_term: int | None
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand `append` to pysyncobj. If `answer_next` is set, its answer names that next index instead of its own:
    always, or only when it is an acceptance (`on_success_only`)."""

    append: Append
    answer_next: int | None = None
    on_success_only: bool = False


def guard(append: Append, log: Sequence[Entry], base: int) -> Deliver:
    """Rewrite `append` so that delivering it truncates only what Raft allows.

    `log` is never empty and its indexes are consecutive; `base` is the highest index that is surely the leader's too
    (committed, applied, or the log's first). Raises CommittedConflict if the append contradicts the log at or below `base`.
    """
    first, last = log[0].index, log[-1].index

    if append.prev_index is None:
        return Deliver(msgspec.structs.replace(append, commit_index=0), answer_next=base + 1)
    if append.prev_index > last:
        return Deliver(append, answer_next=last + 1)  # we lack no more than what comes behind, if our last entry is the leader's

    vouched = append.prev_index + len(append.entries)
    if append.prev_index < first:  # our compacted prefix is committed, hence the leader's
        prev, entries = first, tuple(entry for entry in append.entries if entry.index > first)
        vouched = max(vouched, first)
    else:
        prev, entries = append.prev_index, append.entries
        if log[prev - first].term != append.prev_term:
            if prev <= base:
                raise CommittedConflict(f"entry {prev}: our term {log[prev - first].term}, the leader's {append.prev_term}")
            return Deliver(append, answer_next=_before_term_of(prev, log, base) + 1)

    agreed = prev + _shared(entries, log, first)
    rest = entries[agreed - prev :]
    if rest:  # new entries, or a real conflict right behind `agreed`
        if agreed < base:
            raise CommittedConflict(f"entry {agreed + 1} differs, though {base} is committed")
        return Deliver(msgspec.structs.replace(append, prev_index=agreed, prev_term=log[agreed - first].term, entries=rest))

    if log[-1].term == append.term:  # our last entry came from this very leader: it has all of our log
        vouched = last
    heartbeat = msgspec.structs.replace(
        append, prev_index=last, prev_term=log[-1].term, entries=(), commit_index=min(append.commit_index, vouched)
    )
    return Deliver(heartbeat, answer_next=vouched + 1, on_success_only=True)


def _before_term_of(index: int, log: Sequence[Entry], base: int) -> int:
    """The last entry before all of the term of entry `index`, which is not the leader's there; at least `base`. So the leader finds where
    we agree in a round trip a term (Ongaro & Ousterhout 2014, section 5.3), not one an entry, and sends again no more than it must: a
    voter that has just started knows of nothing that is committed, and would have its whole log sent."""
    first, term = log[0].index, log[index - log[0].index].term
    while index > base and log[index - first].term == term:
        index -= 1
    return index


def _shared(entries: Sequence[Entry], log: Sequence[Entry], first: int) -> int:
    """How many leading `entries` the log already holds with the same term."""
    for count, entry in enumerate(entries):
        position = entry.index - first
        if position >= len(log) or log[position].term != entry.term:
            return count
    return len(entries)
