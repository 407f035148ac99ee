"""The registry with 10,000 instances on 500 nodes: taking them in, finding one, and one node's change. On this machine, no cluster needed.

Beside it in the same process: the plain way, a list of all instances that is searched.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bed import Bed
from figures import Figure

from hmcore.records import Instance, InstanceHealth, Node, Registration, Role
from hmcore.selection import Filter, Strategy, choose, gather
from node_agent.registry.registry import Catalogue

NODES, EACH, SERVICES = 500, 20, 200
PEER = "searching a list"


def measure(bed: Bed) -> list[Figure]:
    nodes, registrations = fleet()
    catalogue = Catalogue()
    began = time.perf_counter()
    catalogue.update(nodes, registrations, {})
    registered = time.perf_counter() - began
    candidates = list(catalogue)
    service, only = "shop/s7", Filter(version="v1", tags=frozenset({"blue"}))

    def search() -> None:
        found = (each for each in candidates if each.instance.service == service and only.why_not(each) is None)
        choose(gather(found), Strategy.WEIGHTED, chance=0.5)

    def ask() -> None:
        choose(catalogue.pool(service, only), Strategy.WEIGHTED, chance=0.5)

    change = _change(catalogue, nodes, registrations)

    def first() -> None:
        change()
        ask()

    plain = spent(search, 20)
    ask()
    how = f"{NODES * EACH} instances of {SERVICES} services on {NODES} nodes; filter by tag and version, weighted choice"
    return [
        Figure("registry: taking in 10,000 instances", registered * 1e3, "ms", 500, PEER, plain * 1e3, note="one update from nothing"),
        Figure("registry: discovery", spent(ask, 2000) * 1e3, "ms", 1, PEER, plain * 1e3, note=how, tolerance=3.0),
        Figure("registry: a node's change, then discovery", spent(first, 200) * 1e3, "ms", 1, PEER, plain * 1e3, note="its 20 instances"),
    ]


def fleet() -> tuple[dict[str, Node], dict[str, Registration]]:
    nodes = {f"n{n}": Node(name=f"n{n}", address="10.0.0.1", port=7443, role=Role.WORKER, release="r1") for n in range(NODES)}
    return nodes, {name: registration(name, number) for number, name in enumerate(nodes)}


def registration(node: str, number: int, revision: int = 1) -> Registration:
    instances = tuple(
        Instance(
            id=f"{node}/c{n}",
            service=f"shop/s{(number * EACH + n) % SERVICES}",
            node=node,
            address="10.0.0.1",
            port=8080,
            version="v1",
            tags=["blue"],
            health=InstanceHealth.UNHEALTHY if (n + revision) % 7 == 0 else InstanceHealth.HEALTHY,
        )
        for n in range(EACH)
    )
    return Registration(revision=revision, incarnation=1, instances=instances)


def _change(catalogue: Catalogue, nodes: dict[str, Node], registrations: dict[str, Registration]) -> Callable[[], None]:
    """Makes one of two prepared states of a node the current one, by turns."""
    states = [{**registrations, "n7": registration("n7", 7, revision)} for revision in (2, 3)]

    def change() -> None:
        states.append(states.pop(0))
        catalogue.update(nodes, states[0], {})

    return change


def spent(work: Callable[[], None], times: int) -> float:
    """Seconds for one, the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            work()
        best = min(best, (time.perf_counter() - began) / times)
    return best
