"""Stands in for an agent in a network namespace: keeps the containers' network with the real parts, as it is told on stdin, a line of JSON
each; answers with a line each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hmcore.apps.subnets import gateway
from hmcore.config.settings import Network
from hmcore.errors import HyperMeshError
from node_agent.network import layer as layer_module
from node_agent.network.dns import NameServer
from node_agent.network.docker import creation
from node_agent.network.layer import NetworkLayer
from node_agent.network.links import Links
from node_agent.network.names import Directory, Replica, Service
from node_agent.network.nft import Filter
from node_agent.network.plan import Place
from node_agent.network.ruleset import Endpoint, Published
from node_agent.network.upkeep import Upkeep
from node_agent.network.upstream import Upstream
from node_agent.network.wanted import Wanted


def published(told: list[Any]) -> list[Published]:
    return [Published(protocol, port, tuple(Endpoint(*each) for each in endpoints), *at) for protocol, port, endpoints, *at in told]


class Docker:
    """As much of it as the bridge needs (bridge.Networks). `containers`: addresses by the names of their links."""

    def __init__(self, made: dict[str, Any] | None, containers: Mapping[str, str]) -> None:
        self.made = made
        self.containers = containers

    def network(self, name: str) -> object | None:
        attached = {link: {"IPv4Address": f"{address}/24"} for link, address in self.containers.items()}
        return None if self.made is None else self.made | {"Containers": attached}

    def create_network(self, body: Mapping[str, object]) -> None:
        self.made = dict(body)
        (place,) = self.made["IPAM"]["Config"]
        run("ip", "link", "add", "hm0", "type", "bridge")
        run("ip", "address", "add", f"{place['Gateway']}/24", "dev", "hm0")
        run("ip", "link", "set", "hm0", "up")
        for link, address in self.containers.items():
            self.reattach("hypermesh", link, address)

    def remove_network(self, name: str) -> None:
        raise AssertionError("nobody asked for that")

    def reattach(self, network: str, container: str, address: str) -> None:
        run("ip", "link", "set", container, "master", "hm0")


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=10)


class Node:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.network = Network(**settings)
        self.links = Links()
        self.upkeep = Upkeep(self.network, self.links, Filter())
        self.wanted: Wanted | None = None
        self.layer: NetworkLayer | None = None
        self.running: asyncio.Task[None] | None = None

    async def whole(self, told: dict[str, Any]) -> object:
        outcome = await self.upkeep.whole(Place(*told["own"]), [Place(*each) for each in told["others"]], published(told["published"]))
        return {"changes": outcome.changes, "unreachable": dict(outcome.unreachable)}

    async def ports(self, told: dict[str, Any]) -> object:
        return {"transactions": (await self.upkeep.ports(published(told["published"]))).changes}

    async def start(self, told: dict[str, Any]) -> object:
        """The whole layer."""
        made = None if told["subnet"] is None else creation(told["subnet"], 1500, "c")
        docker = Docker(made, told["containers"])
        layer_module.ANYWAY = 600.0  # what it is not told of it shall not find by chance
        self.layer = NetworkLayer(self.network, "c", wanted=lambda: self.wanted, networks=lambda: docker)
        await self.layer.initialize()
        self.running = asyncio.create_task(self.layer.run(), name="layer")
        return {}

    async def want(self, told: dict[str, Any]) -> object:
        assert self.layer is not None
        services = [
            Service(app, name, networks, tuple(Replica(*each) for each in replicas)) for app, name, networks, replicas in told["services"]
        ]
        others = tuple(Place(*each) for each in told["others"])
        self.wanted = Wanted(Place(*told["own"]), others, tuple(published(told["published"])), services=tuple(services))
        self.layer.poke()
        return {}

    async def check(self, told: dict[str, Any]) -> object:
        assert self.layer is not None
        assert self.running is not None
        if self.running.done():
            self.running.result()
        return {"trouble": str(await self.layer.check() or "")}

    async def looked(self, told: dict[str, Any]) -> object:
        """When all of it was looked at last."""
        assert self.layer is not None
        return {"at": self.layer._looked_at}

    async def stop(self, told: dict[str, Any]) -> object:
        assert self.layer is not None
        assert self.running is not None
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running
        await self.layer.stop()
        return {}

    async def seen(self, told: dict[str, Any]) -> object:
        seen = await self.links.observe()
        return {"routes": [str(route) for route in seen.routes], "links": [str(link) for link in seen.links]}

    def names(self, told: dict[str, Any]) -> NameServer:
        services = [
            Service(app, name, networks, tuple(Replica(*each) for each in replicas)) for app, name, networks, replicas in told["services"]
        ]
        directory = Directory(self.network.cidr, services, {})
        own = gateway(told["subnet"])
        server = NameServer(own, told["subnet"], lambda: directory, Upstream(own, path=Path("/nonexistent")))
        server.open()
        return server


async def main() -> None:
    loop = asyncio.get_running_loop()
    node = Node(json.loads(sys.argv[1]))
    async with asyncio.TaskGroup() as tasks:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            told = json.loads(line)
            try:
                if told["do"] == "names":
                    tasks.create_task(node.names(told).serve(), name="names")
                    answer: object = {}
                else:
                    answer = await getattr(node, told["do"])(told)
            except HyperMeshError as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
        raise SystemExit(0)


if __name__ == "__main__":
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
