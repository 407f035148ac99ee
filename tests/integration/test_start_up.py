"""One agent as a process: it comes up and tells systemd, or it says why it cannot and exits with 1."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from cluster import CLUSTER, ROOT, ClusterOfProcesses

from hmcore.api import REPORT, Empty
from hmcore.pki import Identity, Kind, create_authority, create_request, sign_request
from hmcore.records import ComponentState as S
from hmcore.records import NodeReport
from hmcore.stoq.local import connect_unix
from hmcore.stoq.rpc import invoke
from node_agent.transport.identity import node_key


@pytest.fixture
def lone(tmp_path) -> Iterator[ClusterOfProcesses]:
    """A cluster of one, not started."""
    cluster = ClusterOfProcesses(tmp_path, controls=1)
    yield cluster
    cluster.stop()


async def local_report(cluster: ClusterOfProcesses) -> NodeReport:
    connection = await connect_unix(str(cluster.nodes["node1"].config.socket))
    try:
        return await invoke(connection, REPORT, Empty(), timeout=2)
    finally:
        await connection.close()


def fails_with(cluster: ClusterOfProcesses, reason: str) -> None:
    """The agent exits with 1, having said why in one line and without a traceback; its own traces are gone."""
    node = cluster.nodes["node1"]
    node.start()
    assert node.process is not None
    assert node.process.wait(30) == 1, node.log
    errors = [line for line in node.log.splitlines() if " error " in line]
    assert reason in errors[-1], node.log
    assert "Traceback" not in node.log
    assert not node.config.socket.exists()


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


async def test_sigterm_while_starting_ends_it(lone):
    lone.start()
    async with asyncio.timeout(20):
        while "transport is" not in lone.nodes["node1"].log:  # noqa: ASYNC110 -- another process writes it
            await asyncio.sleep(0.01)
    assert lone.nodes["node1"].terminate() == 0


def test_no_certificate(lone):
    (lone.nodes["node1"].config.pki_dir / "node.pem").unlink()
    fails_with(lone, "identity did not come up: ")


def test_an_expired_certificate(lone):
    lone.now -= timedelta(days=731)
    lone.authority = create_authority(CLUSTER, lone.now)
    lone.certify("node1")
    fails_with(lone, "the certificate expired on ")


def test_a_certificate_of_another_key(lone):
    pki = lone.nodes["node1"].config.pki_dir
    (pki / "node.key").unlink()
    node_key(pki)
    fails_with(lone, "the certificate belongs to another key; to mend it: hmctl deploy")


def test_a_certificate_of_another_node(lone):
    pki = lone.nodes["node1"].config.pki_dir
    identity = Identity(CLUSTER, Kind.NODE, "node2")
    (pki / "node.pem").write_bytes(sign_request(lone.authority, create_request(node_key(pki), identity), identity, lone.now))
    fails_with(lone, "the certificate was issued to node node2, this is node node1")


def test_a_port_that_is_taken(lone):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", lone.nodes["node1"].config.port))
        fails_with(lone, "transport did not come up: cannot listen on UDP")


async def test_a_damaged_journal_is_never_loaded(lone):
    node = lone.nodes["node1"]
    lone.start()
    await lone.until(lambda reports: "node1" in reports)
    await lone.form()
    await lone.until(lambda reports: len(reports["node1"].members) == 1)
    node.kill()
    journal = max((node.config.data_dir / "raft").iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(journal.read_bytes())
    content[len(content) // 3] ^= 0xFF
    journal.write_bytes(content)
    await asyncio.to_thread(fails_with, lone, "is damaged at byte")
    assert journal.read_bytes() == content


def test_docker_missing_where_that_is_refused(tmp_path):
    lone = ClusterOfProcesses(tmp_path, controls=1, optional_layers="refuse")
    fails_with(lone, "container did not come up: Docker is not installed")


def test_a_broken_configuration(lone):
    node = lone.nodes["node1"]
    object.__setattr__(node.config, "port", 0)
    fails_with(lone, "agent.yaml:")


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "node_agent", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_key_is_born_here_once_and_readable_by_nobody_else(tmp_path):
    pki = tmp_path / "pki"
    first = agent("key", "--cluster", CLUSTER, "--name", "node1", "--pki-dir", str(pki))
    key = (pki / "node.key").read_bytes()
    second = agent("key", "--cluster", CLUSTER, "--name", "node1", "--pki-dir", str(pki))
    assert (pki / "node.key").read_bytes() == key
    assert stat.S_IMODE((pki / "node.key").stat().st_mode) == 0o600
    for run in (first, second):
        assert run.returncode == 0
        assert run.stdout.startswith("-----BEGIN CERTIFICATE REQUEST-----")
        assert "PRIVATE" not in run.stdout + run.stderr
    bad = agent("key", "--cluster", CLUSTER, "--name", "No Name", "--pki-dir", str(pki))
    assert (bad.returncode, "is no name" in bad.stderr, "Traceback" in bad.stderr) == (1, True, False)


def test_the_release_can_be_checked_and_named():
    checked = agent("check-release")
    assert checked.returncode == 0, checked.stderr
    assert {"aioquic 1.7.2", "pysyncobj 0.3.17", "hypermesh-agent source"} <= set(checked.stdout.splitlines())
    assert agent("version").stdout == "source\n"


def test_without_an_agent_the_relay_says_so(tmp_path):
    run = agent("relay", "--socket", str(tmp_path / "agent.sock"))
    assert run.returncode == 1
    assert "the agent is not running" in run.stderr
    assert "systemctl start hypermesh-agent" in run.stderr
