"""What a scrape says, judged by prometheus_client's own parser; and that no figure can grow without bound."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hmcore.records import (
    CheckReport,
    ComponentReport,
    ComponentState,
    Instance,
    InstanceHealth,
    Node,
    NodeReport,
    NodeState,
    PeerReport,
    PhaseReport,
    RaftReport,
    Role,
    SecurityReport,
)
from node_agent.consensus.outlook import Figures
from node_agent.platform.metrics import PEERS, expose
from node_agent.platform.snapshot import Snapshot
from node_agent.platform.tally import METHODS, OTHER, Calls, Histogram, Tally
from node_agent.platform.usage import Room, Usage
from node_agent.security.maps import Totals

COMPONENTS = ("transport", "consensus", "container", "network", "security", "apps", "registry", "orchestration")


def member(name: str, role: Role = Role.CONTROL, state: NodeState = NodeState.READY) -> Node:
    return Node(name=name, address="10.0.0.1", port=7443, role=role, release="r1", state=state)


def report(**changes: Any) -> NodeReport:
    given: dict[str, Any] = {
        "cluster": "hm-abc123defg",
        "name": "node1",
        "address": "10.0.0.1",
        "role": Role.CONTROL,
        "release": "r1",
        "uptime_seconds": 12.5,
        "health_score": 0.9,
        "reasons": [],
        "containers": 2,
        "components": {name: ComponentReport(state=ComponentState.RUNNING, init_seconds=0.25, restarts=1) for name in COMPONENTS},
        "raft": RaftReport(role="leader", leader="node1", term=3, commit_index=9, applied_index=8, voters=["node1", "node2"]),
        "formed": True,
        "members": [member("node1"), member("node2"), member("node3", Role.WORKER, NodeState.DOWN)],
        "peers": [PeerReport(name="node2", address="10.0.0.2", state="connected", rtt_ms=1.5)],
        "phases": [PhaseReport(name="identity", began_seconds=0.0, seconds=0.01, outcome="ok")],
        "checks": [CheckReport(name="disk", weight=2.0, worth=0.5, muted=True)],
        "security": SecurityReport(mode="audit", programs=4),
    }
    return NodeReport(**(given | changes))


def snapshot(**changes: Any) -> Snapshot:
    tally = Tally()
    tally.served.add("node.report", "", 0.002)
    tally.served.add("node.report", "permission-denied", 0.0)
    tally.made.add("cluster.state", "timeout", 3.0)
    tally.syncs.add(0.001)
    given: dict[str, Any] = {
        "report": report(),
        "version": "0.1.0",
        "started": 1.7e9,
        "usage": Usage(1.5, 1 << 20, 20, 1024),
        "tally": tally,
        "cluster_score": 0.8,
        "instances": (Instance(id="node1/web", service="web", node="node1", address="10.0.0.1", health=InstanceHealth.HEALTHY),),
        "containers": {"running": 2, "exited": 1},
        "log": Figures(entries=9, size=900, elections=2),
        "totals": Totals(bytes_in=10, bytes_out=20, execs=3, events=5, events_limited=7, events_overrun=1),
        "certificate_expires": 1.8e9,
        "loop_lag": 0.001,
        "room": Room(100, 40),
    }
    return Snapshot(**(given | changes))


def scrape(**changes: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every series by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(expose(snapshot(**changes)).decode())
        for sample in family.samples
    }


def value(series: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str) -> float:
    return series[f"hypermesh_{name}", tuple(sorted(labels.items()))]


def test_what_a_report_says_is_what_is_shown():
    series = scrape()
    assert value(series, "uptime_seconds") == 12.5
    assert value(series, "node_info", cluster="hm-abc123defg", node="node1", role="control") == 1
    assert value(series, "component_init_duration_seconds", component="registry") == 0.25
    assert value(series, "component_restarts_total", component="registry") == 1
    assert value(series, "node_health_score") == 0.9
    assert value(series, "node_check_worth", check="disk") == 0.5
    assert value(series, "node_check_muted", check="disk") == 1
    assert value(series, "cluster_health_score") == 0.8
    assert [value(series, "cluster_nodes", state=state) for state in ("ready", "down", "suspect")] == [2, 1, 0]
    assert [value(series, f"raft_{what}") for what in ("term", "is_leader", "has_leader", "commit_index", "applied_index")] == [
        3,
        1,
        1,
        9,
        8,
    ]
    assert [value(series, f"raft_{what}") for what in ("log_entries", "log_bytes", "elections_total")] == [9, 900, 2]
    assert value(series, "raft_fsync_duration_seconds_bucket", le="0.001") == 1
    assert value(series, "peer_round_trip_seconds", peer="node2") == 0.0015
    assert value(series, "flow_bytes_total", direction="out") == 20
    assert value(series, "execs_total") == 3
    assert value(series, "security_events_lost_total", reason="ring_full") == 1
    assert value(series, "security_events_lost_total", reason="rate_limit") == 7
    assert value(series, "security_mode", mode="audit") == 1
    assert value(series, "containers", state="exited") == 1
    assert value(series, "service_instances", health="healthy") == 1
    assert value(series, "services_active") == 1
    assert value(series, "certificate_expiry_timestamp_seconds") == 1.8e9
    assert value(series, "process_cpu_seconds_total") == 1.5
    assert value(series, "process_resident_memory_bytes") == 1 << 20
    assert value(series, "disk_free_bytes") == 40


@pytest.mark.parametrize("state", list(ComponentState))
def test_a_component_is_in_one_state_and_healthy_in_two(state):
    series = scrape(report=report(components={"container": ComponentReport(state=state)}))
    shown = {each: value(series, "component_state", component="container", state=each.value) for each in ComponentState}
    assert shown == {each: float(each is state) for each in ComponentState}
    assert value(series, "component_healthy", component="container") == (state in ("ready", "running"))


def test_calls_are_told_by_method_and_failures_by_kind():
    series = scrape()
    assert value(series, "rpc_served_duration_seconds_count", method="node.report") == 2
    assert value(series, "rpc_served_duration_seconds_bucket", method="node.report", le="0.001") == 1
    assert value(series, "rpc_served_duration_seconds_bucket", method="node.report", le="+Inf") == 2
    assert value(series, "rpc_served_errors_total", method="node.report", kind="permission-denied") == 1
    assert value(series, "rpc_made_errors_total", method="cluster.state", kind="timeout") == 1
    assert value(series, "rpc_made_duration_seconds_sum", method="cluster.state") == 3.0


def test_a_worker_without_docker_and_ebpf_shows_nothing_that_it_does_not_have():
    worker = report(role=Role.WORKER, security=None, raft=RaftReport(role="observer", leader="node2"))
    series = scrape(report=worker, log=None, totals=None, containers=None, room=None, loop_lag=None, cluster_score=None)
    names = {name for name, _ in series}
    assert not [name for name in names if "log_" in name or "fsync" in name or "flow" in name or "disk" in name or "containers" in name]
    assert value(series, "raft_has_leader") == 1
    assert value(series, "raft_is_leader") == 0


def test_names_units_and_types_keep_the_conventions():
    for family in text_string_to_metric_families(expose(snapshot()).decode()):
        assert re.fullmatch(r"hypermesh_[a-z][a-z0-9_]*[a-z0-9]", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"(milli|micro|kilo|_ms$|_kb$|percent)", family.name), family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_the_number_of_series_does_not_grow_with_the_cluster_or_with_what_strangers_say():
    small = len(scrape())
    peers = [PeerReport(name=f"node{number}", address="10.0.0.1", state="connected", rtt_ms=1.0) for number in range(500)]
    members = [member(f"node{number}", Role.CONTROL if number >= 497 else Role.WORKER) for number in range(500)]
    instances = tuple(Instance(id=f"n/{number}", service=f"s{number}", node="n", address="10.0.0.1") for number in range(10_000))
    series = scrape(report=report(peers=peers, members=members), instances=instances)
    assert len(series) <= small + 2 * PEERS
    assert value(series, "peers", state="connected") == 500
    assert value(series, "peer_connected", peer="node499") == 1  # control nodes come first
    assert value(series, "service_instances", health="unknown") == 10_000


def test_methods_beyond_a_number_are_counted_together():
    calls = Calls()
    for number in range(3 * METHODS):
        calls.add(f"m{number}", "internal", 0.1)
    assert len(calls.durations) == METHODS + 1
    assert sum(calls.durations[OTHER].counts) == 2 * METHODS
    assert len(calls.failures) == METHODS + 1


def test_a_histogram_counts_what_is_at_most_its_bound():
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.add(seconds)
    assert histogram.cumulative() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert histogram.sum == pytest.approx(7.65)


def test_words_that_others_choose_make_no_labels_or_are_escaped():
    nasty = 'a"b\\c\nd'
    series = scrape(containers={"running": 2, nasty: 1, "new": 1}, report=report(release=nasty))
    assert [value(series, "containers", state=state) for state in ("running", "exited", "other")] == [2, 0, 2]
    assert [labels for name, labels in series if name == "hypermesh_build_info" and ("release", nasty) in labels]


# --- docs/observability says nothing that is not so

OBSERVABILITY = Path(__file__).parents[4] / "docs" / "observability"
NAME = re.compile(r"\bhypermesh_[a-z0-9_]+")


def families() -> set[str]:
    """As PromQL writes them, without the suffixes of histograms."""
    return {line.split()[2] for line in expose(snapshot()).decode().splitlines() if line.startswith("# TYPE ")}


def named(text: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(text)}


@pytest.mark.parametrize("file", ["alerts.yml", "alerts_test.yml", "dashboard.json"])
def test_rules_and_dashboard_ask_only_for_what_is_there(file):
    asked = named((OBSERVABILITY / file).read_text())
    assert asked
    assert asked <= families()


def test_every_metric_is_explained():
    explained = set(re.findall(r"^\| `(hypermesh_[a-z0-9_]+)", (OBSERVABILITY / "README.md").read_text(), re.MULTILINE))
    assert explained == families()


def test_the_dashboard_can_be_imported():
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert all(variable in variables for target in panel["targets"] for variable in re.findall(r"\$([a-z]+)\b", target["expr"]))
