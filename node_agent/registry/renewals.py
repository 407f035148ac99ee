"""What the leader does for the registry, decided purely: which node's instances to ask for, which ones count as unknown, which again not.

Every control node notes the renewals that it hears, so that a new leader knows them; being made leader gives every node a full term
anew. Times are of a monotonic clock that stands still when we do: neither a jump of the wall clock nor a pause of ours expires anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hmcore.records import Node, NodeState, Registration
from node_agent.consensus.statemachine.commands import ExpireInstances

BETWEEN = 1.0  # seconds from one attempt to copy a node's instances to the next: what comes and goes must not flood the log
REMEMBERED = 8  # lists of a node: one that changes while it is being copied is not forgotten at once
PATIENCE = 16.0  # the longest such time, after attempts that failed

_SILENT = (NodeState.SUSPECT, NodeState.DOWN)


@dataclass(frozen=True, slots=True)
class Renewal:
    """The last that a node said of its instances: which list, of which start of its agent, and when."""

    incarnation: int
    revision: int
    at: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """Of copying a node's instances. `failures` in a row."""

    at: float
    failures: int = 0

    @property
    def again(self) -> float:
        return self.at + min(BETWEEN * 2.0 ** min(self.failures, 10), PATIENCE)


@dataclass(frozen=True, slots=True)
class Plan:
    """`pull`: nodes to be asked for their instances. `commands`: to be proposed. `next`: when to decide anew though nothing is heard.
    `wanting`: nodes for which something is to be done, now or later."""

    pull: tuple[str, ...] = ()
    commands: tuple[ExpireInstances, ...] = ()
    next: float | None = None
    wanting: frozenset[str] = frozenset()


class Renewals:
    """Kept by every control node. `ttl` in seconds."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._heard: dict[str, Renewal] = {}
        self._vouched: dict[str, dict[int, float]] = {}  # when each of a node's latest lists was renewed last
        self._recorded: dict[str, tuple[int | None, float]] = {}  # the list in the log, and when we saw it replace another
        self._attempts: dict[str, Attempt] = {}
        self._leader_since = 0.0

    def heard(self, node: str, incarnation: int, revision: int, now: float) -> bool:
        """A node has renewed its instances. Returns whether that is another list than it renewed before; an earlier start's is ignored."""
        before = self._heard.get(node)
        if before is not None and incarnation < before.incarnation:
            return False
        self._heard[node] = Renewal(incarnation, revision, now)
        times = self._vouched.setdefault(node, {})
        times.pop(revision, None)
        times[revision] = now
        if len(times) > REMEMBERED:
            del times[next(iter(times))]
        return before is None or before.revision != revision

    def lead(self, now: float) -> None:
        """We were made leader: full terms for all, and nobody has failed to answer us yet."""
        self._leader_since = now
        self._attempts.clear()

    def attempted(self, node: str, now: float, *, failed: bool) -> None:
        """We asked a node for its instances, and copied them or not."""
        failures = self._attempts[node].failures + 1 if failed and node in self._attempts else int(failed)
        self._attempts[node] = Attempt(now, failures)

    def plan(self, nodes: Mapping[str, Node], registrations: Mapping[str, Registration], now: float) -> Plan:
        """What is to be done now. What was decided and then applied is not decided again."""
        for gone in self._heard.keys() - nodes.keys():
            if now >= self._heard[gone].at + self._ttl:  # a node that joins is heard before it is a member
                del self._heard[gone]
                self._vouched.pop(gone, None)
                self._recorded.pop(gone, None)
        pull: list[str] = []
        commands: list[ExpireInstances] = []
        times: list[float] = []
        wanting: set[str] = set()
        for name in sorted(nodes):
            node, known, said = nodes[name], registrations.get(name), self._heard.get(name)
            self._see(name, None if known is None else known.revision, now)
            other = said is not None and (known is None or known.revision != said.revision) and node.state not in _SILENT
            command = None if known is None else self._expiry(name, known, said, now)
            if other or command is not None:
                wanting.add(name)
            attempt = self._attempts.get(name)
            if attempt is not None and now < attempt.again:
                times += [attempt.again] if name in wanting else []
            elif command is not None:
                commands.append(command)
            elif other:
                pull.append(name)
            if known is not None and command is None and not known.expired:
                times.append(self._ends(name, known))
        return Plan(tuple(pull), tuple(commands), min(times, default=None), frozenset(wanting))

    def _see(self, name: str, revision: int | None, now: float) -> None:
        before = self._recorded.get(name)
        if before is None or before[0] != revision:
            self._recorded[name] = revision, self._leader_since if before is None else now

    def _expiry(self, name: str, known: Registration, said: Renewal | None, now: float) -> ExpireInstances | None:
        """What makes a node's instances unknown, or known again."""
        expired = now >= self._ends(name, known)
        if known.expired:
            renewed = said is not None and said.revision == known.revision and now < said.at + self._ttl
            return ExpireInstances(node=name, revision=known.revision, reason="") if renewed else None
        return ExpireInstances(node=name, revision=known.revision, reason=f"not renewed for {self._ttl:g} s") if expired else None

    def _ends(self, name: str, known: Registration) -> float:
        """When the instances that are registered expire. Only a renewal of just these counts, also when others were heard of since; or
        that they were told and recorded, of which no heartbeat needs to say anything before its next is due."""
        vouched = self._vouched.get(name, {}).get(known.revision, self._leader_since)
        return max(vouched, self._recorded[name][1], self._leader_since) + self._ttl
