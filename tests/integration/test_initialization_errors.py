"""An agent that cannot come up says why in one line, names what mends it, exits with 1 and leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from datetime import timedelta

import pytest
from cluster import CLUSTER, WAIT, AgentProcess, ClusterOfProcesses

from hmcore.pki import Identity, Kind, create_authority, create_request, sign_request
from hmcore.records import ComponentState
from node_agent.transport.identity import node_key


def fails_with(cluster: ClusterOfProcesses, reason: str) -> None:
    """The agent exits with 1, having said why once, in its last line, and without a traceback; its own traces are gone."""
    node = cluster.nodes["node1"]
    node.start()
    assert node.process is not None
    assert node.process.wait(WAIT) == 1, node.log
    said = node.log.splitlines()
    assert [line for line in said if " error " in line][-1] == said[-1], node.log
    assert reason in said[-1], node.log
    assert "; to mend it: " in said[-1]
    assert "Traceback" not in node.log
    assert not node.config.socket.is_socket()
    assert not list(node.directory.rglob("*.new"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", node.config.port))  # OSError: a process that it started holds it still


# --- who it is


def without_certificate(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    (node.config.pki_dir / "node.pem").unlink()


def without_key(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    (node.config.pki_dir / "node.key").unlink()


def without_authority(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    (node.config.pki_dir / "ca.pem").unlink()


def garbage(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    (node.config.pki_dir / "node.pem").write_text("no certificate at all")


def expired(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    born(cluster, -timedelta(days=731))


def of_the_future(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    born(cluster, timedelta(days=3))


def born(cluster: ClusterOfProcesses, ago: timedelta) -> None:
    cluster.now += ago
    cluster.authority = create_authority(CLUSTER, cluster.now)
    cluster.certify("node1")


def of_another_authority(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    (node.config.pki_dir / "ca.pem").write_bytes(create_authority(CLUSTER, cluster.now).certificate)


def of_another_key(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    without_key(cluster, node)
    node_key(node.config.pki_dir)


def of_another_node(cluster: ClusterOfProcesses, node: AgentProcess) -> None:
    identity = Identity(CLUSTER, Kind.NODE, "node2")
    request = create_request(node_key(node.config.pki_dir), identity)
    (node.config.pki_dir / "node.pem").write_bytes(sign_request(cluster.authority, request, identity, cluster.now))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_certificate, "node.pem cannot be read: No such file or directory; to mend it: hmctl deploy"),
        (without_key, "node.key cannot be read: No such file or directory; to mend it: hmctl deploy"),
        (without_authority, "ca.pem cannot be read: No such file or directory; to mend it: hmctl deploy"),
        (garbage, "node.pem: not a certificate"),
        (expired, "the certificate expired on "),
        (of_the_future, "are the clocks right?; to mend it: hmctl deploy"),
        (of_another_authority, "the certificate was signed by another CA; to mend it: hmctl deploy"),
        (of_another_key, "the certificate belongs to another key; to mend it: hmctl deploy"),
        (of_another_node, "the certificate was issued to node node2, this is node node1; to mend it: hmctl deploy"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_an_identity_that_does_not_hold(
    lone: ClusterOfProcesses, spoil: Callable[[ClusterOfProcesses, AgentProcess], None], reason: str
) -> None:
    spoil(lone, lone.nodes["node1"])
    fails_with(lone, reason)
    assert "identity did not come up: " in lone.nodes["node1"].log
    assert "is initializing" not in lone.nodes["node1"].log, "nothing may begin before the node has proved who it is"


# --- what it needs of its machine


def test_a_port_that_is_taken(lone: ClusterOfProcesses) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", lone.nodes["node1"].config.port))
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that fails_with may look, which asks for the same
        fails_with(lone, "transport did not come up: cannot listen on UDP")


def data_folder(node: AgentProcess) -> None:
    node.config.data_dir.write_text("in the way")


def log_folder(node: AgentProcess) -> None:
    node.config.data_dir.mkdir()
    (node.config.data_dir / "raft").write_text("in the way")


def socket_folder(node: AgentProcess) -> None:
    node.config.socket.parent.write_text("in the way")


def its_socket(node: AgentProcess) -> None:
    node.config.socket.mkdir(parents=True)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (data_folder, "identity did not come up: {data} cannot be made: File exists; to mend it: ls -ld {data}"),
        (log_folder, "consensus did not come up: {data}/raft cannot be used: File exists; to mend it: ls -ld {data}/raft"),
        (socket_folder, "identity did not come up: {run} cannot be made: File exists; to mend it: ls -ld {run}"),
        (its_socket, "api did not come up: cannot listen on {run}/agent.sock: Is a directory; to mend it: ls -ld {run}/agent.sock"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_something_else_where_its_files_belong(lone: ClusterOfProcesses, block: Callable[[AgentProcess], None], reason: str) -> None:
    node = lone.nodes["node1"]
    block(node)
    fails_with(lone, reason.format(data=node.config.data_dir, run=node.config.socket.parent))


@pytest.fixture
def other_agent(alone: Callable[..., ClusterOfProcesses]) -> ClusterOfProcesses:
    return alone()


async def test_a_log_that_another_agent_uses(lone: ClusterOfProcesses, other_agent: ClusterOfProcesses) -> None:
    """Two agents that write one journal would ruin it."""
    lone.start()
    await lone.until(lambda reports: "node1" in reports, what="the first is up")
    other = other_agent.nodes["node1"]
    other.config = other.config.model_copy(update={"data_dir": lone.nodes["node1"].config.data_dir})
    await asyncio.to_thread(fails_with, other_agent, "raft is in use by another agent; to mend it: systemctl status hypermesh-agent")
    assert await lone.report("node1"), "the first goes on"


async def test_a_damaged_journal_is_never_loaded(lone: ClusterOfProcesses) -> None:
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
    node.start()  # the rest of the agent comes up, and says what is the matter
    reports = await lone.until(lambda reports: "node1" in reports and reports["node1"].components["consensus"].error)
    consensus = reports["node1"].components["consensus"]
    assert consensus.state is ComponentState.DEGRADED
    assert f"{journal} is damaged at byte" in str(consensus.error)
    assert consensus.fix == "hmctl raft reseed node1"
    assert (reports["node1"].raft.role, reports["node1"].raft.leader, reports["node1"].members) == ("damaged", None, [])
    assert journal.read_bytes() == content


def test_required_layers_that_take_too_long(alone: Callable[..., ClusterOfProcesses]) -> None:
    hurried = alone(initialization_timeout=0.001)
    node = hurried.nodes["node1"]
    node.start()
    assert node.process is not None
    assert node.process.wait(WAIT) == 1, node.log
    assert "did not come up: it was not done within 0.001 s" in node.log.splitlines()[-1]
    assert node.log.count("is initializing") == node.log.count("is stopped"), "what has begun is undone"


# --- what is optional elsewhere


def test_docker_missing_where_that_is_refused(alone: Callable[..., ClusterOfProcesses]) -> None:
    refusing = alone(optional_layers="refuse")
    fails_with(refusing, "container did not come up: Docker is not installed")
    assert "to mend it: apt-get install docker.io" in refusing.nodes["node1"].log
    states = [line.split(" is ")[0].split()[-1] for line in refusing.nodes["node1"].log.splitlines() if " is stopped" in line]
    assert states[-1] == "transport", f"what came up last goes first: {states}"


def test_a_broken_configuration(lone: ClusterOfProcesses) -> None:
    node = lone.nodes["node1"]
    object.__setattr__(node.config, "port", 0)
    node.start()
    assert node.process is not None
    assert node.process.wait(WAIT) == 1
    assert "agent.yaml:" in node.log.splitlines()[-1]
    assert not node.config.data_dir.exists(), "nothing is begun with a file that is wrong"
