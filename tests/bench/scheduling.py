"""Placing 10,000 replicas on 1,000 nodes, in the shapes that clusters have. On this machine, no cluster needed.

What is measured is scheduler.plan, from values to values. Beside it in the same process, by turns: as many times the least of 1,000 tuples,
which is the plain way to choose without asking any filter, with nothing of ours in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache

from bed import Bed
from figures import Figure, Kind

from hmcore.apps.records import Allocation, allocation_id
from hmcore.apps.spec import ContainerSpec, Placement, Port, Resources, ServiceSpec
from hmcore.records import Node, Role
from node_agent.orchestration.scheduler import plan
from node_agent.orchestration.scheduling.model import Assignment, Candidate, Placed, Request
from node_agent.orchestration.scheduling.rebalancing import rebalance

NODES, REQUESTS, SERVICES = 1_000, 10_000, 200
GIB = 1 << 30
PEER = "10,000 times the least of 1,000 tuples"
ROUNDS = 5

MIXED = Kind("scheduler: 10,000 replicas of 200 services on 1,000 nodes", "s", 1, PEER)
ONE = Kind("scheduler: 10,000 replicas of one service", "s", 1, PEER)
SINGLE = Kind("scheduler: 10,000 services of one replica", "s", 1, PEER)
FULL = Kind("scheduler: 10,000 replicas, more than half without room", "s", 1, PEER)
ANOTHER = Kind("scheduler: one more beside 10,000", "s", 1, PEER)
FIGURES = (MIXED, ONE, SINGLE, FULL, ANOTHER)


def measure(bed: Bed) -> list[Figure]:
    return figures()


def figures() -> list[Figure]:
    best = f"best of {ROUNDS} rounds, by turns"
    fleet, small = nodes(), nodes(cpus=100)
    mixed, one, single = requests(SERVICES), requests(1), requests(REQUESTS)
    standing = stand(fleet, mixed)
    more = [request(0, REQUESTS)]
    return [
        MIXED.of(*spent(lambda: placed_of(fleet, [], mixed), REQUESTS), f"reservations, constraints, spread over zones, ports; {best}"),
        ONE.of(*spent(lambda: placed_of(fleet, [], one), REQUESTS), best),
        SINGLE.of(*spent(lambda: placed_of(fleet, [], single), REQUESTS), f"each decided by itself; {best}"),
        FULL.of(*spent(lambda: placed_of(small, [], mixed), None), f"with an explanation for each that waits; {best}"),
        ANOTHER.of(*spent(lambda: placed_of(fleet, standing, more), 1), f"all that stands is counted anew; {best}"),
    ]


def nodes(cpus: int = 16_000) -> list[Candidate]:
    return [
        Candidate(
            node=Node(
                name=f"node{number}",
                address="10.0.0.1",
                port=7443,
                role=Role.WORKER,
                release="r1",
                labels={"zone": f"zone{number % 3}", "rack": f"rack{number % 30}", "disk": "ssd" if number % 2 else "hdd"},
            ),
            capacity=Resources(cpus=cpus, memory=64 * GIB),
            images=frozenset({f"sha256:{image}" for image in range(number % 20, SERVICES, 20)}),
        )
        for number in range(NODES)
    ]


@cache
def spec(number: int) -> ServiceSpec:
    """Services as people have them: most reserve something, some are tied to a kind of node, spread over zones or have a port there."""
    kinds: tuple[Placement, ...] = (
        Placement(),
        Placement(),
        Placement(constraints=("node.labels.disk==ssd",)),
        Placement(spread=("node.labels.zone",)),
        Placement(constraints=("node.role==worker", f"node.hostname!=node{number}")),
        Placement(spread=("node.labels.zone", "node.labels.rack"), max_per_node=50),
    )
    return ServiceSpec(
        container=ContainerSpec(image=f"image{number}"),
        reservations=Resources(cpus=(0, 100, 250)[number % 3], memory=(0, GIB // 4, GIB)[number % 3]),
        placement=kinds[number % len(kinds)],
        ports=(Port(target=80, published=10_000 + number, mode="host"),) if number % 10 == 9 else (),
    )


def requests(services: int) -> list[Request]:
    return [request(number, slot) for number in range(services) for slot in range(REQUESTS // services)]


def request(number: int, slot: int) -> Request:
    return Request(
        app=f"app{number % 100}",
        service=f"service{number}",
        slot=slot,
        spec=spec(number % SERVICES),
        image_id=f"sha256:{number % SERVICES}",
    )


def stand(fleet: list[Candidate], asked: list[Request]) -> list[Placed]:
    """All of them placed."""
    return [
        Placed(
            allocation=Allocation(
                id=allocation_id(each.request.app, each.request.service, each.request.slot, serial),
                app=each.request.app,
                service=each.request.service,
                slot=each.request.slot,
                node=each.node,
                generation=1,
                revision="r",
            ),
            spec=each.request.spec,
        )
        for serial, each in enumerate(plan(fleet, [], asked, {}))
        if isinstance(each, Assignment)
    ]


def placed_of(fleet: list[Candidate], standing: list[Placed], asked: list[Request]) -> int:
    return sum(isinstance(each, Assignment) for each in plan(fleet, standing, asked, {}))


def least() -> None:
    """The peer."""
    rows = [(0, number) for number in range(NODES)]
    for _ in range(REQUESTS):
        count, number = min(rows)
        rows[number] = count + 1, number


def spent(work: Callable[[], int], expected: int | None) -> tuple[float, float]:
    """Seconds of ours and of the peer's, each the best of some rounds by turns. Raises ValueError when not all found a place."""
    ours = peers = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        placed = work()
        ours = min(ours, time.perf_counter() - began)
        if expected is not None and placed != expected:
            raise ValueError(f"{placed} replicas were placed, not {expected}")
        began = time.perf_counter()
        least()
        peers = min(peers, time.perf_counter() - began)
    return ours, peers


if __name__ == "__main__":  # without a lab, and nothing is recorded
    for figure in figures():
        print(f"{figure.name}: {figure.value:.3f} {figure.kind.unit} ({PEER}: {figure.peer_value:.3f})")
    world = nodes()
    crowded = stand(world[: NODES // 2], requests(SERVICES))
    start = time.perf_counter()
    moves = rebalance(world, crowded, {}, limit=100)
    print(f"rebalance: {len(moves)} moves in {time.perf_counter() - start:.3f} s")
    sys.exit(0)
