"""Who may stand for election, and when: pre-vote (Ongaro 2014, section 9.6) and the rule that a living leader is left alone. Pure.

pysyncobj knows neither. It does not stand while it believes that nobody is connected; the transport lets it believe so until
`may_stand`.
"""

from __future__ import annotations


class Candidacy:
    """Times are seconds on the caller's clock."""

    def __init__(self, *, election_min: float, election_max: float) -> None:
        self._patience = election_min
        self._window = election_max  # long enough for pysyncobj's own random deadline to pass within
        self.heard = float("-inf")  # when the leader last spoke
        self._until = float("-inf")
        self._next = float("-inf")
        self._term = -1
        self._grants: set[str] = set()

    def heard_leader(self, now: float) -> None:
        self.heard = now

    def leader_lives(self, now: float) -> bool:
        """Whether the leader was heard too recently for anybody's candidacy to be welcome."""
        return now - self.heard < self._patience

    def silence(self, now: float) -> float:
        return now - self.heard

    def may_stand(self, now: float) -> bool:
        return now < self._until

    def invite(self, now: float) -> None:
        """The leader itself asks us to stand."""
        self._until = now + self._window

    def due(self, now: float) -> bool:
        """Whether it is time to ask the others for their pre-vote."""
        return not self.may_stand(now) and now >= self._next and not self.leader_lives(now)

    def wake(self) -> float:
        """When `due` can next become true."""
        return max(self._next, self._until, self.heard + self._patience)

    def ask(self, now: float, *, name: str, term: int, jitter: float) -> None:
        """The others are being asked whether they would vote for `name` in `term`. `jitter` is random, 0..1: two that ask in step would
        go on in step."""
        self._next = now + self._patience * (0.5 + jitter)
        self._term = term
        self._grants = {name}

    def grant(self, now: float, voter: str, *, term: int, current: int, voters: int) -> bool:
        """Count a pre-vote (or, with our own name, only look). True when a majority would vote for us: we may stand from now on."""
        if term != self._term or term != current + 1:
            return False
        self._grants.add(voter)
        if 2 * len(self._grants) <= voters:
            return False
        self._grants = set()
        self._term = -1
        self._until = now + self._window
        return True
