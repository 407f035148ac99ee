"""What a node does whose state is not that of the majority: it takes theirs. When that is safe, and never in a loop (docs/adr/0075). Pure.

Its log is as good as anybody's, and so is its vote; only what it made of the log is wrong. It therefore has time: it goes one step at a
time, only with all other voters there (docs/adr/0026 needs them), and where it may not, it says why and waits for an operator.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from node_agent.consensus.divergence.agreement import Judgement, Odd

ROUNDS = 3  # heartbeats for which a judgement must hold
COOL_DOWN = 600.0  # seconds after a re-seeding in which a node does not do it again: what comes back at once is not cured by this


@dataclass(frozen=True, slots=True)
class Situation:
    """What a node knows when it looks. `present`: who was heard lately. `reseeding`: nodes that say they are. `since`: seconds since this
    node re-seeded itself last; None: never, as far as it knows."""

    voters: Sequence[str]
    leader: str | None
    present: Collection[str]
    reseeding: Collection[str]
    since: float | None


@dataclass(frozen=True, slots=True)
class Wait:
    """`reason` is for people: why it does not re-seed itself. Empty: it will in a moment."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class HandOver:
    """The leadership, before anything else."""


@dataclass(frozen=True, slots=True)
class Reseed:
    index: int


Action = Wait | HandOver | Reseed


def decide(me: str, odd: Odd, judgement: Judgement, situation: Situation, rounds: int) -> Action:
    """What `me`, which is `odd`, does now. `rounds`: how often in a row it was found to be."""
    others = [name for name in situation.voters if name != me]
    quorum = len(situation.voters) // 2 + 1
    if situation.since is not None and situation.since < COOL_DOWN:
        return Wait("it re-seeded itself only lately, and differs again: what makes it do so must be found")
    if me in situation.voters and len(others) < quorum:
        return Wait(f"without it the other voters ({', '.join(others) or 'none'}) are no majority")
    if missing := [name for name in others if name not in situation.present]:
        return Wait(f"it needs all other voters for that, and {', '.join(missing)} cannot be heard")
    if busy := [name for name in situation.reseeding if name != me]:
        return Wait(f"{', '.join(sorted(busy))} is being re-seeded first")
    if (first := min(found.node for found in judgement.odd)) != me:
        return Wait(f"{first} is re-seeded first")
    if rounds < ROUNDS:
        return Wait()
    if situation.leader == me:
        return HandOver()
    if situation.leader not in odd.others:
        return Wait("" if situation.leader is None else f"the leader, {situation.leader}, is not known to hold the right state")
    return Reseed(odd.index)
