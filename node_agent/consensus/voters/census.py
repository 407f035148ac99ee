"""A node whose disk is empty, though the cluster exists: what the others must tell it before it may take part. Pure.

One that is a voter may have voted, and may have acknowledged entries, in any term up to the highest that it ever saw, and remembers
nothing. So it takes a term above all that the others know of (`floor`): whoever it voted for, or acknowledged to, is among them and knows
that term. It follows from there, neither voting nor standing, until it has applied an entry of that term or a later one: the leader of such
a term was elected without it, hence holds everything that was committed with its help (docs/adr/0026).

One that the others know as no voter has nothing to remember: it waits to be added (docs/adr/0069).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hmcore.records import Configuration
from node_agent.consensus.protocol.messages import TellStanding


@dataclass(frozen=True, slots=True)
class Reseed:
    """Follow from term `floor` on."""

    floor: int


@dataclass(frozen=True, slots=True)
class Wait:
    """It is no voter. `configuration` is committed, and names none of what it may have been before."""

    configuration: Configuration


class Census:
    """`founders`: the voters, as far as this node was told by its configuration file."""

    def __init__(self, name: str, founders: Sequence[str]) -> None:
        self._name = name
        self._founders = tuple(founders)
        self._told: dict[str, TellStanding] = {}

    def hear(self, peer: str, tell: TellStanding) -> None:
        """Only of those whose word counts."""
        self._told[peer] = tell

    @property
    def told_of(self) -> frozenset[str]:
        """Of whom those who vote say that they are of the cluster, or may be."""
        latest = (tell.latest for tell in self._members.values() if tell.latest is not None)
        told = [*(tell.committed for tell in self._members.values()), *latest]
        return frozenset(name for one in told for name in (*one.voters, *one.learners))

    @property
    def _members(self) -> dict[str, TellStanding]:
        """Those who vote, by their own word, and with a memory."""
        return {peer: tell for peer, tell in self._told.items() if tell.member}

    @property
    def cluster_exists(self) -> bool:
        return any(tell.formed for tell in self._members.values())

    @property
    def committed(self) -> Configuration:
        """The latest committed one that anybody told of; what the file says while nobody did."""
        told = [tell.committed for tell in self._members.values() if tell.voters]
        return max(told, key=lambda one: one.index, default=Configuration(voters=self._founders))

    @property
    def _ever(self) -> frozenset[str]:
        """Whose vote may have counted in the latest steps: by the committed configuration, or by one that may yet be."""
        latest = (name for tell in self._members.values() if tell.latest is not None for name in tell.latest.voters)
        return frozenset((*self.committed.voters, *latest))

    @property
    def verdict(self) -> Reseed | Wait | None:
        """None as long as too few told (`lacking`)."""
        if not self._members or self._silent or self._thin or self._unsettled:
            return None
        if self._name in self._ever:
            return Reseed(max(tell.term for peer, tell in self._told.items() if peer in self._ever) + 1)
        return Wait(self.committed)

    @property
    def _silent(self) -> list[str]:
        """Whom to wait for. If it may be a voter, each of the others may be the one it voted for; else a majority knows that it is none."""
        if self._name not in self._ever and self._name not in self.committed.learners:
            return []
        return sorted(self._ever - self._told.keys() - {self._name})

    @property
    def _thin(self) -> bool:
        voters = self.committed.voters
        return sum(voter in self._members for voter in voters) < len(voters) // 2 + 1

    @property
    def _unsettled(self) -> bool:
        """Somebody has a configuration that is not committed as far as we heard: a moment's wait tells whether it will be."""
        if self._name in self._ever:
            return False
        return any(tell.latest is not None and tell.latest.index > self.committed.index for tell in self._members.values())

    @property
    def lacking(self) -> str:
        """What `verdict` still waits for."""
        untold = [name for name in self.committed.voters if name != self._name and name not in self._told]
        if silent := self._silent or (untold if self._thin else []):
            return f"{', '.join(silent)} must say how far the cluster has come"
        if self._thin:
            return f"{len(self.committed.voters) // 2 + 1} of the other voters must still have their journals"
        return "a change of the voters is on its way"
