"""The registry with 10,000 instances on 500 nodes: taking them in, calling one, and one node's change. On this machine, no cluster needed.

What is measured is Directory.call, all but the network. Beside it in the same process: the plain way, a list of all that is searched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bed import Bed
from figures import Figure

from hmcore.api import PING, Empty, PingReply
from hmcore.records import Instance, InstanceHealth, Node, Registration, Role
from hmcore.selection import Filter, Strategy, choose, gather
from node_agent.registry.directory import Directory
from node_agent.registry.registry import Catalogue

NODES, EACH, SERVICES = 500, 20, 200
PEER = "searching a list"
TIMES = 500
ALIKE = {Strategy.WEIGHTED: "", Strategy.LEAST_LATENCY: ", least latency", Strategy.CONSISTENT_HASH: ", consistent hash of one key"}


def measure(bed: Bed) -> list[Figure]:
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    nodes, registrations = fleet(SERVICES)
    catalogue = Catalogue()
    began = time.perf_counter()
    catalogue.update(nodes, registrations, {})
    registered = time.perf_counter() - began
    call = _calls(catalogue, "shop/s7")
    change = _change(catalogue, nodes, registrations)

    async def first() -> None:
        change()
        await call()

    plain = await _search(catalogue, "shop/s7")
    await call()
    how = f"{NODES * EACH} instances of {SERVICES} services on {NODES} nodes; Directory.call without the network"
    figures = [
        Figure("registry: taking in 10,000 instances", registered * 1e3, "ms", 500, PEER, plain * 1e3, note="one update from nothing"),
        Figure("registry: discovery", await spent(call, TIMES) * 1e3, "ms", 1, PEER, plain * 1e3, note=how, tolerance=3.0),
        Figure("registry: a node's change, then discovery", await spent(first, 200) * 1e3, "ms", 1, PEER, plain * 1e3, note="20 instances"),
    ]
    large = Catalogue()
    large.update(*fleet(1), {})
    plain = await _search(large, "shop/s0")
    for strategy, words in ALIKE.items():
        call = _calls(large, "shop/s0", strategy)
        await call()
        took = await spent(call, TIMES)
        name = f"registry: discovery in one service of 10,000{words}"
        figures.append(Figure(name, took * 1e3, "ms", 1, PEER, plain * 1e3, note="after the first call", tolerance=3.0))
    return figures


def _calls(catalogue: Catalogue, service: str, strategy: Strategy = Strategy.WEIGHTED) -> Callable[[], Awaitable[None]]:
    """What a call inside the platform costs, but for the network: every node answers at once."""

    async def answer(peer: str, method: Any, request: Any, *, timeout: float) -> Any:
        return PingReply(name=peer, unix_time=0.0)

    names = [f"n{n}" for n in range(NODES)]
    directory = Directory("me", catalogue=lambda: catalogue, call=answer, connected=lambda: frozenset(names))  # made anew, as the pool does

    async def call() -> None:
        await directory.call(service, PING, Empty(), timeout=1.0, strategy=strategy, key="somebody")

    return call


async def _search(catalogue: Catalogue, service: str) -> float:
    """Seconds for the plain way."""
    candidates, anything = list(catalogue), Filter()

    async def search() -> None:
        found = (each for each in candidates if each.instance.service == service and anything.why_not(each) is None)
        choose(gather(found), Strategy.WEIGHTED, chance=0.5)

    return await spent(search, 20)


def fleet(services: int) -> tuple[dict[str, Node], dict[str, Registration]]:
    nodes = {f"n{n}": Node(name=f"n{n}", address="10.0.0.1", port=7443, role=Role.WORKER, release="r1") for n in range(NODES)}
    return nodes, {name: registration(name, number, services=services) for number, name in enumerate(nodes)}


def registration(node: str, number: int, revision: int = 1, services: int = SERVICES) -> Registration:
    instances = tuple(
        Instance(
            id=f"{node}/c{n}",
            service=f"shop/s{(number * EACH + n) % services}",
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


async def spent(work: Callable[[], Awaitable[None]], times: int) -> float:
    """Seconds for one, the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            await work()
        best = min(best, (time.perf_counter() - began) / times)
    return best
