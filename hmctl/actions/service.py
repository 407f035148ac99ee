"""What the registry holds, as `hmctl service` shows it (docs/json.md). The registry is read from the leader, or from whoever knows most.

The documents are made purely; choosing an instance is hmcore/selection.py's, just as the agents do it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from hmcore import api
from hmcore.errors import HyperMeshError, UsageError
from hmcore.pool import ANYWHERE, Candidate, Locality, gather
from hmcore.records import UNWATCHED, InstanceHealth, Maintenance, Role
from hmcore.selection import Filter, Strategy, choose, covering, matching, why_not
from hmctl.actions.agents import Agents
from hmctl.actions.change import nobody_answers
from hmctl.client import AgentClient

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.client import Access, Via

CHOICES = 1000  # that `resolve --count` makes at most


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as it counts now. `maintenance`: why it is out of traffic on purpose; null when it is not."""

    id: str
    service: str
    node: str
    address: str
    port: int
    version: str
    weight: int
    priority: int
    tags: list[str]
    attributes: dict[str, str]
    health: InstanceHealth
    reason: str
    maintenance: str | None
    latency_ms: float | None
    failures: int


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """`fit`: healthy and not in maintenance; of `total`."""

    name: str
    fit: int
    total: int
    health: dict[str, int]
    maintenance: int
    versions: list[str]
    nodes: list[str]


class OrphanView(msgspec.Struct, frozen=True, kw_only=True):
    """Maintenance of what is not there at present: it would be out of traffic at once if it came back."""

    target: str
    reason: str
    author: str


