"""What runs where, and how fit it is: told by each node, agreed on by the leader, known alike by all, and obeyed by their own calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
from cluster import WAIT, ClusterOfProcesses
from docker_socket import DockerSocket
from operators import Operator, new_id

from hmcore.api import INSTANCES, MAINTAIN, REGISTRY, Empty, MaintainRequest
from hmcore.errors import PermissionDenied
from hmcore.pki import Kind
from hmcore.records import Instance, InstanceHealth
from hmcore.stoq.rpc import invoke

COMPONENTS = {"transport", "consensus", "container", "security", "network", "images", "apps", "registry", "orchestration"}
View = dict[str, Instance]


async def views(cluster: ClusterOfProcesses) -> dict[str, View]:
    """The instances by id, as each node knows them."""

    async def ask(name: str) -> View:
        async with cluster.inside(name) as connection:
            return {each.id: each for each in (await invoke(connection, REGISTRY, Empty(), timeout=2)).instances}

    return dict(zip(cluster.nodes, await asyncio.gather(*map(ask, cluster.nodes)), strict=True))


async def until(cluster: ClusterOfProcesses, condition: Callable[[View], object], what: str) -> dict[str, View]:
    """The views as soon as every node's is as wanted."""
    found: Mapping[str, View] = {}
    try:
        async with asyncio.timeout(WAIT):
            while True:
                found = await views(cluster)
                if all(condition(view) for view in found.values()):
                    return dict(found)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not everywhere: {what}\n{found}") from None


@pytest.fixture
def docker_of_node4(processes: ClusterOfProcesses) -> Iterator[DockerSocket]:
    docker = DockerSocket(processes.nodes["node4"].config.docker_socket)
    docker.start()
    yield docker
    docker.stop()


async def test_every_component_of_every_node_is_an_instance_that_all_know_alike(cluster: ClusterOfProcesses) -> None:
    degraded = {f"{name}/container" for name in cluster.nodes}  # there is no Docker here
    healthy = {f"{name}/{component}" for name in cluster.nodes for component in COMPONENTS} - degraded

    def as_expected(view: View) -> bool:
        fit = {health: {id for id, each in view.items() if each.health is health} for health in InstanceHealth}
        return fit[InstanceHealth.HEALTHY] == healthy and fit[InstanceHealth.DEGRADED] == degraded and len(view) == len(healthy | degraded)

    found = await until(cluster, as_expected, "all components are there")
    assert len({str(sorted(map(str, view.values()))) for view in found.values()}) == 1
    for id, instance in found["node4"].items():
        node, _, component = id.partition("/")
        assert (instance.service, instance.node, instance.port) == (f"hypermesh/{component}", node, cluster.nodes[node].config.port)


async def test_a_container_is_an_instance_as_long_as_it_exists_and_never_one_of_the_platforms(
    cluster: ClusterOfProcesses, docker_of_node4: DockerSocket
) -> None:
    docker, ours = docker_of_node4, cluster.nodes["node4"].config.cluster_id
    labels = {"hypermesh_service": "shop/web", "hypermesh_port": "8080", "hypermesh_version": "v2", "hypermesh_tags": "blue,edge,-no-"}
    docker.run(hypermesh_cluster=ours, **labels)
    docker.run(hypermesh_cluster=ours, hypermesh_service="hypermesh/consensus")
    docker.run(hypermesh_cluster="hm-somebodyels", hypermesh_service="shop/web")
    found = await until(cluster, lambda view: "node4/c0" in view and "node4/c1" in view, "two containers are ours")
    for view in found.values():
        web, thief = view["node4/c0"], view["node4/c1"]
        assert (web.service, web.port, web.version, web.tags) == ("shop/web", 8080, "v2", ["blue", "edge"])
        assert web.health is InstanceHealth.HEALTHY
        assert thief.service == "c1", "it asked for the platform's own name"
        assert "node4/c2" not in view, "it belongs to another cluster"

    docker.say(0, State="exited")
    await until(cluster, lambda view: view["node4/c0"].health is InstanceHealth.UNHEALTHY, "it has ended")
    docker.stop()
    found = await until(cluster, lambda view: view["node4/c0"].health is InstanceHealth.UNKNOWN, "nobody can tell")
    assert {view["node4/c0"].reason for view in found.values()} == {"Docker does not answer"}
    docker.containers.clear()
    docker.said.clear()
    docker.start()
    await until(cluster, lambda view: {id for id in view if id.startswith("node4/")} == {f"node4/{each}" for each in COMPONENTS}, "gone")


async def test_what_is_in_maintenance_is_not_called_by_the_nodes_themselves(cluster: ClusterOfProcesses) -> None:
    """A worker follows the log at a control node that the registry offers; when that one is in maintenance, at another."""
    async with Operator(cluster, "tester") as operator:
        (current,) = await changed_calls(operator, await calls_of_node4(operator))
        assert current.endswith("/consensus")
        await operator.change(MAINTAIN, MaintainRequest(id=new_id(), target=current, on=True))
        try:
            await cluster.until_states(lambda state: [each.target for each in state.maintenance] == [current], "node4 knows, too")
            others = await other_calls(operator, current)
            assert all(other.endswith("/consensus") for other in others)
        finally:
            await operator.change(MAINTAIN, MaintainRequest(id=new_id(), target=current, on=False))


async def other_calls(operator: Operator, current: str, *, least: int = 4) -> set[str]:
    """Whom node4 calls once the calls to `current` that were under way have ended: `least` times in a row somebody else."""
    others: set[str] = set()
    count = 0
    async with asyncio.timeout(2 * WAIT):
        while count < least:
            called = await changed_calls(operator, await calls_of_node4(operator))
            count = 0 if current in called else count + 1
            others = set() if current in called else others | called
    return others


async def calls_of_node4(operator: Operator) -> dict[str, float]:
    """How long each instance takes to answer node4: each call changes its instance's figure."""
    return (await operator.ask("node4", REGISTRY, Empty())).latency_ms


async def changed_calls(operator: Operator, before: Mapping[str, float]) -> set[str]:
    """The instances that node4 calls next."""
    async with asyncio.timeout(WAIT):
        while True:
            now = await calls_of_node4(operator)
            if changed := {id for id, latency in now.items() if before.get(id) != latency}:
                return changed
            await asyncio.sleep(0.05)


async def test_only_nodes_may_ask_a_node_for_its_own_instances(cluster: ClusterOfProcesses) -> None:
    async with Operator(cluster, "tester") as operator, Operator(cluster, "viewer", Kind.VIEWER) as viewer:
        with pytest.raises(PermissionDenied):
            await operator.ask("node4", INSTANCES, Empty())
        with pytest.raises(PermissionDenied):
            await viewer.ask("node1", MAINTAIN, MaintainRequest(id=new_id(), target="node4/", on=True))
        assert {each.id for each in (await viewer.ask("node1", REGISTRY, Empty())).instances} >= {f"node4/{name}" for name in COMPONENTS}
