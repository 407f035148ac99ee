"""What a worker knows of its own allocations, and as of which log index: that it was admitted it hears at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from control_node import ControlNode

from hmcore.apps.records import Allocation, allocation_id
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.records import Node, Role
from hmcore.watch import TablesReply, TablesRequest, WatchReply, WatchRequest
from node_agent.consensus.following.own import OwnRecords
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import AdmitNode, PlanApp, PutApp, Stop
from node_agent.consensus.statemachine.commands import FormCluster, PutNode

DB = Allocation(id=allocation_id("shop", "db", 1, 1), app="shop", service="db", slot=1, node="w1", generation=1, revision="r")


class Bench:
    def __init__(self) -> None:
        self.control = ControlNode()
        self.put = self.control.put
        clock = lambda: asyncio.get_running_loop().time()  # noqa: E731
        self.seen: list[tuple[int, bool | None]] = []
        self.changed = asyncio.Event()
        self.own = OwnRecords(
            "w1", control_nodes=lambda: ["node1"], watch=self._watch, tables=self._tables, on_change=self._on_change, clock=clock
        )

    def plan(self, **named: object) -> PlanApp:
        return PlanApp(app="shop", basis=self.control.state.apps["shop"].index, rollouts={}, healthy=0, **named)  # type: ignore[arg-type]

    async def _watch(self, request: WatchRequest, names: Sequence[str]) -> WatchReply:
        return await self.control.watches.watch(request)

    async def _tables(self, request: TablesRequest, names: Sequence[str]) -> TablesReply:
        return await self.control.watches.tables(request)

    def _on_change(self) -> None:
        found = (self.own.allocations or {}).get(DB.id)
        self.seen.append((self.own.index, None if found is None else found.stop))
        self.changed.set()

    async def until_known(self, index: int) -> None:
        async with asyncio.timeout(2):  # far less than an answer may be held back
            while self.own.index < index:
                self.changed.clear()
                await self.changed.wait()


async def test_a_worker_hears_at_once_that_it_was_admitted_and_knows_what_was_decided_before():
    bench = Bench()
    nodes = [PutNode(node=Node(name=name, address="198.18.0.9", port=7443, role=Role.WORKER, release="r1")) for name in ("w1", "w2")]
    spec = AppSpec(services={"db": ServiceSpec(container=ContainerSpec(image="db"), exclusive=True)})
    bench.put(FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST), *nodes, PutApp(name="shop", spec=spec))
    placed = bench.put(bench.plan(starts=(DB,)))
    follows = asyncio.get_running_loop().create_task(bench.own.follow(), name="follow")
    try:
        await bench.until_known(placed)
        stopped = bench.plan(stops=(Stop(key=DB.key, reason="lost"),))
        admitted = bench.put(stopped, AdmitNode(node="w1"))
        await bench.until_known(admitted)
        assert all(stop is (index > placed) for index, stop in bench.seen), bench.seen
        assert bench.seen[-1] == (admitted, True)
        bench.put(AdmitNode(node="w2"))
        again = bench.put(AdmitNode(node="w1"))
        await bench.until_known(again)
    finally:
        follows.cancel()
        await asyncio.wait([follows])
