"""Handing the leadership over on purpose (Ongaro 2014, section 3.10; docs/adr/0071): to whom, and what to do next. Pure.

New proposals wait while it is under way, or the target would never hold the last entry; once it does, and all is committed, it is invited
to stand at once. It needs no more than the messages of an election then, and the proposals go on at the new leader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hmcore.errors import HyperMeshError, InvalidRequest, NoQuorum, TransferFailed


@dataclass(frozen=True, slots=True)
class Follower:
    """A voter as its leader sees it. `match`: up to where its log is known to be ours; `answers`: it did so lately."""

    name: str
    match: int
    answers: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """How this node is placed right now. `settled`: it leads, and all of its log is committed, with nothing on its way into it.
    `caught_up`: the target holds the last entry."""

    now: float
    term: int
    leads: bool
    leader: str | None
    settled: bool
    caught_up: bool
    fault: HyperMeshError | None = None


@dataclass(frozen=True, slots=True)
class Handed:
    """Who leads now, in which term, and how many seconds it took."""

    leader: str
    term: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Invite:
    """Ask the target to stand for election."""


@dataclass(frozen=True, slots=True)
class Over:
    outcome: Handed | HyperMeshError


def choose(name: str, followers: Iterable[Follower], to: str | None) -> str:
    """Who is to lead: `to`, or of those that answer the one that is furthest ahead. Raises InvalidRequest, NoQuorum."""
    others = sorted(followers, key=lambda follower: (-follower.match, follower.name))
    answering = [follower.name for follower in others if follower.answers]
    if not others:
        raise InvalidRequest(f"{name} is the only voter: nobody else can lead", host=name)
    if to is None:
        if not answering:
            raise NoQuorum("no other voter answers: nobody can take over", host=name, fix="hmctl status")
        return answering[0]
    if to not in (known := sorted(follower.name for follower in others)):
        raise InvalidRequest(f"{to} is no other voter; {', '.join(known)} could lead", host=name, fix="hmctl raft transfer NODE")
    if to not in answering:
        raise NoQuorum(f"{to} does not answer {name}: it cannot take over", host=name, fix="hmctl status")
    return to


class Handover:
    """One that is under way, from `name` to `to`. `patience`: seconds until the target, which may not have heard, is invited again."""

    def __init__(self, name: str, to: str, *, term: int, now: float, until: float, patience: float) -> None:
        self.to = to
        self._name = name
        self._term = term
        self._began = now
        self._until = until
        self._patience = patience
        self._invited_at = float("-inf")
        self._wake = until

    def next(self, moment: Moment) -> Invite | Over | None:
        """What to do; None: wait."""
        if moment.fault is not None:
            return Over(moment.fault)
        if moment.leader is not None and moment.term > self._term:
            if moment.leader == self._name:
                return Over(TransferFailed(f"{self._name} was elected again, in term {moment.term}", host=self._name))
            return Over(Handed(moment.leader, moment.term, moment.now - self._began))
        if moment.now >= self._until:
            return Over(self._given_up(moment))
        if not (moment.settled and moment.caught_up):
            self._wake = self._until  # what changes that is heard
        elif moment.now >= self._invited_at + self._patience:
            self._invited_at = moment.now
            self._wake = min(self._until, moment.now + self._patience)
            return Invite()
        return None

    def wake(self) -> float:
        """When to look again, if nothing happens before."""
        return self._wake

    @property
    def _invited(self) -> bool:
        return self._invited_at > float("-inf")

    def _given_up(self, moment: Moment) -> HyperMeshError:
        took = f"within {moment.now - self._began:.1f} s"
        if not moment.leads:
            why = f"{self._name} leads no more, and {self.to} did not take over {took}"
        else:
            why = f"{self.to} did not {'take over' if self._invited else 'catch up'} {took}; {self._name} goes on leading"
        return TransferFailed(why, host=self._name, fix="hmctl status")