class ServiceList(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl service ls`. `told_by`: the node whose registry this is; `leader`: whether it leads, so that nothing newer is known."""

    told_by: str
    leader: bool
    index: int
    services: list[ServiceView]
    instances: list[InstanceView]
    orphans: list[OrphanView]


class CandidateView(msgspec.Struct, frozen=True, kw_only=True):
    """`why_not`: null for those that share the traffic."""

    instance: InstanceView
    why_not: str | None


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl service resolve`. `chosen`: ids, in the order of the calls."""

    told_by: str
    service: str
    strategy: Strategy
    chosen: list[str]
    candidates: list[CandidateView]


class MaintenanceChange(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl service maintain`. `instances`: those that it concerns."""

    target: str
    on: bool
    changed: bool
    index: int
    instances: list[str]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A node's registry. `leader`: it leads. `labels` of the nodes, by name."""

    told_by: str
    leader: bool
    reply: api.RegistryReply
    labels: dict[str, dict[str, str]] = {}

    @property
    def maintenance(self) -> Mapping[str, Maintenance]:
        return {entry.target: entry for entry in self.reply.maintenance}

    @property
    def candidates(self) -> list[Candidate]:
        maintenance = self.maintenance
        return [
            Candidate(instance, covering(instance, maintenance), self.labels.get(instance.node, {})) for instance in self.reply.instances
        ]


async def look(inventory: Inventory, access: Access, *, via: Via, timeout: float | None) -> Seen:
    """The registry of the leader; while there is none, of the control node that has applied most. Raises PeerUnreachable, CallRefused."""
    controls = [host for host in inventory.hosts if host.role is Role.CONTROL]
    async with Agents(controls, access, via=via, timeout=timeout) as agents:
        return await ask(agents)


async def ask(agents: Agents) -> Seen:
    """As `look`, with connections that are there already."""
    controls = {host.name: host for host in agents.hosts if host.role is Role.CONTROL}
    answers = await agents.ask_all(_state, list(controls.values()))
    said = {name: answer for name, answer in answers.items() if isinstance(answer, api.StateReply)}
    if not said:
        raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
    name = source(said)
    labels = {node.name: node.labels for node in said[name].nodes}
    return Seen(told_by=name, leader=said[name].leader == name, reply=await agents.ask(controls[name], _registry), labels=labels)


async def _state(agent: AgentClient) -> api.StateReply:
    return await agent.state()


async def _registry(agent: AgentClient) -> api.RegistryReply:
    return await agent.call(api.REGISTRY, api.Empty())


def source(said: Mapping[str, api.StateReply]) -> str:
    """Whom to ask: who leads the newest term, by its own word; else whoever has applied most."""
    return max(said, key=lambda name: (said[name].leader == name, said[name].term, said[name].index, name))


def listing(seen: Seen, *, service: str = "", node: str = "", health: InstanceHealth | None = None) -> ServiceList:
    """All services, or the one. Raises UsageError when nothing is called so."""
    if service:
        known_service(seen, service)
    asked = Filter(node=node, health=frozenset({health} if health else ()), include_maintenance=True)
    found = [each for each in matching(seen.candidates, asked) if not service or each.instance.service == service]
    by_service: dict[str, list[Candidate]] = {}
    for candidate in found:
        by_service.setdefault(candidate.instance.service, []).append(candidate)
    return ServiceList(
        told_by=seen.told_by,
        leader=seen.leader,
        index=seen.reply.index,
        services=[_service(name, by_service[name]) for name in sorted(by_service)],
        instances=sorted((_instance(each, seen) for each in found), key=lambda view: (view.service, view.id)),
        orphans=[] if service or health else orphans(seen, node),
    )


def orphans(seen: Seen, node: str = "") -> list[OrphanView]:
    """Maintenance that no instance is under at present: kept on purpose, and to be seen, or nobody would ever end it."""
    known = {instance.id for instance in seen.reply.instances} | {f"{instance.node}/" for instance in seen.reply.instances}
    return [
        OrphanView(target=target, reason=entry.reason, author=entry.author)
        for target, entry in sorted(seen.maintenance.items())
        if target not in known and (not node or target.partition("/")[0] == node)
    ]


def _service(name: str, candidates: Sequence[Candidate]) -> ServiceView:
    counted = Counter(each.instance.health for each in candidates)
    return ServiceView(
        name=name,
        fit=sum(each.instance.health is InstanceHealth.HEALTHY and each.maintenance is None for each in candidates),
        total=len(candidates),
        health={str(health): counted[health] for health in InstanceHealth},
        maintenance=sum(each.maintenance is not None for each in candidates),
        versions=sorted({each.instance.version for each in candidates if each.instance.version}),
        nodes=sorted({each.instance.node for each in candidates}),
    )


def _instance(candidate: Candidate, seen: Seen) -> InstanceView:
    instance, maintenance = candidate.instance, candidate.maintenance
    return InstanceView(
        id=instance.id,
        service=instance.service,
        node=instance.node,
        address=instance.address,
        port=instance.port,
        version=instance.version,
        weight=instance.weight,
        priority=instance.priority,
        tags=instance.tags,
        attributes=instance.attributes,
        health=instance.health,
        reason=instance.reason,
        maintenance=None if maintenance is None else maintenance.reason or f"by {maintenance.author or 'somebody'}",
        latency_ms=seen.reply.latency_ms.get(instance.id),
        failures=seen.reply.failures.get(instance.id, 0),
    )


def resolution(
    seen: Seen,
    service: str,
    asked: Filter,
    strategy: Strategy,
    *,
    key: str = "",
    times: int = 1,
    locality: Locality = ANYWHERE,
    chance: Callable[[], float] = random.random,
) -> Resolution:
    """Whom the next `times` calls from `locality` would go to, and why not to the others. Raises UsageError when nothing is called so."""
    known_service(seen, service)
    if strategy is Strategy.CONSISTENT_HASH and not key:
        raise UsageError("a consistent hash is of a key", fix="--key KEY, such as the user or the path that the calls are about")
    candidates = [each for each in seen.candidates if each.instance.service == service]
    pool = gather(matching(candidates, asked), locality=locality)
    chosen = [
        choose(pool, strategy, chance=chance(), turn=turn, latency=seen.reply.latency_ms, key=key) for turn in range(min(times, CHOICES))
    ]
    views = [CandidateView(instance=_instance(each, seen), why_not=why_not(each, asked, pool)) for each in candidates]
    return Resolution(
        told_by=seen.told_by,
        service=service,
        strategy=strategy,
        chosen=[each.instance.id for each in chosen if each is not None],
        candidates=sorted(views, key=lambda view: (view.why_not is not None, view.instance.id)),
    )


def known_service(seen: Seen, service: str) -> None:
    """Raises UsageError, naming what is nearly so called, when there is no such service."""
    known = {instance.service for instance in seen.reply.instances}
    if service not in known:
        near = _near(service, known)
        young = "a container that has just started is known within a second"
        fix = f"{near} A{young[1:]}" if near else f"hmctl service ls; {young}"
        raise UsageError(f"no service is called {service}", fix=fix)


def concerned(seen: Seen, target: str) -> list[Candidate]:
    """The instances that maintenance of `target` takes out of traffic. Raises UsageError when there is nothing called so."""
    if target not in seen.maintenance:
        _known_target(seen, target)
    return [each for each in seen.candidates if each.instance.id == target or f"{each.instance.node}/" == target]


def kept_out(seen: Seen, target: str) -> list[str]:
    """Of what else is in maintenance, that which keeps (some of) `target` out of traffic when its own maintenance ends."""
    if not target.endswith("/"):
        whole = f"{target.partition('/')[0]}/"
        return [whole] if whole in seen.maintenance else []
    return sorted(each.instance.id for each in concerned(seen, target) if each.instance.id in seen.maintenance)


def left_alone(seen: Seen, target: str) -> list[str]:
    """The services that have no other healthy instance in traffic than those of `target`."""
    out = {each.instance.id for each in concerned(seen, target)}
    healthy = [each.instance for each in seen.candidates if each.maintenance is None and each.instance.health is InstanceHealth.HEALTHY]
    others = {instance.service for instance in healthy if instance.id not in out}
    return sorted({instance.service for instance in healthy if instance.id in out} - others)


def _known_target(seen: Seen, target: str) -> None:
    """Only instances are suggested, of the same node: a node, taken by mistake, would be out of traffic with all that it runs."""
    node = target.partition("/")[0]
    if node not in {instance.node for instance in seen.reply.instances} | seen.labels.keys():
        raise UsageError(f"no node is called {node}", fix="hmctl node ls; an instance is NODE/NAME: hmctl service ls --all")
    prefix = f"{node}/"
    known = {instance.id.removeprefix(prefix) for instance in seen.reply.instances if instance.node == node}
    name = target.removeprefix(prefix)
    if name and name not in known:
        raise UsageError(f"no instance is called {target}", fix=_near(name, known, prefix) or f"hmctl service ls --all --node {node}")


def _near(name: str, known: set[str], prefix: str = "") -> str:
    """Which of `known` may have been meant, each with `prefix`; empty when none is like it."""
    from difflib import get_close_matches

    near = [f"{prefix}{close}" for close in get_close_matches(name, sorted(known), n=3)]
    return f"did you mean {' or '.join(near)}?" if near else ""


def unwatched(view: InstanceView) -> str:
    """Why the kernel's programs do not see it; empty when they do."""
    why = view.attributes.get(UNWATCHED, "")
    return f"not watched: {why}" if why else ""


def as_target(word: str) -> str:
    """A node's name alone means all that it runs."""
    return word if "/" in word else f"{word}/"


def node_labels(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """KEY=VALUE each. Raises UsageError for what is none."""
    pairs = [word.partition("=") for word in words]
    if wrong := [word for word, (key, equals, _) in zip(words, pairs, strict=True) if not key or not equals]:
        raise UsageError(
            f"--label {wrong[0]}: that is not KEY=VALUE", fix="such as --label zone=a; hmctl config show has the labels of hosts"
        )
    return tuple((key, value) for key, _, value in pairs)
