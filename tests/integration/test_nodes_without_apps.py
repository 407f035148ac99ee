"""A node that is told to run no apps tells the leader so, from its file on, and operators read it everywhere."""

from __future__ import annotations

import asyncio

from cluster import WAIT, ClusterOfProcesses
from docker_socket import DockerSocket
from operators import Operator, new_id

from hmcore.apps.calls import APPS, DEPLOY, AppsReply, AppsRequest, DeployRequest
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec

IMAGE = f"web@sha256:{'7' * 64}"


async def until(operator: Operator, waits: dict[str, str], placed: int) -> None:
    """So many replicas have a place, and the leader says exactly this of the others."""
    reply: AppsReply | None = None
    try:
        async with asyncio.timeout(WAIT):
            while reply is None or (reply.waits, len(reply.allocations)) != (waits, placed):
                await asyncio.sleep(0.05)
                reply = await operator.ask("node1", APPS, AppsRequest(name="shop"))
    except TimeoutError:
        raise AssertionError(f"not {waits} and {placed} placed: {reply}") from None


async def test_what_its_file_says_keeps_apps_off_a_node_until_it_says_otherwise(lone: ClusterOfProcesses, docker: DockerSocket) -> None:
    docker.answers["GET /volumes"] = 200, {"Volumes": []}
    docker.start()
    node = lone.nodes["node1"]
    willing = node.config
    node.config = willing.model_copy(update={"apps": False})
    node.start()
    await lone.until(bool, what="it answers")
    await lone.form()
    await lone.until(lambda reports: any(each.raft.leader and each.formed for each in reports.values()), what="it leads")
    spec = AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image=IMAGE), mode="replicated", replicas=1)})
    async with Operator(lone, "tester") as operator:
        await operator.change(DEPLOY, DeployRequest(id=new_id(), name="shop", spec=spec))
        await until(operator, {"shop/web": "role: 1 of 1 node runs no apps"}, 0)
    assert not (await lone.reports())["node1"].apps
    node.terminate()
    node.config = willing
    node.start()
    await lone.until(lambda reports: any(each.raft.leader for each in reports.values()), what="it leads again")
    async with Operator(lone, "tester") as operator:
        await until(operator, {}, 1)
    assert (await lone.reports())["node1"].apps
