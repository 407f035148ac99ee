"""How agents come up: in which order, side by side where they may, and when they say that they are ready."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

from cluster import ClusterOfProcesses

from hmcore.api import REPORT, Empty
from hmcore.records import ComponentState as S
from hmcore.records import NodeReport
from hmcore.stoq.local import connect_unix
from hmcore.stoq.rpc import invoke


async def local_report(cluster: ClusterOfProcesses) -> NodeReport:
    connection = await connect_unix(str(cluster.nodes["node1"].config.socket))
    try:
        return await invoke(connection, REPORT, Empty(), timeout=2)
    finally:
        await connection.close()


async def test_a_cluster_of_one_forms_leads_and_tells_systemd(lone, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "10000000")  # more often would fill the queue of a socket that nobody reads meanwhile
        lone.start()
        said = [await asyncio.to_thread(manager.recv, 100) for _ in range(2)]
        assert set(said) == {b"READY=1", b"WATCHDOG=1"}

        report = await local_report(lone)  # ready means that it answers
        assert report.components["consensus"].state is S.READY
        assert (report.raft.role, report.formed) == ("unformed", False)
        assert "no leader" not in " ".join(report.reasons)

        await lone.form()
        await lone.until(lambda reports: reports["node1"].raft.role == "leader" and len(reports["node1"].members) == 1)
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
        assert set(phases) == {"identity", "transport", "consensus", "container", "security", "orchestration", "api"}
        for name, need in [("transport", "identity"), ("consensus", "transport"), ("orchestration", "consensus"), ("api", "transport")]:
            assert phases[name].began_seconds >= phases[need].began_seconds + phases[need].seconds - 0.001
        assert {name: phase.outcome for name, phase in phases.items() if phase.outcome != "ok"} == {"container": "degraded"}
        states = {name: component.state for name, component in report.components.items()}
        running = dict.fromkeys(("transport", "consensus", "orchestration"), S.RUNNING)
        assert states == {**running, "container": S.DEGRADED, "security": S.READY}  # its mode is off here
        assert report.reasons == [f"Docker is not installed: there is no {cluster.nodes[report.name].config.docker_socket} and no dockerd"]
        assert 0.8 <= report.health_score < 1
