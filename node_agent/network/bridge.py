"""Has Docker make the containers' network on this node, and puts back a bridge that somebody took away. docker.py says what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from hmcore.errors import ContainerRefused, LayerDown, PartGone
from node_agent.container.executor import in_thread
from node_agent.network import docker
from node_agent.network.docker import NAME, Attach, Make, Strange
from node_agent.network.facts import BRIDGE
from node_agent.network.links import Links
from node_agent.network.plan import Place, bridge_as_made, mtu

FIX = f"docker network inspect {NAME}; docker network rm {NAME}"

log = logging.getLogger(__name__)


class Networks(Protocol):
    """What Engine does to Docker's networks. Every call blocks, and raises LayerDown or ContainerRefused."""

    def network(self, name: str) -> object | None: ...
    def create_network(self, body: Mapping[str, object]) -> None: ...
    def remove_network(self, name: str) -> None: ...
    def reattach(self, network: str, container: str, address: str) -> None: ...


class Bridge:
    """`cluster`: its id. Calls must not overlap."""

    def __init__(self, cluster: str, links: Links) -> None:
        self._cluster = cluster
        self._links = links
        self._owed: dict[str, str] = {}  # containers that Docker could not attach again, with their addresses

    async def ensure(self, networks: Networks, own: Place) -> bool:
        """Whether anything had to be done for it to be as it shall be. Raises LayerDown: it is not."""
        seen = await self._links.observe()
        there = await in_thread(lambda: networks.network(NAME))
        size = mtu(seen, own)
        match docker.step(there, own.subnet, bridge=seen.link(BRIDGE) is not None):
            case Strange(reason):
                raise LayerDown(f"Docker has a network {NAME} that is not ours: {reason}", fix=FIX)
            case Make(instead):
                await self._make(networks, own, size, instead)
                return True
            case Attach(containers):
                log.warning("the bridge %s has gone: it is made anew, and %d containers are attached to it", BRIDGE, len(containers))
                await self._links.carry_out(bridge_as_made(own, seen, size))
                self._owed |= containers
                await self._attach(networks)
                return True
            case None:
                actions = bridge_as_made(own, seen, size)
                await self._links.carry_out(actions)
                await self._attach(networks)
                return bool(actions)

    async def _make(self, networks: Networks, own: Place, size: int, instead: str) -> None:
        body = docker.creation(own.subnet, size, self._cluster)

        def make() -> None:
            if instead:
                networks.remove_network(NAME)
            networks.create_network(body)

        try:
            await in_thread(make)
        except ContainerRefused as error:
            why = f"{instead}, and it cannot be made anew" if instead else "it cannot be made"
            raise LayerDown(f"the containers' network {NAME} is not as it shall be: {why}: {error}", fix=error.fix or FIX) from error
        log.info("Docker made the network %s (%s)%s", NAME, own.subnet, f" anew: {instead}" if instead else "")

    async def _attach(self, networks: Networks) -> None:
        """Whoever is owed it, whatever becomes of one: who could not be attached is told at the end, and is tried again the next time."""
        failed = []
        for id, address in list(self._owed.items()):
            try:
                await in_thread(lambda id=id, address=address: networks.reattach(NAME, id, address))  # type: ignore[misc]
            except PartGone:
                log.info("container %s has gone meanwhile", id[:12])
            except ContainerRefused as error:
                failed.append(f"{id[:12]} ({error})")
                continue
            del self._owed[id]
        if failed:
            raise LayerDown(
                f"containers are not attached to the bridge {BRIDGE} any more: {', '.join(failed)}",
                fix="docker rm -f CONTAINER: it is made anew",
            )
