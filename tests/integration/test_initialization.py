"""How agents come up: in which order, side by side where they may, and when they say that they are ready."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import time

from cluster import NEEDS, ROOT, whole
from docker_socket import DockerSocket

from hmcore.records import ComponentState as S
from hmcore.records import NodeReport


async def test_a_cluster_of_one_forms_leads_and_tells_systemd(lone, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "10000000")  # more often would fill the queue of a socket that nobody reads meanwhile
        lone.start()
        said = [await asyncio.to_thread(manager.recv, 100) for _ in range(2)]
        assert set(said) == {b"READY=1", b"WATCHDOG=1"}

        report = await lone.report("node1")  # ready means that it answers
        assert report is not None
        assert report.components["consensus"].state is S.READY
        assert (report.raft.role, report.formed) == ("unformed", False)
        assert "no leader" not in " ".join(report.reasons)

        await lone.form()
        await lone.until(lambda reports: reports["node1"].raft.role == "leader" and len(reports["node1"].members) == 1)
        assert {event.kind for event in (await lone.states())["node1"].events} >= {"cluster.formed", "node.joined"}
        assert lone.nodes["node1"].terminate() == 0
        while (message := manager.recv(100)) == b"WATCHDOG=1":
            pass
        assert message == b"STOPPING=1"


async def test_the_socket_is_for_root_alone(lone):
    lone.start()
    await lone.until(lambda reports: "node1" in reports)
    assert stat.S_IMODE(os.stat(lone.nodes["node1"].config.socket).st_mode) == 0o600


async def test_phases_begin_after_what_they_need_and_components_run(cluster):
    for report in (await cluster.reports()).values():
        phases = {phase.name: phase for phase in report.phases}
        assert set(phases) == set(NEEDS)
        for name, need in NEEDS.items():
            if need is not None:
                assert phases[name].began_seconds >= phases[need].began_seconds + phases[need].seconds - 0.001
        assert {name: phase.outcome for name, phase in phases.items() if phase.outcome != "ok"} == {"container": "degraded"}
        states = {name: component.state for name, component in report.components.items()}
        running = dict.fromkeys(("transport", "consensus", "images", "apps", "registry", "orchestration"), S.RUNNING)
        assert states == {**running, "container": S.DEGRADED, "security": S.READY, "network": S.READY}  # whose modes are off here
        assert report.reasons == [f"Docker is not installed: there is no {cluster.nodes[report.name].config.docker_socket} and no dockerd"]
        assert 0.8 <= report.health_score < 1


async def test_a_layer_that_hangs_keeps_nobody_waiting(alone):
    """Docker's socket is there and nobody answers on it: the node is in the cluster long before that is known."""
    slow = alone(health={"interval": 5.0, "timeout": 5.0})
    docker = DockerSocket(slow.nodes["node1"].config.docker_socket)
    docker.start()
    docker.hang()
    try:
        slow.start()
        reports = await slow.until(lambda reports: "node1" in reports, what="it answers")
        await slow.form()
        reports = await slow.until(lambda reports: whole(reports, 1) and not starting(reports["node1"]) - {"container"}, what="others run")
        report = reports["node1"]
        assert report.components["container"].state is S.INITIALIZING
        assert {phase.name for phase in report.phases} == set(NEEDS) - {"container"}, (
            "a phase that is not over has no place in the timeline"
        )
        assert "node node1 is up after" in slow.nodes["node1"].log
        docker.go_on()
        await slow.until(lambda reports: reports["node1"].components["container"].state is S.RUNNING, what="Docker has answered")
    finally:
        docker.go_on()
        docker.stop()


async def test_ready_waits_for_the_layers_that_may_refuse(alone):
    """Where a missing layer keeps the agent from starting, nobody is told that it has started before that is known."""
    strict = alone(optional_layers="refuse", health={"interval": 5.0, "timeout": 5.0})
    docker = DockerSocket(strict.nodes["node1"].config.docker_socket)
    docker.start()
    docker.hang()
    try:
        strict.start()
        await strict.until(
            lambda reports: "node1" in reports and len(reports["node1"].phases) >= len(NEEDS) - 1, what="the others are done"
        )
        assert "node node1 is up after" not in strict.nodes["node1"].log
        docker.go_on()
        await strict.until(lambda reports: "node node1 is up after" in strict.nodes["node1"].log, what="it is ready")
    finally:
        docker.go_on()
        docker.stop()


async def test_all_components_run_within_a_few_times_what_their_imports_take(lone, docker):
    """Without programs in the kernel, whose mode is off here. With them, and in seconds: tests/e2e/test_security.py."""
    docker.start()
    lone.start()
    await lone.until(lambda reports: "node1" in reports, what="it answers")
    await lone.form()
    await lone.until(lambda reports: whole(reports, 1), what="it leads")
    assert lone.nodes["node1"].terminate() == 0
    lone.start()
    reports = await lone.until(lambda reports: whole(reports, 1) and not starting(reports["node1"]), what="all components run")
    report = reports["node1"]
    assert set(report.components) == set(NEEDS) - {"identity", "api", "metrics"}
    imports = await asyncio.to_thread(seconds_to_import)
    assert report.uptime_seconds < max(3.0, 5 * imports)
    assert all(component.init_seconds < 3 * max(1.0, imports) for component in report.components.values()), report.components
    assert report.phases == sorted(report.phases, key=lambda phase: phase.began_seconds + phase.seconds), "in the order of their ends"
    assert all(phase.began_seconds + phase.seconds <= report.uptime_seconds for phase in report.phases)


def starting(report: NodeReport) -> set[str]:
    """Components that do not run. Security and network are off here, and then have nothing to do."""
    return {name for name, component in report.components.items() if component.state is not S.RUNNING} - {"security", "network"}


def seconds_to_import() -> float:
    """About 0.7 on a quiet machine. What else keeps this one busy delays an agent's start alike."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "node_agent", "check-release"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)
    return time.monotonic() - began
