"""A node whose state is not that of the others is found out, says so, and takes theirs: real agents, one with a wrong snapshot."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cluster import ClusterOfProcesses

from hmcore.errors import HyperMeshError
from hmcore.records import FEATURE_LEVEL, NodeReport
from hmcore.stoq.rpc import invoke
from hmcore.store import GET_KEY, PUT_KEY, KeyRequest, PutKeyRequest
from node_agent.consensus import codec
from node_agent.consensus.log import snapshots
from node_agent.consensus.log.disk import Directory, replace
from node_agent.consensus.log.journal import Journal
from node_agent.consensus.log.snapshots import Snapshot
from node_agent.consensus.statemachine import machine
from node_agent.consensus.statemachine.state import State, digest

KEYS = 20


def tamper(directory: Path, voters: list[str]) -> None:
    """As a bug in its state machine would have it: another value under a key, in a snapshot whose checksums are all right.

    No snapshot was due yet, so it is made of the journal: of an agent that stopped between the two, as it were.
    """
    disk = Directory(directory)
    journal = Journal(disk)
    journal.open(None)
    state = State()
    for entry in journal.entries:
        if entry.command[:1] == codec.REGULAR:
            method, (batch,) = codec.loads(entry.command[1:])
            state = machine.apply_batch(state, batch, entry.index, configures=method == 1).state
    wrong = msgspec.structs.replace(state.keys["k1"], value=b"tampered with")
    state = msgspec.structs.replace(state, keys=state.keys.insert("k1", wrong))  # type: ignore[attr-defined]
    state = msgspec.structs.replace(state, digest=digest(state))
    previous, last = journal.entries[-2:]
    found = Snapshot(previous=previous, last=last, voters=tuple(voters), state=machine.snapshot(state))
    replace(disk, snapshots.SNAPSHOT, snapshots.pack(found))
    journal.close()
    disk.close()


async def put(cluster: ClusterOfProcesses, key: str, value: bytes) -> None:
    """By whoever leads."""
    request = PutKeyRequest(id=uuid.uuid4().hex, key=key, value=value)
    async with asyncio.timeout(30.0):
        while True:
            for name in cluster.voters:
                try:
                    async with cluster.connect(name) as connection:
                        await invoke(connection, PUT_KEY, request, timeout=2.0)
                        return
                except HyperMeshError:
                    await asyncio.sleep(0.05)


async def get(cluster: ClusterOfProcesses, name: str, key: str) -> bytes | None:
    async with cluster.connect(name) as connection:
        item = (await invoke(connection, GET_KEY, KeyRequest(key=key), timeout=2.0)).item
    return None if item is None else item.value


def found_out(reports: Mapping[str, NodeReport], odd: str) -> bool:
    accused = {each.node for report in reports.values() for each in report.raft.divergences}
    return accused == {odd}


async def test_a_node_whose_state_was_tampered_with_is_found_out_and_takes_the_others_state(tmp_path: Path) -> None:
    cluster = ClusterOfProcesses(tmp_path)
    try:
        reports = await cluster.bring_up()
        assert {report.raft.level for report in reports.values()} == {FEATURE_LEVEL}
        for number in range(KEYS):
            await put(cluster, f"k{number}", b"%d" % number)
        leader = next(iter(reports.values())).raft.leader
        odd = next(name for name in cluster.voters if name != leader)
        node = cluster.nodes[odd]
        node.terminate()
        tamper(node.config.data_dir / "raft", cluster.voters)
        node.start()
        began = time.monotonic()
        reports = await cluster.until(lambda reports: found_out(reports, odd), what="it is found out")
        seen = time.monotonic() - began
        said = next(each for report in reports.values() for each in report.raft.divergences)
        assert (said.node, said.others) == (odd, sorted(set(cluster.voters) - {odd}))
        assert said.hash != said.agreed
        aside = node.config.data_dir
        reports = await cluster.until(
            lambda reports: (
                len(reports) == 3
                and not any(report.raft.divergences for report in reports.values())
                and reports[odd].raft.role == "follower"
                and bool(list(aside.glob("raft.diverged-*")))
            ),
            what="it took the others' state",
        )
        print(f"found out after {seen:.1f} s, re-seeded after {time.monotonic() - began:.1f} s")
        assert await get(cluster, odd, "k1") == b"1"
        await put(cluster, "after", b"all is well")
        states = await cluster.until_states(lambda state: any(event.kind == "state.diverged" for event in state.events), "it is an event")
        assert [(event.subject) for event in states[odd].events if event.kind == "state.diverged"] == [odd]
        assert await get(cluster, odd, "after") == b"all is well"
    finally:
        cluster.stop()
