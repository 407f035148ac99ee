"""Connect to every host and ask how it is, side by side; who cannot be reached is set aside with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from hmcore.errors import HyperMeshError
from hmctl.facts.gather import HostFacts, gather
from hmctl.phases.runner import Progress, Timings
from hmctl.remote.base import FirstContact, Remote

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

T = TypeVar("T")

_FACTS_TIMEOUT = 60.0  # seconds: a host under load, a slow Docker


@dataclass(slots=True)
class Reached:
    """Who could be reached, and who could not and why."""

    remotes: dict[str, Remote] = field(default_factory=dict)
    facts: dict[str, HostFacts] = field(default_factory=dict)
    lost: dict[str, HyperMeshError] = field(default_factory=dict)


async def connect(
    hosts: Sequence[Host],
    open_: Callable[[Host], Awaitable[Remote]],
    reached: Reached,
    progress: Progress,
    timings: Timings,
    *,
    at_once: int,
) -> None:
    """Fills in `remotes` and `lost`."""

    async def one(host: Host) -> None:
        await _open(host, open_, reached, progress, timings)

    await _each(hosts, one, reached, progress, at_once)


async def reach(
    hosts: Sequence[Host],
    open_: Callable[[Host], Awaitable[Remote]],
    reached: Reached,
    progress: Progress,
    timings: Timings,
    *,
    at_once: int,
) -> None:
    """Fills in `remotes`, `facts` and `lost`. Each host is asked as soon as it is connected: where connections are scarce, the next host
    then has its."""

    async def one(host: Host) -> None:
        await _open(host, open_, reached, progress, timings)
        await _ask(host, reached, progress, timings)

    await _each(hosts, one, reached, progress, at_once)


async def gather_facts(hosts: Sequence[Host], reached: Reached, progress: Progress, timings: Timings, *, at_once: int) -> None:
    """Fills in `facts` for those that are connected, and `lost`."""

    async def one(host: Host) -> None:
        await _ask(host, reached, progress, timings)

    await _each([host for host in hosts if host.name in reached.remotes], one, reached, progress, at_once)


async def _open(host: Host, open_: Callable[[Host], Awaitable[Remote]], reached: Reached, progress: Progress, timings: Timings) -> None:
    progress.update(host.name, "connecting")
    with timings.span("Connect", host.name):
        reached.remotes[host.name] = await open_(host)


async def _ask(host: Host, reached: Reached, progress: Progress, timings: Timings) -> None:
    """One round trip."""
    progress.update(host.name, "asking about the host")
    with timings.span("Gather facts", host.name):
        reached.facts[host.name] = await gather(reached.remotes[host.name], timeout=_FACTS_TIMEOUT)


async def _each(
    hosts: Sequence[Host], action: Callable[[Host], Awaitable[None]], reached: Reached, progress: Progress, at_once: int
) -> None:
    gate = asyncio.Semaphore(at_once)

    async def one(host: Host) -> None:
        async with gate:
            try:
                await action(host)
            except HyperMeshError as error:
                error.host = error.host or host.name
                reached.lost[host.name] = error
                met = isinstance(error, FirstContact)  # no failure yet: somebody may vouch for it
                progress.finish(host.name, "met for the first time" if met else error.message, outcome="warning" if met else "failed")

    async with asyncio.TaskGroup() as group:
        for host in hosts:
            group.create_task(one(host), name=f"reach {host.name}")
