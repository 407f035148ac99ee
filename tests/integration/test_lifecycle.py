"""The life of a running agent: what goes and comes back beside it, what fails inside it, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from cluster import NEEDS, WAIT, ClusterOfProcesses, whole
from docker_socket import DockerSocket

from hmcore.records import ComponentReport, NodeReport, NodeState
from hmcore.records import ComponentState as S

BREAKABLE = "tests/integration/breakable_agent.py"


async def until_local(cluster: ClusterOfProcesses, condition: Callable[[NodeReport], bool], what: str, seconds: float = WAIT) -> NodeReport:
    """The lone node's report by its socket, as soon as it is as wanted."""
    report = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                report = await cluster.report("node1")
                if report is not None and condition(report):
                    return report
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}\n{report}\n{cluster.nodes['node1'].log[-4000:]}") from None


async def formed(cluster: ClusterOfProcesses) -> NodeReport:
    cluster.start()
    await cluster.until(lambda reports: "node1" in reports, what="it answers")
    await cluster.form()
    reports = await cluster.until(
        lambda reports: whole(reports, 1) and reports["node1"].components["orchestration"].state is S.RUNNING, what="it leads"
    )
    return reports["node1"]


async def test_docker_comes_hangs_goes_and_comes_back_and_the_agent_lives_on(alone) -> None:
    cluster = alone(health={"interval": 0.5, "timeout": 0.4})
    docker = DockerSocket(cluster.nodes["node1"].config.docker_socket)

    def container(report: NodeReport) -> ComponentReport:
        return report.components["container"]

    try:
        report = await formed(cluster)
        assert (container(report).state, report.containers) == (S.DEGRADED, None)
        assert "Docker is not installed" in (container(report).error or "")
        assert [node.state for node in report.members] == [NodeState.DEGRADED]

        docker.start()
        docker.run(hypermesh_cluster=cluster.nodes["node1"].config.cluster_id)
        docker.run(hypermesh_cluster="hm-somebodyels")
        what = "Docker has come, with one container of ours"
        await until_local(cluster, lambda report: container(report).state is S.RUNNING and report.containers == 1, what)

        docker.hang()
        report = await until_local(cluster, lambda report: container(report).state is S.DEGRADED, "Docker hangs")
        assert "does not answer" in (container(report).error or "")
        assert container(report).fix is not None
        assert report.containers is None, "nobody knows"
        docker.go_on()
        await until_local(cluster, lambda report: container(report).state is S.RUNNING and report.containers == 1, "Docker goes on")

        docker.stop()
        report = await until_local(cluster, lambda report: container(report).state is S.DEGRADED, "Docker has gone")
        assert any("Docker" in reason for reason in report.reasons)
        docker.start()
        report = await until_local(
            cluster,
            lambda report: container(report).state is S.RUNNING and [node.state for node in report.members] == [NodeState.READY],
            "Docker is back, and the cluster knows",
        )
        assert report.reasons == []
        assert {name: component.restarts for name, component in report.components.items() if name != "container"} == dict.fromkeys(
            set(report.components) - {"container"}, 0
        )
        assert cluster.nodes["node1"].log.count("is up after") == 1, "the agent itself has never restarted"
    finally:
        docker.go_on()
        docker.stop()


@pytest.mark.parametrize("name", ["transport", "consensus", "apps", "registry", "orchestration"])
async def test_a_component_that_fails_is_brought_back_and_the_others_go_on(lone, name) -> None:
    node = lone.nodes["node1"]
    node.program = (BREAKABLE,)
    node.config = node.config.model_copy(update={"settings": with_checks_every(lone, 0.1)})
    broken = node.directory / "broken"
    before = await formed(lone)

    broken.write_text(name)
    await until_local(lone, lambda report: report.components[name].restarts >= 1, f"{name} is tried again")
    assert f"{name} is error: RuntimeError: broken by a test" in node.log
    loop = asyncio.get_running_loop()
    began = loop.time()
    report = await until_local(lone, lambda report: report.components[name].restarts >= 3, f"{name} is tried again and again")
    assert loop.time() - began >= 1.2, "the pauses do not grow"  # at least 0.5 and 1 s, less what polling misses
    broken.unlink()
    report = await until_local(lone, lambda report: report.components[name].state is S.RUNNING, f"{name} is back")
    assert report.components[name].error is None
    assert {other: component.restarts for other, component in report.components.items() if other != name} == dict.fromkeys(
        set(report.components) - {name}, 0
    )
    assert report.uptime_seconds > before.uptime_seconds, "the agent itself has never restarted"
    await lone.until(lambda reports: whole(reports, 1), what="it leads and answers again")
    assert "RuntimeError: broken by a test" in node.log


def with_checks_every(cluster: ClusterOfProcesses, seconds: float):  # type: ignore[no-untyped-def]
    settings = cluster.nodes["node1"].config.settings
    return settings.model_copy(update={"health": settings.health.model_copy(update={"interval": seconds, "timeout": seconds})})


async def test_a_stopped_node_says_good_bye_and_exits_with_0(cluster):
    follower = next(report.name for report in (await cluster.reports()).values() if report.raft.role == "follower")
    assert cluster.nodes[follower].terminate() == 0

    def stopped(reports):
        states = [{node.name: (node.state, node.state_reason) for node in report.members} for report in reports.values()]
        return len(reports) == len(cluster.nodes) - 1 and all(state[follower] == (NodeState.DOWN, "stopped") for state in states if state)

    await cluster.until(stopped, what="everybody knows that it was stopped")
    assert not cluster.nodes[follower].config.socket.exists()
    cluster.nodes[follower].start()
    await cluster.until_whole("it came back")


async def test_sigterm_takes_down_in_reverse_order(lone, docker):
    docker.start()
    await formed(lone)
    assert lone.nodes["node1"].terminate() == 0
    words = [line.split() for line in lone.nodes["node1"].log.splitlines()]
    ended = [word[2] for word in words if word[3:5] == ["is", "stopped"]]
    begun = [word[2] for word in words if word[3:5] == ["is", "initializing"]]
    assert sorted(ended) == sorted(begun) == sorted(set(NEEDS) - {"identity", "api"})
    for name, need in NEEDS.items():
        if name in ended and need in ended:
            assert ended.index(name) < ended.index(need), f"{need} ended before {name}, which needs it: {ended}"
    assert ended == begun[::-1]


async def test_sigterm_while_starting_ends_it(lone):
    lone.start()
    async with asyncio.timeout(20):
        while "transport is" not in lone.nodes["node1"].log:  # noqa: ASYNC110 -- another process writes it
            await asyncio.sleep(0.01)
    assert lone.nodes["node1"].terminate() == 0
