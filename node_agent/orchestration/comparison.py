"""States are compared all the time: a control node listens to the hashes that the others tell, and takes their state if its own is wrong.

What it found is in every report (`hmctl status` calls it critical) and, written by the leader, among the cluster's events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from hmcore.errors import HyperMeshError
from hmcore.records import Divergence, RaftReport
from node_agent.consensus import levels
from node_agent.consensus.agreement import Claim, Judgement, Ledger, Odd, Split
from node_agent.consensus.commands import NoteDivergence, encode
from node_agent.consensus.selfcure import ROUNDS, HandOver, Reseed, Situation, Wait, decide

_HASH = 12  # letters of a hash that people are shown

log = logging.getLogger(__name__)


class Voter(Protocol):
    """What VoterLayer has."""

    @property
    def hashes(self) -> Mapping[int, str]: ...
    @property
    def claims(self) -> tuple[Claim, ...]: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def since_reseeding(self) -> float | None: ...
    def report(self) -> RaftReport: ...
    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]: ...
    async def hand_over(self) -> None: ...
    async def reseed(self, index: int) -> None: ...


class Comparison:
    """`heartbeat`: seconds between two looks, while something is wrong; else it sleeps until a hash is told. `silent_after`: seconds."""

    def __init__(self, me: str, voter: Voter, *, heartbeat: float, silent_after: float, timeout: float, clock: Callable[[], float]) -> None:
        self._me = me
        self._voter = voter
        self._heartbeat = heartbeat
        self._silent_after = silent_after
        self._timeout = timeout
        self._clock = clock
        self._ledger = Ledger(me)
        self._heard: dict[str, float] = {}
        self._reseeding: set[str] = set()
        self._judgement = Judgement()
        self._rounds = 0  # in a row in which the judgement was the same
        self._reason = ""
        self._noted: set[str] = set()
        self._news = asyncio.Event()

    def hear(self, name: str, claims: tuple[Claim, ...], *, reseeding: bool) -> None:
        """A heartbeat has come, of a control node; or our own went out."""
        self._heard[name] = self._clock()
        (self._reseeding.add if reseeding else self._reseeding.discard)(name)
        if self._ledger.hear(name, claims) or self._judgement != Judgement():
            self._news.set()

    @property
    def divergences(self) -> list[Divergence]:
        """For the node's report."""
        found = [self._told(odd) for odd in self._judgement.odd]
        split = self._judgement.split
        return found if split is None or self._rounds < ROUNDS else [*found, _split(split)]

    def _told(self, odd: Odd) -> Divergence:
        reason = self._reason if odd.node == self._me else ""
        return Divergence(node=odd.node, index=odd.index, hash=odd.hash, agreed=odd.agreed, others=list(odd.others), waits=reason)

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._round()
            await asyncio.sleep(self._heartbeat)

    async def _round(self) -> None:
        before, report = self._judgement, self._voter.report()
        if not self._voter.claims and any(odd.node == self._me for odd in before.odd):
            return  # we are being re-seeded: no news before it is done
        now = self._ledger.judge(self._voter.hashes, report.voters, report.learners)
        known = {odd.node: odd for odd in before.odd}  # what was told first is forgotten in time, but that is where to look
        now = self._judgement = replace(now, odd=tuple(min(odd, known.get(odd.node, odd), key=_index) for odd in now.odd))
        same = {odd.node for odd in now.odd} == {odd.node for odd in before.odd} and (now.split is None) == (before.split is None)
        self._rounds = self._rounds + 1 if same else 1
        if not same:
            _say(before, now)
        self._noted &= {odd.node for odd in now.odd}
        for odd in now.odd:
            await self._note(odd)
        mine = next((odd for odd in now.odd if odd.node == self._me), None)
        if mine is not None:
            await self._cure(mine, report)

    async def _note(self, odd: Odd) -> None:
        """Once, whoever leads: requests of one id are carried out once."""
        if not self._voter.is_leader or odd.node in self._noted or self._voter.report().level < levels.TRUSTED:
            return
        command = NoteDivergence(node=odd.node, index=odd.index, others=odd.others)
        try:
            await self._voter.propose(encode(command), request_id=f"diverged-{odd.node}-{odd.index}", timeout=self._timeout)
        except HyperMeshError as error:
            log.warning("that %s has diverged cannot be recorded: %s", odd.node, error)
            return
        self._noted.add(odd.node)

    async def _cure(self, odd: Odd, report: RaftReport) -> None:
        since = self._clock() - self._silent_after
        situation = Situation(
            voters=report.voters,
            leader=report.leader,
            present={name for name, at in self._heard.items() if at > since},
            reseeding=frozenset(self._reseeding),
            since=self._voter.since_reseeding,
        )
        action = decide(self._me, odd, self._judgement, situation, self._rounds)
        reason = action.reason if isinstance(action, Wait) else ""
        if reason and reason != self._reason:
            log.error("this node does not re-seed itself: %s", reason)
        self._reason = reason
        match action:
            case HandOver():
                log.warning("handing the leadership over, to re-seed this node")
                await self._voter.hand_over()
            case Reseed(index=index):
                log.warning("re-seeding this node: its state is moved aside, and taken from the leader anew")
                await self._voter.reseed(index)
                self._rounds = 0


def _index(odd: Odd) -> int:
    return odd.index


def _say(before: Judgement, now: Judgement) -> None:
    for odd in now.odd:
        if odd.node not in {known.node for known in before.odd}:
            sides = odd.index, odd.hash, ", ".join(odd.others), odd.agreed
            log.error("%s has diverged: at log index %d its state is %s, that of %s is %s", odd.node, *sides)
    for known in before.odd:
        if known.node not in {odd.node for odd in now.odd}:
            log.info("%s holds the same state as the others again", known.node)
    if now.split is not None and before.split is None:
        log.warning("at log index %d there are different states, and no majority for any yet: %s", now.split.index, dict(now.split.sides))


def _split(split: Split) -> Divergence:
    sides = "; ".join(f"{', '.join(names)}: {said[:_HASH]}" for said, names in split.sides)
    everybody = [name for _, names in split.sides for name in names]
    return Divergence(node="", index=split.index, hash="", agreed="", others=everybody, waits=sides)
