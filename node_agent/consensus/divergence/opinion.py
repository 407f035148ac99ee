"""What one node has come to think of all states, from look to look: who is odd, for how long, and what it does about itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from node_agent.consensus.divergence.agreement import Judgement, Ledger, Odd, Split
from node_agent.consensus.divergence.selfcure import ROUNDS, Action, Reseed, Situation, Wait, decide
from node_agent.consensus.statemachine.checkpoints import Claim


class Opinion:
    """`silent_after`: seconds without a heartbeat after which a node counts as away. `reason`: why this node, odd, does not cure itself."""

    def __init__(self, me: str, silent_after: float) -> None:
        self._me = me
        self._silent_after = silent_after
        self._ledger = Ledger(me)
        self._heard: dict[str, float] = {}
        self._reseeding: set[str] = set()
        self._rounds = 0  # in a row in which the judgement was the same
        self.judgement = Judgement()
        self.reason = ""

    def hear(self, name: str, claims: Iterable[Claim], *, reseeding: bool, now: float) -> bool:
        """A heartbeat. Returns whether it is time to look."""
        self._heard[name] = now
        (self._reseeding.add if reseeding else self._reseeding.discard)(name)
        return self._ledger.hear(name, claims) or self.judgement != Judgement()

    @property
    def split(self) -> Split | None:
        """If it lasts: for a moment, one has told what the others are about to."""
        return self.judgement.split if self._rounds >= ROUNDS else None

    def look(
        self,
        own: Mapping[int, str],
        *,
        voters: Sequence[str],
        learners: Sequence[str],
        leader: str | None,
        whole: bool,
        since: float | None,
        now: float,
    ) -> Action:
        """Once a heartbeat at most. `whole`: this node holds a state, not one that is still being taken over. `since`: seconds since
        it re-seeded itself last."""
        before = self.judgement
        if not whole and any(odd.node == self._me for odd in before.odd):
            return Wait()  # no news of ourselves before that is done
        judgement = self._ledger.judge(own, voters, learners)
        known = {odd.node: odd for odd in before.odd}  # what was told first is forgotten in time, but that is where to look
        self.judgement = replace(judgement, odd=tuple(min(odd, known.get(odd.node, odd), key=_index) for odd in judgement.odd))
        self._rounds = self._rounds + 1 if _same(before, self.judgement) else 1
        action: Action = Wait()
        mine = next((odd for odd in self.judgement.odd if odd.node == self._me), None)
        if mine is not None:
            present = {name for name, at in self._heard.items() if now < at + self._silent_after}
            situation = Situation(voters, leader, present, frozenset(self._reseeding), since)
            action = decide(self._me, mine, self.judgement, situation, self._rounds)
        if isinstance(action, Reseed):
            self._rounds = 0
        self.reason = action.reason if isinstance(action, Wait) else ""
        return action


def _same(before: Judgement, now: Judgement) -> bool:
    return {odd.node for odd in before.odd} == {odd.node for odd in now.odd} and (before.split is None) == (now.split is None)


def _index(odd: Odd) -> int:
    return odd.index
