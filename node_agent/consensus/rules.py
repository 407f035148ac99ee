"""The rules that make pysyncobj safe on a real network, by name. Off only in tests, which show what each is for (tests/sim/raft)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Protections:
    """docs/adr/0027 has the reason for each; the code that applies it repeats it in short."""

    append_guard: bool = True  # truncate only on a real conflict
    back_by_term: bool = True  # a refused append is answered with the end of the term before, or where we surely agree
    snapshots_commit_nothing: bool = True
    snapshots_go_forward: bool = True
    term_tags: bool = True  # an answer counts only in the term it was given in
    stale_term_answers: bool = True
    leader_stickiness: bool = True  # no votes while the leader lives
    one_vote_each: bool = True
    pre_vote: bool = True
    hold_without_snapshot: bool = True
    in_order: bool = True
    sync_before_send: bool = True
    sync_before_counting: bool = True  # a leader's own copy of an entry counts when it is durable, as everybody else's
    reseeding_abstains: bool = True
    members_only: bool = True  # who is no voter by the log neither stands nor counts
    one_change_at_a_time: bool = True
    own_term_first: bool = True  # no change of the voters before the leader has committed an entry of its own term
    learners_first: bool = True
    read_barrier: bool = True  # a leader asks whether it still is one before it tells what is true now


ALL = Protections()
