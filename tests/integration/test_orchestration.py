"""Who lives, who does not, and what follows from it: decided by the leader once, in the log, and the same at every node."""

from __future__ import annotations

import signal

from cluster import ClusterOfProcesses
from operators import Operator, new_id

from hmcore.api import MAINTAIN, REGISTRY, STATE, Empty, MaintainRequest, RegistryReply, StateReply, StateRequest
from hmcore.pki import Kind
from hmcore.records import InstanceHealth, NodeState


def member(state: StateReply, name: str) -> tuple[NodeState, str]:
    return next((node.state, node.state_reason) for node in state.nodes if node.name == name)


async def catalogue(operator: Operator, node: str) -> RegistryReply:
    return await operator.ask(node, REGISTRY, Empty())


async def test_a_dead_node_becomes_suspect_then_down_and_returns_once_each_in_everybodys_log(cluster: ClusterOfProcesses) -> None:
    before = (await cluster.until_states(lambda state: len(state.nodes) == 4, "all are members"))["node1"]
    incarnation = next(node.incarnation for node in before.nodes if node.name == "node4")
    cluster.nodes["node4"].kill()
    await cluster.until_states(lambda state: member(state, "node4")[0] is NodeState.DOWN, "node4 is down")
    cluster.nodes["node4"].start()
    await cluster.until_whole("node4 is back")
    states = await cluster.until_states(lambda state: member(state, "node4")[0] is NodeState.DEGRADED, "it is known to be back")
    for name in cluster.voters:
        told = [event for event in states[name].events if event.index > before.index and event.subject == "node4"]
        kinds = [event.kind for event in told if event.kind.startswith("node.")]
        assert kinds[:2] == ["node.suspect", "node.down"]
        assert set(kinds[2:]) <= {"node.ready", "node.degraded"}
        assert kinds[-1] == "node.degraded", "Docker is not here"
    assert len({str(states[name].events) for name in cluster.voters if states[name].index == states["node1"].index}) == 1
    assert next(node.incarnation for node in states["node1"].nodes if node.name == "node4") > incarnation


async def test_what_a_dead_node_ran_is_unfit_everywhere_until_it_returns(cluster: ClusterOfProcesses) -> None:
    async with Operator(cluster, "tester", Kind.VIEWER) as viewer:
        others = [name for name in cluster.nodes if name != "node4"]
        mine = {f"node4/{component}" for component in (await cluster.reports())["node4"].components}

        async def health_of(node: str) -> dict[str, InstanceHealth]:
            return {each.id: each.health for each in (await catalogue(viewer, node)).instances if each.node == "node4"}

        fit = {InstanceHealth.HEALTHY, InstanceHealth.DEGRADED}
        assert {name: set(await health_of(name)) for name in cluster.nodes} == dict.fromkeys(cluster.nodes, mine)
        assert all([set((await health_of(name)).values()) <= fit for name in cluster.nodes])

        cluster.nodes["node4"].send(signal.SIGSTOP)  # its machine hangs
        try:
            await cluster.until_states(lambda state: member(state, "node4")[0] is NodeState.DOWN, "node4 is down", of=others)
            for name in others:
                assert set((await health_of(name)).values()) == {InstanceHealth.UNHEALTHY}, name
                reasons = {each.reason for each in (await catalogue(viewer, name)).instances if each.node == "node4"}
                assert all(reason.startswith("node4 is down") for reason in reasons)
                assert InstanceHealth.UNHEALTHY not in {
                    each.health for each in (await catalogue(viewer, name)).instances if each.node != "node4"
                }
        finally:
            cluster.nodes["node4"].send(signal.SIGCONT)
        await cluster.until_whole("node4 goes on")
        await cluster.until_states(lambda state: member(state, "node4")[0] is NodeState.DEGRADED, "node4 is known to be well")
        for name in cluster.nodes:
            assert set(await health_of(name)) == mine
            assert set((await health_of(name)).values()) <= fit, name


async def test_a_new_leader_calls_nobody_dead_who_lives(cluster: ClusterOfProcesses) -> None:
    """Everybody sends heartbeats to every control node, so that whoever is elected knows already who lives."""
    state = (await cluster.until_states(lambda state: state.leader is not None, "there is a leader"))["node1"]
    old = state.leader
    assert old is not None
    cluster.nodes[old].kill()
    others = [name for name in cluster.nodes if name != old]
    states = await cluster.until_states(
        lambda state: state.leader not in (None, old) and member(state, old)[0] is NodeState.DOWN,
        "another leads and calls it down",
        of=others,
    )
    told = [
        event
        for event in states[states[others[0]].leader or ""].events
        if event.index > state.index and event.kind in ("node.suspect", "node.down")
    ]
    assert {event.subject for event in told} == {old}
    cluster.nodes[old].start()


async def test_maintenance_outlives_the_node_it_is_about_and_the_leader_who_wrote_it(cluster: ClusterOfProcesses) -> None:
    async with Operator(cluster, "tester") as tester:
        await tester.change(MAINTAIN, MaintainRequest(id=new_id(), target="node4/consensus", on=True, reason="by hand"))
        leader = (await tester.ask("node1", STATE, StateRequest())).leader
        assert leader is not None
        for name in (leader, "node4"):
            cluster.nodes[name].kill()
        for name in (leader, "node4"):
            cluster.nodes[name].start()
        await cluster.until_whole("both are back")
        states = await cluster.until_states(
            lambda state: [each.target for each in state.maintenance] == ["node4/consensus"], "it is still so"
        )
        assert {each.reason for state in states.values() for each in state.maintenance} == {"by hand"}
        await tester.change(MAINTAIN, MaintainRequest(id=new_id(), target="node4/consensus", on=False))
