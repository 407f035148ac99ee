"""Whether this node may take part: formation by permission, re-seeding of a node whose disk is empty (design section 4, docs/adr/0026), and
waiting outside of a cluster whose configuration leaves this node out (docs/adr/0069).

Kept in the journal's Standing. Without one, a node neither votes nor answers the leader: it asks the other voters whether there is a
cluster already. Somebody permits it to form one, or a peer says that there is one; never both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from hmcore.errors import FormationFailed
from hmcore.records import Configuration
from node_agent.consensus.log.changes import Standing
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.protocol.engine import Engine
from node_agent.consensus.protocol.messages import AskStanding, TellStanding
from node_agent.consensus.statemachine.replica import Replica
from node_agent.consensus.voters.census import Census, Reseed, Wait
from node_agent.consensus.voters.reconfiguration import LEVEL


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
    """`founders`: the voters of agent.yaml."""

    def __init__(
        self,
        name: str,
        founders: Sequence[str],
        *,
        journal: Journal,
        replica: Replica,
        transmit: Callable[[str, AskStanding | TellStanding], bool],
    ) -> None:
        self._name = name
        self._founders = tuple(sorted(founders))
        self._journal = journal
        self._replica = replica
        self._transmit = transmit
        self._census = Census(name, founders)
        self._kin: set[str] = set()  # who showed that their log is a later one of ours

    @property
    def entitled(self) -> bool:
        """Whether pysyncobj may run: this node votes, or knows the term from which on it may follow, or that it never did vote."""
        standing = self._journal.standing
        return bool(standing.bootstrap or standing.floor) or (standing.formed and not standing.reseeding)

    @property
    def reseeding(self) -> bool:
        return self._journal.standing.reseeding

    @property
    def floor(self) -> int:
        return self._journal.standing.floor

    @property
    def outside(self) -> bool:
        """Whether the cluster is formed without us: neither do we vote, nor are we being caught up."""
        configuration, standing = self._journal.configuration, self._journal.standing
        return self._name not in (*configuration.voters, *configuration.learners) and (standing.formed or bool(standing.bootstrap))

    @property
    def removed(self) -> bool:
        """Whether we are outside, and once were not."""
        return self.outside and bool(self._journal.standing.bootstrap)

    @property
    def acquainted(self) -> frozenset[str]:
        """Of whom we know, from the log, from those who vote or by their own proof, that they may be of the cluster. agent.yaml counts only
        where no formation with another list could be meant (docs/adr/0045)."""
        configuration, cluster = self._journal.configuration, self._replica.state.cluster
        known = self._census.told_of | self._kin | {*configuration.voters, *configuration.learners}
        changes = configuration.index > 0 or (cluster is not None and cluster.feature_level >= LEVEL)
        return known | set(self._founders) if changes or not self._journal.standing.voters else known

    def status(self, term: int) -> FormationStatus:
        standing = self._journal.standing
        formed = standing.formed or self._replica.state.cluster is not None
        return FormationStatus(self._journal.empty, bool(standing.bootstrap), formed, term)

    @property
    def trouble(self) -> str | None:
        standing = self._journal.standing
        if standing.reseeding:
            return "re-seeding: catching up with the leader" if standing.floor else f"re-seeding: {self._census.lacking}"
        if self.outside:
            again = f"hmctl raft add {self._name}"
            if not standing.bootstrap:
                return f"{self._name} is none of the voters, and waits to be added: {again}"
            index = self._journal.configuration.index
            return f"{self._name} was removed from the voters (log index {index}); to let it vote again: {again}"
        return None if standing.bootstrap or standing.formed else "not yet part of a formed cluster"

    def permit(self, bootstrap: str) -> None:
        """Not durable before the journal is synced. Raises FormationFailed."""
        standing = self._journal.standing
        if standing.bootstrap == bootstrap and not standing.reseeding:
            return
        if standing.formed or standing.reseeding or self._census.cluster_exists:
            raise FormationFailed("the cluster is formed already; this node is being re-seeded from it", host=self._name)
        if standing.bootstrap:
            raise FormationFailed(f"this node takes part in another formation ({standing.bootstrap})", host=self._name)
        self._journal.standing = Standing(bootstrap=bootstrap, voters=self._founders)

    def reseed(self) -> None:
        """The cluster exists, though our journal is empty."""
        if self._journal.standing == Standing():
            self._journal.standing = Standing(formed=True, reseeding=True)

    # --- standings

    def ask(self, peer: str) -> None:
        if peer in self.acquainted:
            self._transmit(peer, AskStanding())

    def tell(self, peer: str, *, term: int, commit_index: int) -> None:
        """How far we are, and who is of the cluster."""
        standing, latest = self._journal.standing, self._journal.configuration
        member = bool(standing.bootstrap) and not standing.reseeding and self._name in latest.voters
        committed = self._journal.configuration_at(commit_index)
        whole = TellStanding(term, member, standing.formed, committed.voters, committed.learners, committed.index)
        changing = None if latest == committed else latest
        self._transmit(
            peer,
            msgspec.structs.replace(whole, latest=changing, commit_index=max(commit_index, committed.index), bootstrap=standing.bootstrap),
        )

    def told(self, peer: str, tell: TellStanding, *, commit_index: int) -> None:
        """Draw the consequences of what another says of itself and of the cluster."""
        if self._akin(tell):
            self._kin.add(peer)
        if peer not in self.acquainted:
            return
        self._census.hear(peer, tell)
        if self._census.cluster_exists:
            self.reseed()
        if self.reseeding and not self.floor:
            self._judge()
        elif self._leaves_us_out(peer, tell, commit_index):
            standing = self._journal.standing
            self._journal.standing = _outside(tell.committed, standing.bootstrap, tell.commit_index)

    def _akin(self, tell: TellStanding) -> bool:
        """Whether who tells this votes in a later configuration of our own cluster, and one that counts on us.

        Those who could tell us of it may be gone. But what was formed as our cluster was, and has changed its voters through the log since,
        is this cluster; and where we are named, our answers may be what is lacking.
        """
        standing, configuration = self._journal.standing, tell.latest or tell.committed
        ours = tell.member and tell.formed and bool(standing.bootstrap) and tell.bootstrap == standing.bootstrap
        return ours and configuration.index > 0 and self._name in (*configuration.voters, *configuration.learners)

    def _judge(self) -> None:
        match self._census.verdict:
            case Reseed(floor=floor):
                self._journal.standing = _based(Standing(formed=True, reseeding=True, floor=floor), self._census.committed)
            case Wait(configuration=configuration):
                self._journal.standing = _outside(configuration, bootstrap="")
            case None:
                self._journal.standing = _based(self._journal.standing, self._census.committed)

    def _leaves_us_out(self, peer: str, tell: TellStanding, commit_index: int) -> bool:
        """Whether a member of it tells of a committed configuration that we are no part of, and that is news to us.

        Not the word of one who lags behind: the log may hold a later one that we are part of, which goes on to count (configurations.py).
        """
        committed, standing, ours = tell.committed, self._journal.standing, self._journal.configuration
        if not (standing.formed or standing.bootstrap) or not tell.member or peer not in committed.voters:
            return False
        news = committed.index > max(commit_index, standing.configured)
        refuted = commit_index < ours.index <= tell.commit_index and committed.index < ours.index  # ours was never committed
        return (news or refuted) and self._name not in (*committed.voters, *committed.learners)

    def settle(self, engine: Engine) -> None:
        """Note that the cluster is formed; and that a re-seeded node may vote again, once it has applied an entry of its floor's term.

        Raises StorageFull.
        """
        cluster, standing = self._replica.state.cluster, self._journal.standing
        if cluster is None or (standing.formed and standing.bootstrap and not standing.reseeding):
            return
        if self.reseeding:
            position = engine.applied_index - self._journal[0].index
            if not 0 <= position < len(self._journal) or self._journal[position].term < self.floor:
                return
        was_reseeding = self.reseeding
        voters = standing.voters or self._founders
        settled = msgspec.structs.replace(standing, bootstrap=cluster.bootstrap, formed=True, reseeding=False, floor=0, voters=voters)
        self._journal.standing = settled
        if was_reseeding:
            self._journal.sync()  # before anybody takes this node for a member and relies on it


def _based(standing: Standing, on: Configuration) -> Standing:
    return msgspec.structs.replace(standing, voters=on.voters, learners=on.learners, configured=on.index)


def _outside(configuration: Configuration, bootstrap: str, known: int = 0) -> Standing:
    return _based(Standing(bootstrap=bootstrap, formed=True, known=known), configuration)
