"""Whether this node may take part: formation by permission, and re-seeding of a node whose disk is empty (design section 4, docs/adr/0026).

Kept in the journal's Standing. Without one, a node neither votes nor answers the leader: it asks the other voters whether there is a
cluster already. Somebody permits it to form one, or a peer says that there is one; never both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from hmcore.errors import FormationFailed
from node_agent.consensus.census import Census
from node_agent.consensus.changes import Standing
from node_agent.consensus.engine import Engine
from node_agent.consensus.journal import Journal
from node_agent.consensus.messages import AskStanding, TellStanding
from node_agent.consensus.replica import Replica


@dataclass(frozen=True, slots=True)
class FormationStatus:
    """hmcore.api.Formation, but for the bootstrap id, which the configuration knows.

    `empty`: the journal holds nothing. `permitted`: this node votes. `formed`: it knows that the cluster was formed.
    """

    empty: bool
    permitted: bool
    formed: bool
    term: int


class Enrolment:
    def __init__(
        self,
        name: str,
        voters: Sequence[str],
        *,
        journal: Journal,
        replica: Replica,
        transmit: Callable[[str, AskStanding | TellStanding], bool],
        on_voters: Callable[[], None],
    ) -> None:
        """`on_voters` is called when the journal's standing names the voters, told by one of them."""
        self._name = name
        self._journal = journal
        self._replica = replica
        self._transmit = transmit
        self._on_voters = on_voters
        self._voters = tuple(voters)
        self._census = Census(name, voters)

    def seat(self, voters: Sequence[str]) -> None:
        """These are the voters. Only before the engine runs."""
        if set(voters) != set(self._voters):
            self._voters = tuple(voters)
            self._census = Census(self._name, voters)  # what others told stands no longer: they are asked again

    @property
    def entitled(self) -> bool:
        """Whether pysyncobj may run: this node votes, or knows the term from which on it may follow."""
        return bool(self._journal.standing.bootstrap or self._journal.standing.floor)

    @property
    def reseeding(self) -> bool:
        return self._journal.standing.reseeding

    @property
    def floor(self) -> int:
        return self._journal.standing.floor

    def status(self, term: int) -> FormationStatus:
        standing = self._journal.standing
        formed = standing.formed or self._replica.state.cluster is not None
        return FormationStatus(self._journal.empty, bool(standing.bootstrap), formed, term)

    @property
    def trouble(self) -> str | None:
        standing = self._journal.standing
        if standing.reseeding:
            return "re-seeding: catching up with the leader" if standing.floor else f"re-seeding: {self._census.lacking}"
        return None if standing.bootstrap else "not yet part of a formed cluster"

    def permit(self, bootstrap: str) -> None:
        """Not durable before the journal is synced. Raises FormationFailed."""
        standing = self._journal.standing
        if standing.reseeding or self._census.cluster_exists:
            raise FormationFailed("the cluster is formed already; this node is being re-seeded from it", host=self._name)
        if standing.bootstrap not in ("", bootstrap):
            raise FormationFailed(f"this node takes part in another formation ({standing.bootstrap})", host=self._name)
        if not standing.bootstrap:
            self._journal.standing = Standing(bootstrap=bootstrap, voters=self._voters)

    def reseed(self) -> None:
        """The cluster exists, though our journal is empty."""
        if self._journal.standing == Standing():
            self._journal.standing = Standing(formed=True, reseeding=True)

    def ask(self, peer: str) -> None:
        self._transmit(peer, AskStanding())

    def heard(self, peer: str, message: AskStanding | TellStanding, term: int) -> None:
        """Answer a question, or draw the consequences of an answer."""
        if isinstance(message, AskStanding):
            standing = self._journal.standing
            member = bool(standing.bootstrap) and not standing.reseeding
            self._transmit(peer, TellStanding(term, member, standing.formed, standing.voters))
            return
        self._census.hear(peer, message)
        if self._census.cluster_exists:
            self.reseed()
        if self.reseeding and not self._journal.standing.voters and self._census.voters:
            self._journal.standing = Standing(formed=True, reseeding=True, voters=self._census.voters)
            self._on_voters()
        floor = self._census.floor
        if self.reseeding and not self.floor and floor is not None:
            self._journal.standing = msgspec.structs.replace(self._journal.standing, floor=floor)

    def settle(self, engine: Engine) -> None:
        """Note that the cluster is formed; and that a re-seeded node may vote again, once it has applied an entry of its floor's term.

        Raises StorageFull.
        """
        cluster = self._replica.state.cluster
        if cluster is None:
            return
        if self.reseeding:
            position = engine.applied_index - self._journal[0].index
            if not 0 <= position < len(self._journal) or self._journal[position].term < self.floor:
                return
        was_reseeding = self.reseeding
        self._journal.standing = Standing(bootstrap=cluster.bootstrap, formed=True, voters=self._voters)
        if was_reseeding:
            self._journal.sync()  # before anybody takes this node for a member and relies on it
