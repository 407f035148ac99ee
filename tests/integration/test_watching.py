"""Following what real agents agreed on: a worker and a viewer, while the control node that they ask is killed."""

from __future__ import annotations

import asyncio
import statistics
import time

import msgspec
from cluster import ClusterOfProcesses
from operators import TRANSIENT, Operator, new_id

from hmcore.api import MAINTAIN, STATE, MaintainRequest, StateRequest
from hmcore.pki import Kind
from hmcore.records import KeyValue
from hmcore.store import PUT_KEY, PutKeyRequest
from hmcore.watch import TABLES, WATCH, Change, Position, TablesRequest, WatchRequest

WRITES = 60
P50 = 0.1  # seconds from the question to put to the watcher on another node, on a machine that has other things to do


def value_of(change: Change) -> bytes:
    return b"" if change.record is None else msgspec.msgpack.decode(change.record, type=KeyValue).value


async def test_a_watcher_at_another_node_sees_each_write_once_and_soon_also_when_its_node_is_killed(cluster: ClusterOfProcesses) -> None:
    async with Operator(cluster, "writer") as writer, Operator(cluster, "looker", Kind.VIEWER) as viewer:
        leader = (await viewer.ask("node1", STATE, StateRequest())).leader
        followers = [name for name in cluster.voters if name != leader]
        victim = followers[0]
        sent: dict[bytes, float] = {}
        told: list[tuple[bytes, float]] = []
        losses: list[str] = []
        prefix = f"watched/{new_id()}/"
        began = (await viewer.ask(victim, WATCH, WatchRequest())).index

        async def write() -> None:
            for number in range(WRITES):
                if number == WRITES // 2:
                    cluster.nodes[victim].kill()
                value = b"%d" % number
                sent[value] = time.monotonic()
                await writer.change(PUT_KEY, PutKeyRequest(id=f"session-{prefix[8:20]}:{number}", key=f"{prefix}{number % 7}", value=value))
                await asyncio.sleep(0.02)

        async def watch() -> None:
            position, at = Position(began), victim
            while len(told) < WRITES:
                since = position.index
                try:
                    reply = await viewer.ask(at, WATCH, WatchRequest(since=since, tables=("keys",), prefix=prefix, wait=1.0), timeout=3.0)
                except TRANSIENT as error:
                    losses.append(str(error))
                    at = followers[1]
                    continue
                now = time.monotonic()
                step = position.take(since, reply)
                assert step.oldest is None
                told.extend((value_of(change), now) for entry in step.entries for change in entry.changes)

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(watch(), name="watch")
            tasks.create_task(write(), name="write")
        cluster.nodes[victim].start()
        assert losses, "the watcher's node was killed"
        values = list(sent)
        assert [value for value, _ in told] == values, "each once, in their order"
        quiet = [now - sent[value] for (_, now), value in zip(told[: WRITES // 2 - 1], values, strict=False)]
        print(f"put to watcher on another node: p50 {statistics.median(quiet) * 1000:.1f} ms, worst {max(quiet) * 1000:.1f} ms")
        assert statistics.median(quiet) < P50


async def test_a_worker_follows_whichever_control_node_is_killed(cluster: ClusterOfProcesses) -> None:
    async with Operator(cluster, "tester") as operator:
        worker = "node4"
        for number, victim in enumerate(cluster.voters):
            cluster.nodes[victim].kill()
            index = (await operator.change(MAINTAIN, MaintainRequest(id=new_id(), target="node4/", on=True, reason=f"turn {number}"))).index
            await cluster.until_states(
                lambda state: [each.reason for each in state.maintenance if each.target == "node4/"] == [f"turn {number}"],  # noqa: B023
                f"the worker knows of turn {number}",
                of=[worker],
            )
            assert (await operator.ask(worker, STATE, StateRequest())).index >= index
            cluster.nodes[victim].start()
            await cluster.until_whole("the control node is back")
        await operator.change(MAINTAIN, MaintainRequest(id=new_id(), target="node4/", on=False))
        await cluster.until_states(lambda state: not state.maintenance, "the worker knows of the end", of=[worker])
        leader = (await operator.ask("node1", STATE, StateRequest())).leader
        assert leader is not None
        whole = await operator.ask(leader, TABLES, TablesRequest(tables=("nodes",)))
        known = await operator.ask(worker, STATE, StateRequest())
        assert {change.key for change in whole.records} == {node.name for node in known.nodes}
        assert "is not what the control nodes have" not in cluster.nodes[worker].log, "copies were compared, and are right"
        assert "cannot be watched" not in cluster.nodes[worker].log
