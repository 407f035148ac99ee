"""The world of app_world.py whose nodes run containers: Docker in memory, and the agents' own streams behind sockets. For tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from answering import Door
from app_streams import Node, node
from app_world import NAMES, World

from hmcore.config.inventory import Host, load_inventory
from hmcore.errors import ConnectionLost
from hmcore.stoq.connection import Connection
from hmcore.stoq.dialogue import open_talk
from hmcore.stoq.local import connect_unix
from hmctl.actions.agents import Agents
from hmctl.client import Access


class StreamingDoor(Door):
    """Its streams are real ones."""

    def __init__(self, name: str, fleet: Fleet) -> None:
        super().__init__(name, fleet.world.told, fleet.world.answer)
        self.fleet = fleet
        self.connection: Connection | None = None

    async def open(self, dialogue: Any, request: Any) -> Any:
        if self.name in self.fleet.world.down:
            raise ConnectionLost("nothing listens there any more", host=self.name)
        if self.connection is None:
            self.connection = await connect_unix(self.fleet.folder / self.name / "agent.sock")
            self.fleet.connections.append((self.name, self.connection))
        return await open_talk(self.connection, dialogue, request, timeout=5)

    async def close(self) -> None:
        if self.connection is not None:
            await self.connection.close()


@dataclass
class Fleet:
    folder: Path
    world: World
    nodes: dict[str, Node] = field(default_factory=dict)
    connections: list[tuple[str, Connection]] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)

    async def connect(self, host: Host, access: Any, **options: Any) -> StreamingDoor:
        await self.world.connect(host, access, **options)
        return StreamingDoor(host.name, self)

    def agents(self) -> Agents:
        return Agents(self.hosts, Access("hm-abc123defg", self.folder / "known_hosts"))

    def start(self) -> dict[str, Node]:
        """A container for each allocation that has none yet; its id is the allocation's last two numbers with its service: web-1-1. Where
        each is."""
        where = {}
        for each in self.world.state.allocations.values():
            id = each.id.partition("/")[2].replace(".", "-")
            where[id] = here = self.nodes[each.node]
            if id not in here.docker.containers:
                here.docker.add(id, allocation=each.id)
        return where

    def cut_off(self, name: str) -> None:
        """All connections to a node, at once; and no new ones."""
        self.world.down.add(name)
        for connected, connection in self.connections:
            if connected == name:
                connection.hang_up("cut off")


@contextlib.asynccontextmanager
async def fleet(folder: Path, world: World, inventory: Path) -> AsyncIterator[Fleet]:
    made = Fleet(folder, world, hosts=list(load_inventory(inventory, {})[0].hosts))
    async with contextlib.AsyncExitStack() as stack:
        for name in NAMES:
            (folder / name).mkdir()
            made.nodes[name] = await stack.enter_async_context(node(folder / name))
        yield made


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - conditions of foreign objects have no event
            await asyncio.sleep(0.002)
