"""The rules of changing who votes: what a leader does next about a wish, and which learner it promotes (docs/adr/0069). Pure.

A configuration differs from the one before it by one name, so that any majority of the one and of the other share a voter. It is proposed
only while the one before it is committed and this leader has committed an entry of its own term (Ongaro's correction of 2015): else two
leaders could each count a majority that knows nothing of the other's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hmcore.errors import ChangeUnfinished, InvalidRequest, LevelTooLow, NoQuorum
from hmcore.records import Configuration
from node_agent.consensus.rules import ALL, Protections
from node_agent.consensus.statemachine import levels

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # as in the inventory
LEVEL = levels.TRUSTED
CLOSE = 50  # entries that a learner may lag behind and be promoted: less than a leader under load sends in one round trip


@dataclass(frozen=True, slots=True)
class Add:
    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    name: str


Wish = Add | Remove


@dataclass(frozen=True, slots=True)
class Follower:
    """`match`: up to which log index it holds what the leader holds. `answers`: it has taken something from the leader within an election
    timeout, in this term and on this connection: so its disk was not emptied since."""

    match: int
    answers: bool


@dataclass(frozen=True, slots=True)
class View:
    """What the leader `name` knows. `last`: the index of its last entry. `own_term`: an entry of its own term is committed. `young`: it has
    led for less than an election timeout, so that who has not answered yet may still do."""

    name: str
    configuration: Configuration
    commit_index: int
    own_term: bool
    last: int
    level: int
    followers: Mapping[str, Follower]
    connected: frozenset[str] = frozenset()
    young: bool = False

    @property
    def settled(self) -> bool:
        return self.configuration.index <= self.commit_index

    def answers(self, name: str) -> bool:
        return name == self.name or (name in self.followers and self.followers[name].answers)


@dataclass(frozen=True, slots=True)
class Done:
    """It is as wished, since log index `index`."""

    index: int


@dataclass(frozen=True, slots=True)
class Propose:
    voters: tuple[str, ...]
    learners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now, because of `reason`; it goes on by itself, or can be tried again."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Somebody else must lead first, and carry it out."""


Step = Done | Propose | Wait | HandOver


def next_step(wish: Wish, view: View, rules: Protections = ALL) -> Step:
    """What to do about `wish`. Raises LevelTooLow, InvalidRequest or NoQuorum where it must not be carried out."""
    if not _NAME.fullmatch(wish.name):
        raise InvalidRequest(f"{wish.name!r} is no name of a node", fix="hmctl status")
    if view.level < LEVEL:
        raise LevelTooLow(f"the voters can be changed from feature level {LEVEL} on; the cluster is at {view.level}", fix="hmctl deploy")
    step = _add(wish.name, view, rules) if isinstance(wish, Add) else _remove(wish.name, view)
    if not isinstance(step, Propose):
        return step
    if (reason := _hindrance(view, rules)) is not None:
        return Wait(reason)
    return step


def promotion(view: View, rules: Protections = ALL) -> Propose | None:
    """Make a voter of a learner that answers and lags by no more than CLOSE entries: the next commits may have to wait for it."""
    if _hindrance(view, rules) is not None:
        return None
    configuration = view.configuration
    for learner in configuration.learners:
        if view.answers(learner) and view.followers[learner].match >= max(configuration.index, view.last - CLOSE):
            return _with_voter(configuration, learner)
    return None


def _hindrance(view: View, rules: Protections) -> str | None:
    if not view.settled and rules.one_change_at_a_time:
        return f"the change at log index {view.configuration.index} is not committed yet"
    if not view.own_term and rules.own_term_first:
        return f"{view.name} has led for too short a time"
    return None


def _add(name: str, view: View, rules: Protections) -> Step:
    configuration = view.configuration
    if name in configuration.voters:
        return Done(configuration.index) if view.settled else Wait(f"{name} is a voter once log index {configuration.index} is committed")
    if name not in configuration.learners:
        if name not in view.connected:
            return Wait(f"{name} is not connected to {view.name}")
        if not rules.learners_first:
            return _with_voter(configuration, name)
        return Propose(configuration.voters, tuple(sorted((*configuration.learners, name))))
    if not view.answers(name):
        return Wait(f"{name} is a learner, and does not answer {view.name}")
    return Wait(f"{name} is a learner, and holds {view.followers[name].match} of {view.last} log entries")


def _with_voter(configuration: Configuration, name: str) -> Propose:
    learners = tuple(learner for learner in configuration.learners if learner != name)
    return Propose(tuple(sorted((*configuration.voters, name))), learners)


def _remove(name: str, view: View) -> Step:
    configuration = view.configuration
    if name in configuration.learners:
        return Propose(configuration.voters, tuple(learner for learner in configuration.learners if learner != name))
    if name not in configuration.voters:
        return Done(configuration.index) if view.settled else Wait(f"{name} is removed when log index {configuration.index} is committed")
    rest = tuple(voter for voter in configuration.voters if voter != name)
    if not rest:
        raise InvalidRequest(f"{name} is the last voter: without it there is no cluster", fix="hmctl reset")
    if (reason := _lacking(name, rest, view)) is not None:
        if view.young:
            return Wait(reason)
        raise NoQuorum(reason, fix="hmctl status")
    return HandOver() if name == view.name else Propose(rest, configuration.learners)


def _lacking(name: str, rest: tuple[str, ...], view: View) -> str | None:
    """Why the remaining voters could not decide anything; None if they could."""
    silent = sorted(voter for voter in rest if not view.answers(voter))
    needed, answering = len(rest) // 2 + 1, len(rest) - len(silent)
    if answering >= needed:
        return None
    return f"without {name}, {needed} of {len(rest)} voters would be needed; {answering} answer ({', '.join(silent)}: no answer)"


def unfinished(wish: Wish, reason: str, seconds: float) -> ChangeUnfinished:
    """What to say when the time is up."""
    done = f"{wish.name} is not {'a voter' if isinstance(wish, Add) else 'removed'} after {seconds:g} s"
    return ChangeUnfinished(f"{done}: {reason}", fix="hmctl raft ls")
