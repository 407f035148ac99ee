"""What happened, in the cluster and inside its containers, as one list by time. Pure; hmctl/actions/following.py asks the nodes.

Two sources: the cluster's events, which are replicated and few, and each node's own (programs that began, connections), which are kept
in its agent's memory and may be many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches

import msgspec

from hmcore.errors import UsageError
from hmcore.records import Event, InstanceHealth, NodeEvent, NodeState
from hmctl.actions.flows import Problem
from hmctl.text import plural

NODE_KINDS = ("exec", "tcp")  # what nodes keep; every other kind is replicated
FAMILIES: Mapping[str, Sequence[str]] = {  # of the replicated ones
    "cluster": ("formed", "level"),
    "voters": ("changed",),
    "state": ("diverged",),
    "node": ("joined", "removed", *(state.value for state in NodeState if state is not NodeState.UNREACHABLE)),
    "instance": tuple(health.value for health in InstanceHealth),
    "registry": ("changed", "expired", "renewed", "set", "removed"),
    "maintenance": ("began", "ended"),
    "check": ("muted", "unmuted"),
    "lock": ("taken", "released", "expired"),
    "app": ("deployed", "healthy", "restarted", "rollback", "stopped", "removed"),
    "rollout": ("done", "paused"),
    "replica": ("done", "ended", "failed", "lost"),
    "replicas": ("ended",),
    "image": ("named", "removed"),
    "secret": ("set", "removed"),
    "config": ("set", "removed"),
    "secrets": ("key-turned", "lost"),
}
BRIEF = frozenset({"established", "closed"})  # the states of a connection that are told of unless all are asked for
LOST = "lost"  # our own: events that are not kept any more


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One event of `hmctl events`. `time` is RFC 3339 in UTC. `node` and `container`: where it happened; null for the cluster's own,
    which are about `subject`, brought about by `author`."""

    time: str | None
    kind: str
    node: str | None = None
    container: str | None = None
    subject: str | None = None
    author: str | None = None
    message: str
    attributes: dict[str, str] = {}


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl events -o json`."""

    events: list[EventView]
    problems: list[Problem]


@dataclass(frozen=True, slots=True, order=True)
class Happened:
    """An event in its place: by time; what has the same time in the order in which its source tells it."""

    unix_time: float
    source: str
    number: int
    part: int = 0
    view: EventView = field(compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events. `nodes`, `kinds`: any when empty. `container` is NAME, NODE/NAME or an id. `since`: seconds since 1970. `brief`: of
    connections only how they began and ended, not the steps between."""

    nodes: frozenset[str] = frozenset()
    container: str = ""
    kinds: tuple[str, ...] = ()
    since: float | None = None
    brief: bool = False

    @property
    def node_kinds(self) -> tuple[str, ...]:
        """What the nodes themselves are to be asked for; none: they need not be asked."""
        return tuple(kind for kind in NODE_KINDS if not self.kinds or kind in self.kinds)

    @property
    def of_cluster(self) -> bool:
        """Whether the replicated events may hold something."""
        return not self.kinds or any(kind not in NODE_KINDS for kind in self.kinds)

    @property
    def container_name(self) -> str:
        return self.container.rpartition("/")[2]

    def asks(self, node: str) -> bool:
        """Whether a node may have events of its own that are wanted."""
        of_node = self.container.rpartition("/")[0]
        return bool(self.node_kinds) and (not self.nodes or node in self.nodes) and of_node in ("", node)

    def node_event(self, event: NodeEvent) -> bool:
        """Of those that the node sent."""
        if self.since is not None and event.unix_time < self.since:
            return False
        return not self.brief or event.kind != "tcp" or event.attributes.get("new") in BRIEF

    def cluster_event(self, event: Event) -> bool:
        """A kind is wanted whole (`node.down`) or by its family (`node`); a node by the subject that it is, or that it runs."""
        if self.since is not None and event.unix_time < self.since:
            return False
        if self.kinds and not any(event.kind == kind or event.kind.startswith(f"{kind}.") for kind in self.kinds):
            return False
        node, _, rest = event.subject.partition("/")
        if self.nodes and node not in self.nodes:
            return False
        return not self.container or (self.container in (rest, event.subject) and bool(rest))


def of_cluster(events: Iterable[Event], wanted: Wanted, *, after: int = -1) -> list[Happened]:
    """The replicated events past the log's index `after`. One entry of the log may bring several."""
    return [
        Happened(
            event.unix_time,
            "",
            event.index,
            part,
            view=EventView(
                time=rfc3339(event.unix_time) if event.unix_time else None,
                kind=event.kind,
                subject=event.subject,
                author=event.author or None,
                message=event.message,
            ),
        )
        for part, event in enumerate(events)
        if event.index > after and wanted.cluster_event(event)
    ]


def of_node(events: Iterable[NodeEvent], wanted: Wanted) -> list[Happened]:
    return [
        Happened(
            event.unix_time,
            event.node,
            event.sequence,
            view=EventView(
                time=rfc3339(event.unix_time),
                kind=event.kind,
                node=event.node,
                container=event.container,
                message=event.message,
                attributes=event.attributes,
            ),
        )
        for event in events
        if wanted.node_event(event)
    ]


def lost(node: str, count: int, *, before: float, last: int) -> Happened:
    """A gap, as an event of its own: in the place where the missing ones would stand."""
    view = EventView(time=rfc3339(before), kind=LOST, node=node, message=f"{plural(count, 'event')} lost", attributes={"count": str(count)})
    return Happened(before, node, last, view=view)


def merged(lists: Iterable[Sequence[Happened]], limit: int | None, *, fairly: bool = False) -> list[Happened]:
    """By time, the oldest first: the latest `limit` of them. `fairly`: no more than half are the nodes' own as long as the cluster has some
    to fill the rest, for programs that begin in containers, as health checks do, are more than anything else that happens."""
    found = sorted(event for events in lists for event in events)
    if limit is None:
        return found
    if fairly:
        own = [event for event in found if event.source]
        most = max(limit - (len(found) - len(own)), (limit + 1) // 2)
        old = {(event.source, event.number) for event in own[: max(len(own) - most, 0)]}
        found = [event for event in found if (event.source, event.number) not in old]
    return found[len(found) - min(limit, len(found)) :]


def rfc3339(unix_time: float) -> str:
    """In UTC, with milliseconds. A clock that is far off is no reason to fail."""
    try:
        at = datetime.fromtimestamp(unix_time, UTC)
    except (ValueError, OverflowError, OSError):
        at = datetime.fromtimestamp(0, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def local_time(time: str | None, now: datetime) -> str:
    """For people, in the zone of `now`: 18:31:02.123, with its date when that is not today's."""
    if time is None:
        return "-"
    at = datetime.fromisoformat(time).astimezone(now.tzinfo)
    clock = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
    return clock if at.date() == now.date() else f"{at:%Y-%m-%d} {clock}"


def asked_kinds(words: Iterable[str]) -> tuple[str, ...]:
    """The kinds in `words`, each of which may hold several with commas between. Raises UsageError for what is no kind, nor a family."""
    asked = tuple(dict.fromkeys(kind for word in words for part in word.split(",") if (kind := part.strip().lower())))
    whole = [f"{family}.{rest}" for family, each in FAMILIES.items() for rest in each]
    for kind in asked:
        if kind in NODE_KINDS or kind in FAMILIES or kind in whole:
            continue
        close = get_close_matches(kind, [*NODE_KINDS, *FAMILIES, *whole], n=3)
        family = kind.partition(".")[0]
        of_family = [f"{family}.{rest}" for rest in FAMILIES.get(family, ())]
        known = f"kinds are {', '.join(of_family or [*NODE_KINDS, *FAMILIES])}"
        raise UsageError(f"--kind {kind}: there are no such events", fix=f"did you mean {' or '.join(close)}?" if close else known)
    return asked
