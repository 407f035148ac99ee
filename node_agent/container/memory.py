"""What a node remembers of its allocations between two looks at Docker. Values, and what an action's outcome makes of them. Pure.

All of it may be lost at any moment: what an agent owns is written on the containers, as labels. It starts with what its node told the
cluster last (`recalled`), so that a job that is done is not done again, and restarts are counted on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from hmcore.apps.records import AllocationStatus, Phase
from hmcore.errors import ContainerRefused, HyperMeshError, ImageGone, NameTaken, NoSpace, PartGone
from node_agent.container.actions import Action, Cancel, Kill, Pull, Remove, Run, Start, Stop
from node_agent.container.draining import Drain
from node_agent.container.hindrance import FREE, Hindrance
from node_agent.container.restarts import trouble_pause

KILL_AGAIN = 10.0  # seconds after SIGKILL, for a process that did not end by it
MOST_ERROR = 300  # characters


@dataclass(frozen=True, slots=True)
class Recall:
    """Of one allocation. Times in seconds of the agent's monotonic clock, but for `told_since` and `spared`.

    `restarts`: ends, and refusals to start it, that another try followed or follows, since it was placed here. `streak`: the same in a
    row. `ended`: its last end is counted already. `refused`: Docker refused to start it, which is not counted yet. `not_before`: its
    policy's pause. `troubles`: failures in a row that are not the container's fault; what failed is tried again for ever, not before
    `hold`, or `stop_hold` where it was to end it. `hindrance`: those of them that kept it from a start; it means something until it is
    `tried`. `since`: it has been seen to run since.
    `spared`: its last end that was Docker's and no end by itself (Seen.by_docker) came before this start of Docker.
    `drain`: it is to stop, and since when that waits for others to notice.
    `acting`: the action under way. `acted`: Memory.settled once the last one was over: what was asked for before says nothing of it.
    """

    restarts: int = 0
    streak: int = 0
    ended: bool = False
    refused: bool = False
    not_before: float = -math.inf
    final: Phase | None = None
    exit_code: int | None = None
    error: str = ""
    troubles: int = 0
    hold: float = -math.inf
    stop_hold: float = -math.inf
    hindrance: Hindrance = FREE
    since: float | None = None
    spared: float | None = None
    image: str = ""  # the id that a pull came to
    pull: bool = False  # whatever is said to be present, Docker does not have it
    renamed: bool = False  # its first name is somebody else's
    remake: bool = False  # its container cannot be started any more
    drain: Drain | None = None
    acting: Action | None = None
    acted: int = 0
    told: Phase | None = None
    told_since: float = 0.0

    @property
    def tried(self) -> bool:
        """It ran once, or its policy was asked what follows from a refusal: what comes now is no first start."""
        return self.ended or self.restarts > 0 or self.since is not None


@dataclass(frozen=True, slots=True)
class Memory:
    """`stops`: by a container's id, when it is to be killed unless it has ended. `settled` counts the actions that are over."""

    allocations: Mapping[str, Recall] = field(default_factory=dict)
    stops: Mapping[str, float] = field(default_factory=dict)
    settled: int = 0

    def of(self, allocation: str) -> Recall:
        return self.allocations.get(allocation, Recall())

    def knowing(self, allocation: str, recall: Recall) -> Memory:
        return replace(self, allocations={**self.allocations, allocation: recall})

    @property
    def acting(self) -> frozenset[str]:
        return frozenset(name for name, recall in self.allocations.items() if recall.acting is not None)


def recalled(statuses: Iterable[AllocationStatus]) -> Memory:
    """What an agent that starts knows: what its node said of itself before."""
    return Memory({status.id: _recall(status) for status in statuses})


def _recall(status: AllocationStatus) -> Recall:
    over = status.phase in (Phase.DONE, Phase.FAILED)
    return Recall(
        restarts=status.restarts,
        final=status.phase if over else None,
        ended=over,
        exit_code=status.exit_code,
        error=status.error if over else "",
        told=status.phase,
        told_since=status.since,
    )


def begun(memory: Memory, action: Action) -> Memory:
    """It is under way."""
    if isinstance(action, Cancel):
        return memory
    return memory.knowing(action.allocation, replace(memory.of(action.allocation), acting=action))


def settled(memory: Memory, action: Action, outcome: str | HyperMeshError | None, now: float) -> Memory:
    """It is over. `outcome`: what it came to (of a pull the image's id, of a start the container's), why it failed, or None: it was
    cancelled. Whether Docker carried it out all the same is seen at the next look."""
    memory = replace(memory, settled=memory.settled + 1)
    before = replace(memory.of(action.allocation), acting=None, acted=memory.settled)
    match outcome:
        case None:
            return memory.knowing(action.allocation, before)
        case str():
            return _done(memory, action, outcome, before, now)
        case HyperMeshError():
            return memory.knowing(action.allocation, _failed(action, outcome, before, now))


def _done(memory: Memory, action: Action, value: str, before: Recall, now: float) -> Memory:
    calm = replace(before, troubles=0, hold=-math.inf, stop_hold=-math.inf)
    stops = dict(memory.stops)
    match action:
        case Pull() if before.pull:  # what is gone as soon as it is here is pulled with success each time: that alone is no way out
            after = replace(calm, image=value, pull=False)
        case Pull():
            after = replace(calm, image=value, error="", hindrance=FREE)
        case Run() | Start():
            after = replace(calm, since=now, ended=False, remake=False, error="")
        case Stop(_, container, grace):
            after, stops[container] = calm, now + grace
        case Kill(_, container):
            after, stops[container] = calm, now + KILL_AGAIN
        case Remove(_, container):
            stops.pop(container, None)
            after = replace(calm, since=None, remake=False)
        case Cancel():
            after = before
    return replace(memory.knowing(action.allocation, after), stops=stops)


def _failed(action: Action, error: HyperMeshError, before: Recall, now: float) -> Recall:
    troubles = before.troubles + 1
    again = now + trouble_pause(troubles)
    after = replace(before, troubles=troubles, error=error.with_fix[:MOST_ERROR])
    if isinstance(action, Stop | Kill | Remove):
        return replace(after, stop_hold=again)
    after = replace(after, hold=again, hindrance=before.hindrance.after(error, now))
    if isinstance(action, Pull):
        return after
    match error:
        case ImageGone():
            return replace(after, pull=True)
        case NameTaken():
            return replace(after, renamed=not before.renamed)
        case PartGone():
            return replace(after, remake=True)
        case NoSpace():
            return after
        case ContainerRefused():  # it will not be otherwise before something about it changes: its policy says how often to try
            return replace(after, troubles=0, hold=before.hold, refused=True)
        case _:
            return after
