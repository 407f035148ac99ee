"""What the leader knows of one app when it decides what becomes of its replicas, and what it can decide. Values only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hmcore.apps.records import Allocation, AllocationStatus, App, Generation
from hmcore.records import NodeState
from node_agent.orchestration.rollouts.memory import Observed


@dataclass(frozen=True, slots=True)
class Situation:
    """Of one app. Times are seconds by the leader's monotonic clock."""

    app: App
    target: Generation  # number App.generation
    healthy: Generation | None  # number App.healthy
    allocations: Mapping[str, Allocation]  # by id: all of the app that are not forgotten
    statuses: Mapping[str, AllocationStatus]  # by id of the allocation, as its node told them last
    nodes: Mapping[str, NodeState]  # the members; a node that is not among them is gone
    eligible: Mapping[str, Collection[str]] = field(
        default_factory=dict
    )  # by global service: nodes that its constraints allow, in any state
    stopped: Collection[str] = ()  # nodes that are down because their agents were stopped
    heard: Mapping[str, float] = field(default_factory=dict)  # when the leader heard a node last, as far as it knows
    closed: Collection[str] = ()  # nodes that run no apps: what is there shall leave
    dockerless: Collection[str] = ()  # nodes that say that their Docker does not answer
    pinned: Collection[str] = ()  # ids of allocations that could be nowhere but where they are
    asked: Mapping[str, float] = field(default_factory=dict)  # when this leader was asked last for a node's lease; never: not among them
    anchors: Collection[str] = ()  # ids of allocations by which alone it is known where a volume's data is
    no_place: Mapping[str, str] = field(default_factory=dict)  # by service of `target` that no node could ever take: why, in words


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds. `fence_after`: from when a node was last heard until its exclusive containers are dead for certain. `lost_after`: from when
    it was last heard until its replicas are given up, if it is down by then; `back_within`: the same where its agent said good-bye: it may
    only be restarting, while its containers run on. `docker_within`: from when a node was first seen to say that its Docker does not
    answer until its replicas are given up, if it still says so. `right_after`: for how long all replicas of a rollout that failed must be
    fit until that is forgotten."""

    fence_after: float
    lost_after: float = 0.0
    back_within: float = 0.0
    docker_within: float = 60.0
    right_after: float = 60.0


@dataclass(frozen=True, slots=True)
class Stop:
    allocation: str  # its id
    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """A replica that is to be placed: of a replicated service in `slot` (from 1), of a global one (slot 0) on `node`.

    `former`: how those are to stop that it begins beside; `leaving`: they must leave their node, whether there is a place for it or not.
    `after`: it begins after them, not beside: if there is a place for it they stop, and then it is decided again. `shunned`: nodes where
    it could not be started a while ago.
    """

    service: str
    slot: int
    node: str
    generation: int
    revision: str
    reason: str
    former: tuple[Stop, ...] = ()
    leaving: bool = False
    after: bool = False
    shunned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Happening:
    """To become an Event, in the same command as what it tells."""

    kind: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be recorded, in ONE command that is refused if the app's index has changed since (and that changes it, whatever it does):
    two decisions from the same view would each be within the bounds, and both together beyond them.

    Starts for which there is no place are left out, and decided again; what stops for them: yielding.py. `observed` is the memory for the
    next look whatever becomes of the rest.
    """

    observed: Observed
    next: float | None = None  # when to look again if nothing happens; None: never
    app: App | None = None  # as it shall be; None: as it is
    generation: Generation | None = None  # to be made: App.generation of `app`
    starts: tuple[Start, ...] = ()
    stops: tuple[Stop, ...] = ()
    done: tuple[str, ...] = ()  # ids of allocations that ended well, to be marked so
    forgets: tuple[str, ...] = ()  # ids of allocations
    gone: bool = False  # the app was to be removed, and nothing is left of it
    events: tuple[Happening, ...] = ()
    waits: Mapping[str, str] = field(default_factory=dict)  # by service: what it waits for, in words; for people, not to be recorded

    @property
    def changes(self) -> bool:
        """Whether there is anything to record."""
        return bool(self.app or self.generation or self.starts or self.stops or self.done or self.forgets or self.gone)
