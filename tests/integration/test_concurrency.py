"""Many at once, while nodes die: every call is answered rightly or fails with an error that says so, and every change happens once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from cluster import ClusterOfProcesses
from operators import TRANSIENT, Operator, new_id

from hmcore.api import (
    FLOWS,
    MAINTAIN,
    MUTE,
    PING,
    REPORT,
    STATE,
    ChangeReply,
    Empty,
    MaintainRequest,
    MuteRequest,
    ReportRequest,
    StateRequest,
)
from hmcore.errors import HyperMeshError, InvalidRequest, NotLeader
from hmcore.health import NODE_WEIGHTS
from hmcore.pki import Kind
from hmcore.records import NodeState

CALLERS = 64


async def clean(operator: Operator) -> None:
    """Nothing is muted or in maintenance any more."""
    state = await operator.ask(await leader_of(operator.cluster), STATE, StateRequest())
    for mute in state.mutes:
        await operator.change(MUTE, MuteRequest(id=new_id(), check=mute.check, node=mute.node, on=False))
    for maintenance in state.maintenance:
        await operator.change(MAINTAIN, MaintainRequest(id=new_id(), target=maintenance.target, on=False))


async def leader_of(cluster: ClusterOfProcesses) -> str:
    reports = await cluster.until_whole("there is a leader")
    leader = reports["node1"].raft.leader
    assert leader is not None
    return leader


async def test_64_callers_while_the_leader_is_killed_are_all_answered_and_each_with_its_own(cluster: ClusterOfProcesses) -> None:
    """Half of them change something of their own, half of them read; the leader dies while they do, and comes back."""
    leader = await leader_of(cluster)
    asked = [(check, node) for check in NODE_WEIGHTS for node in cluster.nodes][: CALLERS // 2]
    killed = asyncio.Event()
    over = asyncio.Event()
    done: list[tuple[str, str]] = []

    async def write(number: int, check: str, node: str) -> tuple[int, ChangeReply]:
        async with Operator(cluster, f"writer{number}") as operator:
            if number % 2:
                await killed.wait()  # these begin without a leader
            reply = await operator.change(MUTE, MuteRequest(id=new_id(), check=check, node=node, reason=f"of writer{number}"))
            done.append((check, node))
            if len(done) == len(asked) // 4:
                cluster.nodes[leader].kill()
                killed.set()
            assert all(isinstance(error, TRANSIENT) for error in operator.failures), operator.failures
            return number, reply

    async def read(number: int) -> int:
        """Reads until the writers are done. Returns how many answers it had."""
        answers = 0
        names = list(cluster.nodes)
        async with Operator(cluster, f"reader{number}", Kind.VIEWER) as viewer:
            while not over.is_set():
                name = names[(number + answers) % len(names)]
                try:
                    match (number + answers) % 3:
                        case 0:
                            assert (await viewer.ask(name, PING, Empty())).name == name
                        case 1:
                            assert (await viewer.ask(name, REPORT, ReportRequest(members=False))).name == name
                        case _:
                            state = await viewer.ask(name, STATE, StateRequest())
                            wrong = [mute for mute in state.mutes if mute.reason != f"of {mute.author}"]
                            assert not wrong, "somebody's change was made in another's name"
                except TRANSIENT:
                    pass  # of a node that is dead
                answers += 1
                await asyncio.sleep(0.05)
        return answers

    try:
        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(read(number)) for number in range(CALLERS - len(asked))]
            writers = [tasks.create_task(write(number, *key)) for number, key in enumerate(asked)]
            replies = dict(await asyncio.gather(*writers))
            over.set()
        cluster.nodes[leader].start()
        await cluster.until_whole("the killed leader is back")
        states = await cluster.until_states(lambda state: len(state.mutes) == len(asked), "all changes are known")
        for name, state in states.items():
            known = {(mute.check, mute.node): mute for mute in state.mutes}
            for number, key in enumerate(asked):
                assert (known[key].author, known[key].reason) == (f"writer{number}", f"of writer{number}"), name
                assert known[key].index == replies[number].index, "it was answered with another's place in the log"
        first = min(reply.index for reply in replies.values())
        for name in cluster.voters:  # a worker is not told events
            events = [event.subject for event in states[name].events if event.kind == "check.muted" and event.index >= first]
            assert sorted(events) == sorted(f"{check}@{node}" for check, node in asked), "each change happened once"
        assert all(reply.changed for reply in replies.values())
        assert min(reader.result() for reader in readers) > 0
    finally:
        cluster.revive()
        async with Operator(cluster, "tester") as operator:
            await clean(operator)


async def test_one_change_sent_many_times_at_once_is_one_change(cluster: ClusterOfProcesses) -> None:
    leader = await leader_of(cluster)
    once = MuteRequest(id=new_id(), check="disk", reason="sent eight times")
    async with AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(Operator(cluster, "tester")) for _ in range(8)]
        replies = await asyncio.gather(*(sender.ask(leader, MUTE, once) for sender in senders))
        assert len(set(map(str, replies))) == 1, "the same change was answered in different ways"
        assert replies[0].changed

        undone = await senders[0].ask(leader, MUTE, MuteRequest(id=new_id(), check="disk", on=False))
        assert undone.changed
        assert await senders[1].ask(leader, MUTE, once) == replies[0], "it came late, and was answered as the first was"
        state = await senders[0].ask(leader, STATE, StateRequest())
        assert state.mutes == [], "and was not done again"

        other = await stack.enter_async_context(Operator(cluster, "somebody"))
        theirs = await other.ask(leader, MUTE, MuteRequest(id=once.id, check="memory", reason="another's request with the same id"))
        assert theirs.changed
        assert theirs.index > undone.index
        await clean(senders[0])


async def test_operators_who_change_different_things_at_once_all_succeed(cluster: ClusterOfProcesses) -> None:
    leader = await leader_of(cluster)
    reports = await cluster.until(lambda reports: all(report.components for report in reports.values()))
    targets = [f"{name}/{component}" for name in cluster.nodes for component in reports[name].components] + [
        f"{name}/" for name in cluster.nodes
    ]
    async with AsyncExitStack() as stack:
        operators = [await stack.enter_async_context(Operator(cluster, f"op{number}")) for number in range(len(targets))]
        requests = [MaintainRequest(id=new_id(), target=target, on=True, reason=f"because of {target}") for target in targets]
        replies = await asyncio.gather(*(each.change(MAINTAIN, request) for each, request in zip(operators, requests, strict=True)))
        assert all(reply.changed for reply in replies)
        states = await cluster.until_states(lambda state: len(state.maintenance) == len(targets), "all is in maintenance")
        for state in states.values():
            found = {each.target: (each.author, each.reason) for each in state.maintenance}
            assert found == {target: (f"op{number}", f"because of {target}") for number, target in enumerate(targets)}
        undo = [MaintainRequest(id=new_id(), target=target, on=False) for target in targets]
        await asyncio.gather(*(each.ask(leader, MAINTAIN, request) for each, request in zip(operators, undo, strict=True)))
        await cluster.until_states(lambda state: not state.maintenance, "nothing is in maintenance")


async def test_who_wants_opposite_things_at_once_gets_one_of_them_everywhere(cluster: ClusterOfProcesses) -> None:
    leader = await leader_of(cluster)
    async with AsyncExitStack() as stack:
        operators = [await stack.enter_async_context(Operator(cluster, f"op{number}")) for number in range(16)]
        wanted = [MuteRequest(id=new_id(), check="peers", on=number % 2 == 0, reason=f"{number}") for number in range(16)]
        replies = await asyncio.gather(*(each.ask(leader, MUTE, request) for each, request in zip(operators, wanted, strict=True)))
        reached = max(reply.index for reply in replies)
        states = await cluster.until_states(lambda state: state.index >= reached, "all know of the last change")
        assert len({str(state.mutes) for state in states.values()}) == 1, "nodes disagree about the outcome"
        await clean(operators[0])


@pytest.mark.parametrize("node", ["node4", "a follower"])
async def test_who_does_not_lead_decides_nothing_and_names_the_leader(cluster: ClusterOfProcesses, node: str) -> None:
    leader = await leader_of(cluster)
    asked = node if node in cluster.nodes else next(name for name in cluster.voters if name != leader)
    async with Operator(cluster, "tester") as operator:
        with pytest.raises(NotLeader) as refusal:
            await operator.ask(asked, MUTE, MuteRequest(id=new_id(), check="disk"))
        assert refusal.value.leader == leader
        with pytest.raises(InvalidRequest, match="did you mean disk"):
            await operator.ask(leader, MUTE, MuteRequest(id=new_id(), check="disc"))
        assert (await operator.ask(leader, STATE, StateRequest())).mutes == []


async def test_all_nodes_stopped_and_started_at_the_same_moment(cluster: ClusterOfProcesses) -> None:
    """While somebody keeps asking: who is told anything is told the truth, and nobody hangs."""
    over = asyncio.Event()
    kinds: set[type[HyperMeshError]] = set()

    async def keep_asking(name: str) -> None:
        async with Operator(cluster, "asker", Kind.VIEWER) as viewer:
            while not over.is_set():
                try:
                    assert (await viewer.ask(name, PING, Empty(), timeout=1.0)).name == name
                    await viewer.ask(name, FLOWS, Empty(), timeout=1.0)
                except HyperMeshError as error:
                    kinds.add(type(error))
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        for name in cluster.nodes:
            tasks.create_task(keep_asking(name))
        endings = await asyncio.gather(*(asyncio.to_thread(node.terminate) for node in cluster.nodes.values()))
        assert endings == [0] * len(cluster.nodes)
        cluster.start()
        await cluster.until_whole("all are back")
        over.set()
    assert not [node.name for node in cluster.nodes.values() if "Traceback" in node.log]
    states = await cluster.states()
    assert all(member.state is not NodeState.DOWN for state in states.values() for member in state.nodes)
