"""What the leader needs for a look at all apps: 10,000 replicas on 1,000 nodes. On this machine, no cluster needed.

It looks whenever something has changed: this is what each change costs it. What is measured is appplan.steps, from values to values:
rollouts and, where something is to start, the scheduler. Beside it in the same process, by turns: the peer of scheduling.py.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

from bed import Bed
from figures import Figure, Kind
from msgspec.structs import replace
from scheduling import NODES, PEER, REQUESTS, ROUNDS, SERVICES, nodes, requests, spent, stand

from hmcore.apps.records import (
    Allocation,
    AllocationStatus,
    App,
    Generation,
    NodeStatuses,
    Phase,
    Rollout,
    Stage,
    allocation_id,
    statuses_key,
    wanted_revision,
)
from hmcore.apps.spec import AppSpec, ServiceSpec, Update
from hmcore.records import InstanceHealth, Node, NodeState
from node_agent.orchestration.appplan import Cluster, Step, steps
from node_agent.orchestration.rollout import Observed, Terms
from node_agent.orchestration.scheduling.model import Candidate

STEADY = Kind("rollout: a look at 10,000 replicas of 100 apps, all as they shall be", "s", 1, PEER)
ROLLING = Kind("rollout: a look at one app of 10,000 replicas, half of them new", "s", 1, PEER)
LOST = Kind("rollout: a look at 10,000 replicas of 100 apps, a node of 1,000 lost", "s", 1, PEER)
ZONE = Kind("rollout: a look at one app of 10,000 replicas, a third of 1,000 nodes lost", "s", 1, PEER)
FIGURES = (STEADY, ROLLING, LOST, ZONE)

TERMS = Terms(fence_after=10.0)
MONITORED = 60.0  # seconds after the first look, by which all that runs has been watched long enough


@dataclass(frozen=True)
class World:
    """The state's tables, as the leader sees them."""

    apps: Mapping[str, App]
    generations: Mapping[str, Generation]
    allocations: Mapping[str, Allocation]
    statuses: Mapping[str, NodeStatuses]
    nodes: Mapping[str, Node]


def measure(bed: Bed) -> list[Figure]:
    return figures()


def figures() -> list[Figure]:
    many, one = world(SERVICES), world(1)
    node, zone = {"node7"}, {f"node{number}" for number in range(0, NODES, 3)}
    best = f"on {NODES} nodes; best of {ROUNDS} rounds, by turns"
    return [
        STEADY.of(*spent(looking(many), 0), f"{SERVICES} services {best}"),
        ROLLING.of(*spent(looking(rolling(one)), 1), f"one replica is stopped {best}"),
        LOST.of(*spent(looking(many, node), 2 * on(many, node)), f"the {on(many, node)} that it had are placed anew {best}"),
        ZONE.of(*spent(looking(one, zone), 2 * on(one, zone)), f"the {on(one, zone):,} that they had are placed anew {best}"),
    ]


def on(world: World, names: Set[str]) -> int:
    return sum(each.node in names for each in world.allocations.values())


def looking(world: World, lost: Set[str] = frozenset()) -> Callable[[], int]:
    """A look of a leader that has seen all before; it gives how many replicas are started and stopped. `lost`: nodes that are down now."""
    everywhere = tuple(nodes())
    memories = {name: step.observed for name, step in _look(world, everywhere, {}, 0.0).items()}
    memories = {name: step.observed for name, step in _look(world, everywhere, memories, MONITORED).items()}
    down = {name: replace(world.nodes[name], state=NodeState.DOWN) for name in lost}
    world = dataclasses.replace(world, nodes={**world.nodes, **down})
    left = tuple(dataclasses.replace(each, node=world.nodes[each.node.name]) for each in everywhere)
    return lambda: sum(map(_moves, _look(world, left, memories, MONITORED + 1).values()))


def _look(world: World, candidates: tuple[Candidate, ...], memories: Mapping[str, Observed], now: float) -> dict[str, Step]:
    return steps(world, world.apps, Cluster(candidates), memories, now, TERMS)


def _moves(step: Step) -> int:
    return 0 if step.command is None else len(step.command.starts) + len(step.command.stops)


def world(services: int) -> World:
    """All replicas run where the scheduler has placed them, and have been reached."""
    placed = stand(nodes(), requests(services))
    parts: dict[str, dict[str, ServiceSpec]] = {}
    for each in placed:
        parts.setdefault(each.allocation.app, {})[each.allocation.service] = each.spec
    counts = Counter((each.allocation.app, each.allocation.service) for each in placed)
    specs = {
        app: AppSpec(services={name: replace(spec, replicas=counts[app, name]) for name, spec in services.items()})
        for app, services in parts.items()
    }
    apps = {name: _reached(App(name=name, generation=1, healthy=1), spec) for name, spec in specs.items()}
    generations = {f"{app}@1": Generation(app=app, number=1, spec=spec, digest="d", reached=True) for app, spec in specs.items()}
    allocations = {}
    for each in placed:
        app, service = each.allocation.app, each.allocation.service
        slot = each.allocation.slot + 1
        made = replace(
            each.allocation,
            id=allocation_id(app, service, slot, each.allocation.serial + 1),
            slot=slot,
            revision=apps[app].rollouts[service].revision,
        )
        allocations[made.key] = made
    return World(apps, generations, allocations, _told(allocations.values()), {each.node.name: each.node for each in nodes()})


def rolling(before: World) -> World:
    """Its only app becomes another generation, which half of its replicas are already; one by one."""
    (app,) = before.apps.values()
    old = before.generations[f"{app.name}@1"]
    ((service, spec),) = old.spec.services.items()
    changed = replace(spec, container=replace(spec.container, image="another"), update=Update(monitor=1.0))
    new = Generation(app=app.name, number=2, spec=AppSpec(services={service: changed}), digest="e")
    aim = wanted_revision(app, new.spec, service)
    allocations = {key: replace(each, generation=2, revision=aim) if each.slot % 2 else each for key, each in before.allocations.items()}
    moved = replace(app, generation=2, rollouts={service: Rollout(generation=2, revision=aim)}, serial=2 * REQUESTS)
    return dataclasses.replace(
        before, apps={app.name: moved}, generations={**before.generations, f"{app.name}@2": new}, allocations=allocations
    )


def _reached(app: App, spec: AppSpec) -> App:
    aims = {name: wanted_revision(app, spec, name) for name in spec.services}
    rollouts = {name: Rollout(stage=Stage.STEADY, generation=1, revision=aim) for name, aim in aims.items()}
    return replace(app, rollouts=rollouts, serial=REQUESTS)


def _told(allocations: Iterable[Allocation]) -> dict[str, NodeStatuses]:
    found: dict[str, list[AllocationStatus]] = {}
    for each in allocations:
        status = AllocationStatus(id=each.id, phase=Phase.RUNNING, health=InstanceHealth.HEALTHY)
        found.setdefault(statuses_key(each.node), []).append(status)
    return {key: NodeStatuses(incarnation=1, allocations=tuple(statuses)) for key, statuses in found.items()}


if __name__ == "__main__":  # without a lab, and nothing is recorded
    for figure in figures():
        print(f"{figure.name}: {figure.value:.3f} {figure.kind.unit} ({PEER}: {figure.peer_value:.3f})")
    sys.exit(0)
