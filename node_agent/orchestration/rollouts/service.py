"""A service and its replicas as a decision sees them: what each is, in words that the rules are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hmcore.apps.records import Allocation, AllocationStatus, Phase, Rollout, Stage
from hmcore.apps.spec import ServiceSpec, Update
from hmcore.records import InstanceHealth, NodeState
from node_agent.orchestration.rollouts.memory import PRESENT, Seen, is_fit

Slot = tuple[int, str]  # (number, "") of a replicated service, (0, node) of a global one
UNSEEN = Seen(forgiven=None)
FIRST_ENDS = 3  # with pauses that double, more than half a minute: what it needs may be starting itself
_DRAINED = (NodeState.DRAINING, NodeState.DRAINED)


@dataclass(frozen=True, slots=True)
class Replica:
    """An allocation, what its node said of it, and how its node is (None: gone). `lost`: its node is given up. `fenced`: even what must
    not run twice is dead there by now. `closed`: its node runs no apps."""

    allocation: Allocation
    status: AllocationStatus | None
    node: NodeState | None
    seen: Seen
    lost: bool = False
    fenced: bool = False
    closed: bool = False

    @property
    def id(self) -> str:
        return self.allocation.id

    @property
    def ended_well(self) -> bool:
        status = self.status
        return self.allocation.done or (status is not None and status.phase is Phase.DONE and status.exit_code == 0)

    @property
    def ended(self) -> bool:
        """It does not run, and will not by itself."""
        return self.allocation.done or (self.status is not None and self.status.phase in (Phase.DONE, Phase.FAILED))

    @property
    def over(self) -> bool:
        """It has ended for good, or is not even there."""
        return self.allocation.done or (self.status is not None and self.status.phase is Phase.DONE)

    @property
    def live(self) -> bool:
        """It shall run (or has done what it was for), and its node may still be there."""
        return not self.allocation.stop and not self.lost

    @property
    def unsure(self) -> bool:
        """Its node is silent, and not given up yet."""
        return not self.lost and not self.allocation.done and self.node not in PRESENT

    @property
    def misplaced(self) -> bool:
        return (self.closed or self.node in _DRAINED) and not self.ended

    @property
    def stuck(self) -> bool:
        """Its node cannot bring it to its first start, and goes on trying."""
        return self.live and not self.ended and self.status is not None and self.status.stuck

    @property
    def fit(self) -> bool:
        return self.ended_well or (self.node in PRESENT and is_fit(self.status))

    @property
    def good(self) -> bool:
        """It has been fit for as long as its service wants to watch it, and has not been given up since."""
        return self.ended_well or (self.seen.good is not None and not self.ended)

    def trouble(self, patience: int) -> str:
        """Why it counts as failed while it is watched; empty: it does not. `patience`: ends after which it may be started again."""
        status = self.status
        if status is None or self.ended_well:
            return ""
        because = f": {status.error}" if status.error else ""
        if status.phase is Phase.FAILED:
            return f"it was given up{because}"
        if status.phase is Phase.DONE:
            return f"it ended with {status.exit_code}{because}"
        if self.seen.forgiven is not None and status.restarts > self.seen.forgiven + patience:
            code = "" if status.exit_code is None else f" with {status.exit_code}"
            return f"it ended{code}, and was started again{because}"
        if status.stuck:
            return f"it cannot be started{because}"
        if status.phase is Phase.RUNNING and status.health is InstanceHealth.UNHEALTHY:
            return f"it is unhealthy{because}"
        return ""

    def may_run(self, exclusive: bool) -> bool:
        """Whether its container may be running as far as we must care: what is cut off counts only where two would do harm. An agent that
        starts anew may try again what it had given up, so that only DONE is believed of what shall not run."""
        if self.over:
            return False
        if self.lost:
            return exclusive and not self.fenced
        if self.allocation.stop:
            return exclusive or self.status is None or not self.status.stopped
        return not self.ended


@dataclass(frozen=True, slots=True)
class Aim:
    """What a new replica is made of."""

    generation: int
    revision: str


@dataclass(frozen=True, slots=True)
class Service:
    """`rollout` is to exactly this generation and revision. `fallback`: what replicas are made of while that is not to be had; `count` of
    them there were to be. `proven`: the last healthy generation's number. `places`: of a global service, the nodes that it shall run on.
    `no_place`: why no node could ever take a replica of `aim`; empty: one could. `shunned`: by revision, nodes that could not start one.
    `bound`: to the node where its volumes are."""

    name: str
    spec: ServiceSpec
    how: Update
    aim: Aim
    rollout: Rollout
    replicas: tuple[Replica, ...]
    exclusive: bool
    fallback: Aim | None = None
    count: int = 0
    proven: int = 0
    places: frozenset[str] = frozenset()
    rolling_back: bool = False
    no_place: str = ""
    shunned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bound: bool = False

    @property
    def roams(self) -> bool:
        """What cannot be started on one node may be tried on another."""
        return not (self.is_global or self.exclusive or self.bound)

    @property
    def is_global(self) -> bool:
        return self.spec.mode == "global"

    @property
    def wanted(self) -> int:
        return len(self.places) if self.is_global else self.spec.replicas

    @property
    def start_first(self) -> bool:
        return self.how.order == "start-first" and not self.exclusive

    @property
    def patience(self) -> int:
        """See Replica.trouble. Nothing is lost by a first version that does not come up at once, and it may have to wait for others."""
        return FIRST_ENDS if self.fallback is None else 0

    @property
    def paused(self) -> bool:
        return self.rollout.stage is Stage.PAUSED

    @property
    def beyond(self) -> bool:
        """More have failed than may."""
        return len(self.rollout.failed) > self.how.max_failure_ratio * self.wanted

    @property
    def in_vain(self) -> bool:
        """What runs is to be replaced by what cannot run anywhere, which is more than may fail."""
        outdated = any(replica.live and not self.current(replica) for replica in self.replicas)
        return bool(self.no_place) and outdated and self.how.max_failure_ratio < 1

    def slot(self, replica: Replica) -> Slot:
        return (0, replica.allocation.node) if self.is_global else (replica.allocation.slot, "")

    def current(self, replica: Replica) -> bool:
        return replica.allocation.revision == self.aim.revision and not self.spent(replica)

    def spent(self, replica: Replica) -> bool:
        """It has failed for good under an earlier generation: whoever deploys again wants it tried again."""
        return replica.ended and not replica.ended_well and replica.allocation.generation < self.aim.generation

    def new(self, replica: Replica) -> bool:
        """It is of this rollout, or of one that came to nothing: it is to be watched."""
        made = replica.allocation.generation
        return self.current(replica) and (made == self.aim.generation or made > self.proven)

    def failed(self, replica: Replica) -> bool:
        return replica.id in self.rollout.failed

    def settled(self, replica: Replica) -> bool:
        """It is watched no longer."""
        return replica.good or replica.ended or self.failed(replica)


def by_slot(service: Service, replicas: Iterable[Replica]) -> Mapping[Slot, tuple[Replica, ...]]:
    """In the order of the slots, the best of each first: good before fit before others, the older before the newer."""
    slots: dict[Slot, list[Replica]] = {}
    for replica in replicas:
        slots.setdefault(service.slot(replica), []).append(replica)
    return {slot: tuple(sorted(slots[slot], key=_worth)) for slot in sorted(slots)}


def _worth(replica: Replica) -> tuple[bool, bool, int, str]:
    return not replica.good, not replica.fit, replica.allocation.generation, replica.id
