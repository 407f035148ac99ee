"""The registry with 10,000 instances on 500 nodes: taking them in, calling one, and one node's change. On this machine, no cluster needed.

What is measured is Directory.call, all but the network. Beside it in the same process, by turns: the plain way, a list of as
many tuples that is searched, with nothing of ours in it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from bed import Bed
from figures import Figure, Kind
from msgspec.structs import replace

from hmcore.api import PING, Empty, PingReply
from hmcore.records import Instance, InstanceHealth, Node, Registration, Role
from hmcore.selection import Strategy, choose
from node_agent.registry.directory import Directory
from node_agent.registry.registry import Catalogue

NODES, EACH, SERVICES = 500, 20, 200
PEER = "searching a list of tuples"
ROUNDS, TIMES = 7, 500
ALIKE = {Strategy.WEIGHTED: "", Strategy.LEAST_LATENCY: ", least latency", Strategy.CONSISTENT_HASH: ", consistent hash of one key"}
CHANGED = {
    Strategy.WEIGHTED: "",
    Strategy.ROUND_ROBIN: ", round robin",
    Strategy.LEAST_LATENCY: ", least latency",
    Strategy.CONSISTENT_HASH: ", consistent hash of a new key",
}

MANY = "discovery in one service of 10,000"
TAKING_IN = Kind("registry: taking in 10,000 instances", "ms", 500, PEER)
DISCOVERY = Kind("registry: discovery", "ms", 1, PEER)
CHANGE = Kind("registry: a node's change, then discovery", "ms", 1, PEER)
LARGE = {strategy: Kind(f"registry: {MANY}{words}", "ms", 1, PEER) for strategy, words in ALIKE.items()}
RING = Kind("registry: making the ring of 10,000 instances", "ms", 500, PEER)
CHANGING = {strategy: Kind(f"registry: an instance's change, then {MANY}{words}", "ms", 1, PEER) for strategy, words in CHANGED.items()}
FIGURES = (TAKING_IN, DISCOVERY, CHANGE, *LARGE.values(), RING, *CHANGING.values())


def measure(bed: Bed) -> list[Figure]:
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    nodes, registrations = fleet(SERVICES)
    plain = _plain(SERVICES)
    catalogue = Catalogue()

    async def take_in() -> None:
        nonlocal catalogue
        catalogue = Catalogue()
        catalogue.update(nodes, registrations, {})

    taken = await spent(take_in, 1, plain)
    call = _calls(catalogue, "shop/s7")
    change = _change(catalogue, nodes, registrations)

    async def first() -> None:
        change()
        await call()

    await call()
    how = f"{NODES * EACH} instances of {SERVICES} services on {NODES} nodes; Directory.call without the network"
    best = f"best of {ROUNDS} rounds, by turns"
    return [
        TAKING_IN.of(*taken, f"one update from nothing, {best}"),
        DISCOVERY.of(*await spent(call, TIMES, plain), f"{how}, {best}"),
        CHANGE.of(*await spent(first, 200, plain), "20 instances"),
        *await _large(_plain(1)),
    ]


async def _large(plain: Callable[[], None]) -> list[Figure]:
    figures = []
    large = Catalogue()
    large.update(*fleet(1), {})
    for strategy, kind in LARGE.items():
        call = _calls(large, "shop/s0", strategy)
        await call()
        figures.append(kind.of(*await spent(call, TIMES, plain), "after the first call"))
    return [*figures, *await _changing(plain)]


async def _changing(plain: Callable[[], None]) -> list[Figure]:
    """The same service, when one instance of it comes or goes before each call. The ring is there: making it is a figure of its own."""
    nodes, registrations = fleet(1)
    fresh = [Catalogue() for _ in range(ROUNDS)]
    for each in fresh:
        each.update(nodes, registrations, {})
        each.pool("shop/s0")
    waiting = iter(fresh)

    async def make_ring() -> None:
        choose(next(waiting).pool("shop/s0"), Strategy.CONSISTENT_HASH, key="somebody")

    figures = [RING.of(*await spent(make_ring, 1, plain), "once: the first consistent hash in that service")]
    large, whole = fresh[-1], registrations["n7"]
    change = _by_turns(large, nodes, registrations, replace(whole, revision=2, instances=whole.instances[1:]), whole)
    for strategy, kind in CHANGING.items():
        call = _calls(large, "shop/s0", strategy, new_keys=True)

        async def first() -> None:
            change()
            await call()  # noqa: B023  called at once

        figures.append(kind.of(*await spent(first, 100, plain), "both together"))
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


def _plain(services: int) -> Callable[[], None]:
    """The plain way: as many rows, the fit ones of a service, one of them by weight."""
    rows = [(f"shop/s{number % services}", number % 7 != 0, 1) for number in range(NODES * EACH)]

    def search() -> None:
        found = [row for row in rows if row[0] == "shop/s0" and row[1]]
        random.choices(found, [row[2] for row in found])

    return search


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


async def spent(work: Callable[[], Awaitable[None]], times: int, plain: Callable[[], None]) -> tuple[float, float]:
    """Milliseconds for one and for the peer's, each the best of some rounds by turns."""
    ours = peers = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            await work()
        ours = min(ours, (time.perf_counter() - began) / times)
        for _ in range(5):
            began = time.perf_counter()
            plain()
            peers = min(peers, time.perf_counter() - began)
    return ours * 1e3, peers * 1e3
