"""What a voter knows about its cluster at one moment, and what it says about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hmcore.errors import HyperMeshError, NoQuorum, NotLeader
from hmcore.records import RaftReport


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted here. `entries` of the journal that no snapshot has replaced, and the `size` of their commands in bytes;
    `elections` that this node stood for since its agent started."""

    entries: int
    size: int
    elections: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """`enrolment` and `fault` say why this node does not (fully) take part, if so. `reachable` contains the node itself."""

    name: str
    voters: tuple[str, ...]
    reachable: tuple[str, ...]
    role: str  # as in hmcore.records.RaftReport
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    enrolment: str | None
    fault: HyperMeshError | None
    warning: str | None = None  # it works, but not for ever
    learners: tuple[str, ...] = ()
    leaderless: float = 0.0  # seconds since anybody led
    patience: float = float("inf")  # seconds that an election takes at most
    owed: int = 0  # the log index up to which this node's log went when it started, until all of it is carried out; then 0

    def no_quorum(self) -> NoQuorum:
        count = f"{len(self.reachable)} of {len(self.voters)} voters reachable"
        if self.enrolment is not None:
            return NoQuorum(self.enrolment, host=self.name)
        if self._too_few:
            return NoQuorum(f"no quorum: {count}", host=self.name)
        return NoQuorum(f"{'no leader at the moment' if self.leader is None else 'no answer in time'}: {count}", host=self.name)

    @property
    def _too_few(self) -> bool:
        return len(self.reachable) < len(self.voters) // 2 + 1

    def lasting_no_quorum(self) -> NoQuorum | None:
        """The lack of a quorum, unless it may be over in a moment: nobody has led for longer than an election takes."""
        if self.leader is not None or self.enrolment is not None or self.leaderless <= self.patience or not self._too_few:
            return None
        return self.no_quorum()

    def refusal(self) -> HyperMeshError | None:
        """Why a command cannot be taken here and now; None if it can."""
        if self.fault is not None:
            return self.fault
        if self.leader == self.name:
            return None
        if self.leader is not None:
            return NotLeader(f"{self.name} does not lead; {self.leader} does", leader=self.leader, host=self.name)
        return self.no_quorum()

    @property
    def settled(self) -> bool:
        """Whether the state here is what the cluster agreed on, and no earlier one that is still being caught up with."""
        return self.fault is None and self.enrolment is None and self.leader is not None and not self.owed

    @property
    def trouble(self) -> str | None:
        """Why this layer is degraded, for a person; None when it works."""
        if self.fault is not None:
            return str(self.fault)
        if self.enrolment is not None:
            return self.enrolment
        if self.leader is None:
            return self.no_quorum().message
        return f"has carried out {self.applied_index} of {self.owed} log entries since it started" if self.owed else self.warning

    def report(self) -> RaftReport:
        return RaftReport(
            role=self.role,
            leader=self.leader,
            term=self.term,
            commit_index=self.commit_index,
            applied_index=self.applied_index,
            voters=list(self.voters),
            reachable_voters=list(self.reachable),
            learners=list(self.learners),
        )
