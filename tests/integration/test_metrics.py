"""/metrics of real agents: what it says follows what happens; who may read it; and whatever becomes of it, the agent goes on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cluster import CLUSTER, AgentProcess, ClusterOfProcesses
from prometheus_client.parser import text_string_to_metric_families

from hmcore.pki import Identity, KeyPair, Kind, create_authority, issue
from hmcore.records import NodeReport

GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def fetch(node: AgentProcess, context: ssl.SSLContext | None = None) -> tuple[str, str]:
    """Status line and body; empty ones when the connection was closed. Raises OSError when it was refused."""
    port = node.config.settings.metrics.port
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="node1" if context else None)
        try:
            writer.write(GET)
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            writer.close()
    return head.partition("\r\n")[0], body


async def scrape(node: AgentProcess) -> Series:
    status, body = await fetch(node)
    assert status == "HTTP/1.1 200 OK", (status, body, node.log)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series.get((f"hypermesh_{name}", tuple(sorted(labels.items()))), 0.0)


async def until(node: AgentProcess, condition: Callable[[Series], bool], what: str) -> Series:
    """The first scrape that is as wanted."""
    series: Series = {}
    try:
        async with asyncio.timeout(15):
            while not condition(series := await scrape(node)):  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"never: {what}\n{series}\n{node.log[-2000:]}") from None
    return series


def check(reports: dict[str, NodeReport] | None, name: str) -> float:
    assert reports is not None
    return next(check.worth for check in reports["node1"].checks if check.name == name)


async def test_the_cluster_is_seen_alike_by_all_and_calls_are_counted(cluster: ClusterOfProcesses):
    await asyncio.gather(*(until(node, lambda s: value(s, "cluster_nodes", state="down") == 0, "whole") for node in cluster.nodes.values()))
    seen = {name: await scrape(node) for name, node in cluster.nodes.items()}
    assert sum(value(series, "raft_is_leader") for series in seen.values()) == 1
    assert all(value(series, "raft_has_leader") == 1 for series in seen.values())
    assert len({value(series, "raft_term") for series in seen.values()}) == 1
    assert {sum(value(series, "cluster_nodes", state=state) for state in ("ready", "degraded")) for series in seen.values()} == {4}
    assert sum(value(series, "raft_elections_total") for name, series in seen.items() if name != "node4") >= 1
    assert value(seen["node1"], "raft_fsync_duration_seconds_count") > 0
    assert value(seen["node4"], "rpc_made_duration_seconds_count", method="cluster.watch") > 0
    assert not [name for name, _ in seen["node4"] if name.startswith("hypermesh_raft_fsync")]  # a worker keeps no journal

    before = value(await scrape(cluster.nodes["node1"]), "rpc_served_duration_seconds_count", method="node.report")
    await cluster.report("node1")
    series = await until(
        cluster.nodes["node1"], lambda s: value(s, "rpc_served_duration_seconds_count", method="node.report") > before, "counted"
    )
    assert value(series, "component_state", component="consensus", state="running") == 1
    assert value(series, "peers", state="connected") == 3


async def test_a_port_that_is_taken_costs_health_and_nothing_else_until_it_is_free(lone: ClusterOfProcesses):
    node = lone.nodes["node1"]
    port = node.config.settings.metrics.port
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        lone.start()
        reports = await lone.until(lambda reports: "node1" in reports and check(dict(reports), "metrics") < 1, what="it says so")
        assert f"127.0.0.1:{port}" in " ".join(reports["node1"].reasons)
        assert node.alive
    series = await until_served(node)
    assert value(series, "node_check_worth", check="metrics") == 1
    assert "Traceback" not in node.log


async def until_served(node: AgentProcess) -> Series:
    async with asyncio.timeout(15):
        while True:
            try:
                return await scrape(node)
            except OSError:
                await asyncio.sleep(0.05)


async def test_a_scrape_while_it_stops_is_answered_or_closed_never_hangs(lone: ClusterOfProcesses):
    node = lone.nodes["node1"]
    lone.start()
    await until_served(node)
    answers: list[str] = []

    async def keep_asking() -> None:
        while node.alive:
            try:
                answers.append((await fetch(node))[0])
            except OSError:
                answers.append("closed")
                await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as tasks:
        askers = [tasks.create_task(keep_asking()) for _ in range(4)]
        while len(answers) < 20:  # noqa: ASYNC110 -- another process answers
            await asyncio.sleep(0.01)
        idle = await asyncio.open_connection("127.0.0.1", node.config.settings.metrics.port)
        assert await asyncio.to_thread(node.terminate) == 0
        await asyncio.wait(askers, timeout=10)
    idle[1].close()
    assert set(answers) <= {"HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable", "", "closed"}
    assert "Traceback" not in node.log
    assert " error " not in node.log


async def test_idle_clients_neither_keep_scrapes_away_nor_stay(lone: ClusterOfProcesses):
    node = lone.nodes["node1"]
    lone.start()
    await until_served(node)
    port = node.config.settings.metrics.port
    before = value(await scrape(node), "process_open_fds")
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]  # more than there are places
    async with asyncio.timeout(15):
        while True:  # their time is over at some point
            try:
                await scrape(node)
                break
            except TimeoutError:
                continue
    for reader, writer in idle:
        writer.close()
        await reader.read()
    await until(node, lambda s: value(s, "process_open_fds") <= before, "their descriptors are given back")


def context(authority: KeyPair, proof: KeyPair | None, directory: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=authority.certificate.decode())
    made.check_hostname = False  # whose name it is, is for the cluster's own check
    if proof is not None:
        (directory / "proof.pem").write_bytes(proof.certificate + proof.key)
        made.load_cert_chain(directory / "proof.pem")
    return made


async def test_mutual_tls_lets_in_who_belongs_to_the_cluster(alone: Callable[..., ClusterOfProcesses], tmp_path: Path):
    lone = alone(metrics={"tls": "mutual"})
    node, now = lone.nodes["node1"], datetime.now(UTC)
    lone.start()
    await until_logged(node, "metrics is running")
    viewer = issue(lone.authority, Identity(CLUSTER, Kind.VIEWER, "prometheus"), now)
    status, body = await fetch(node, context(lone.authority, viewer, tmp_path))
    assert status == "HTTP/1.1 200 OK"
    assert "hypermesh_node_info" in body

    stranger = issue(create_authority(CLUSTER, now), Identity(CLUSTER, Kind.VIEWER, "prometheus"), now)
    for proof in (None, stranger):
        try:
            answer = await fetch(node, context(lone.authority, proof, tmp_path))
        except OSError:
            continue
        assert answer == ("", "")
    status, body = await fetch_plainly(node)
    assert (status, body) == ("", "")
    assert "Traceback" not in node.log


async def until_logged(node: AgentProcess, words: str) -> None:
    async with asyncio.timeout(15):
        while words not in node.log:  # noqa: ASYNC110 -- another process writes it
            await asyncio.sleep(0.02)


async def fetch_plainly(node: AgentProcess) -> tuple[str, str]:
    try:
        return await fetch(node)
    except OSError:
        return "", ""
