"""States are compared all the time: a control node listens to the hashes that the others tell, and takes their state if its own is wrong.

What it found is in every report (`hmctl status` calls it critical) and, written by the leader, among the cluster's events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from hmcore.errors import HyperMeshError
from hmcore.records import Divergence, RaftReport
from node_agent.consensus.divergence.agreement import Judgement, Odd, Split
from node_agent.consensus.divergence.opinion import Opinion
from node_agent.consensus.divergence.selfcure import HandOver, Reseed, Wait
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.checkpoints import Claim
from node_agent.consensus.statemachine.commands import NoteDivergence, encode

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
        self._timeout = timeout
        self._clock = clock
        self._opinion = Opinion(me, silent_after)
        self._noted: set[str] = set()
        self._news = asyncio.Event()

    def hear(self, name: str, claims: tuple[Claim, ...], *, reseeding: bool) -> None:
        """A heartbeat has come, of a control node; or our own went out."""
        if self._opinion.hear(name, claims, reseeding=reseeding, now=self._clock()):
            self._news.set()

    @property
    def divergences(self) -> list[Divergence]:
        """For the node's report."""
        opinion = self._opinion
        found = [_told(odd, opinion.reason if odd.node == self._me else "") for odd in opinion.judgement.odd]
        return found if opinion.split is None else [*found, _split(opinion.split)]

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._round()
            await asyncio.sleep(self._heartbeat)

    async def _round(self) -> None:
        before, reason, report = self._opinion.judgement, self._opinion.reason, self._voter.report()
        action = self._opinion.look(
            self._voter.hashes,
            voters=report.voters,
            learners=report.learners,
            leader=report.leader,
            whole=bool(self._voter.claims),
            since=self._voter.since_reseeding,
            now=self._clock(),
        )
        _say(before, self._opinion.judgement)
        if self._opinion.reason not in ("", reason):
            log.error("this node does not re-seed itself: %s", self._opinion.reason)
        self._noted &= {odd.node for odd in self._opinion.judgement.odd}
        for odd in self._opinion.judgement.odd:
            await self._note(odd)
        match action:
            case HandOver():
                log.warning("handing the leadership over, to re-seed this node")
                await self._voter.hand_over()
            case Reseed(index=index):
                log.warning("re-seeding this node: its state is moved aside, and taken from the leader anew")
                await self._voter.reseed(index)
            case Wait():
                pass

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


def _told(odd: Odd, reason: str) -> Divergence:
    return Divergence(node=odd.node, index=odd.index, hash=odd.hash, agreed=odd.agreed, others=list(odd.others), waits=reason)


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
