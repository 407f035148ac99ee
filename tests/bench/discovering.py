"""The registry with 10,000 instances on 500 nodes: taking them in, calling one, and one node's change. On this machine, no cluster needed.

What is measured is Directory.call, all but the network. Beside it in the same process: the plain way, a list of all that is searched.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from bed import Bed
from figures import Figure
from msgspec.structs import replace

from hmcore.api import PING, Empty, PingReply
from hmcore.records import Instance, InstanceHealth, Node, Registration, Role
from hmcore.selection import Filter, Strategy, choose
from node_agent.registry.directory import Directory
from node_agent.registry.registry import Catalogue

NODES, EACH, SERVICES = 500, 20, 200
PEER = "searching a list"
TIMES = 500
ALIKE = {Strategy.WEIGHTED: "", Strategy.LEAST_LATENCY: ", least latency", Strategy.CONSISTENT_HASH: ", consistent hash of one key"}
CHANGED = {
    Strategy.WEIGHTED: "",
    Strategy.ROUND_ROBIN: ", round robin",
    Strategy.LEAST_LATENCY: ", least latency",
    Strategy.CONSISTENT_HASH: ", consistent hash of a new key",
}


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
    return [*figures, *await _changing(plain)]


async def _changing(plain: float) -> list[Figure]:
    """The same service, when one instance of it comes or goes before each call. The ring is there: making it is a figure of its own."""
    nodes, registrations = fleet(1)
    large = Catalogue()
    large.update(nodes, registrations, {})
    large.pool("shop/s0")
    whole = registrations["n7"]
    change = _by_turns(large, nodes, registrations, replace(whole, revision=2, instances=whole.instances[1:]), whole)
    began = time.perf_counter()
    choose(large.pool("shop/s0"), Strategy.CONSISTENT_HASH, key="somebody")
    made = time.perf_counter() - began
    name = "registry: making the ring of 10,000 instances"
    figures = [
        Figure(name, made * 1e3, "ms", 500, PEER, plain * 1e3, note="once: the first consistent hash in that service", tolerance=3.0)
    ]
    for strategy, words in CHANGED.items():
        call = _calls(large, "shop/s0", strategy, new_keys=True)

        async def first() -> None:
            change()
            await call()  # noqa: B023  called at once

        took = await spent(first, 100)
        name = f"registry: an instance's change, then discovery in one service of 10,000{words}"
        figures.append(Figure(name, took * 1e3, "ms", 1, PEER, plain * 1e3, note="both together", tolerance=3.0))
    return figures


def _calls(
    catalogue: Catalogue, service: str, strategy: Strategy = Strategy.WEIGHTED, *, new_keys: bool = False
) -> Callable[[], Awaitable[None]]:
    """What a call inside the platform costs, but for the network: every node answers at once."""
    turns = count()

    async def answer(peer: str, method: Any, request: Any, *, timeout: float) -> Any:
        return PingReply(name=peer, unix_time=0.0)

    names = [f"n{n}" for n in range(NODES)]
    directory = Directory("me", catalogue=lambda: catalogue, call=answer, connected=lambda: frozenset(names))  # made anew, as the pool does

    async def call() -> None:
        await directory.call(service, PING, Empty(), timeout=1.0, strategy=strategy, key=f"user {next(turns)}" if new_keys else "somebody")

    return call


async def _search(catalogue: Catalogue, service: str) -> float:
    """Seconds for the plain way."""
    candidates, anything = list(catalogue), Filter(health=frozenset([InstanceHealth.HEALTHY]))

    async def search() -> None:
        found = [each for each in candidates if each.instance.service == service and anything.why_not(each) is None]
        random.choices(found, [each.instance.weight for each in found])

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
    return _by_turns(catalogue, nodes, registrations, registration("n7", 7, 2), registration("n7", 7, 3))


def _by_turns(
    catalogue: Catalogue, nodes: dict[str, Node], registrations: dict[str, Registration], *ways: Registration
) -> Callable[[], None]:
    """Makes one of several prepared states of a node the current one, by turns."""
    states = [{**registrations, "n7": way} for way in ways]

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
