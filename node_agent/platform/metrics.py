"""A snapshot as Prometheus reads it (text format 0.0.4). Pure, and the only home of prometheus_client.

Conventions: one prefix, base units (seconds, bytes), counters end in `_total`, and every label has a bounded set of values: names that
are in the code, or peers, of which there are at most `PEERS`. docs/observability/README.md says what each metric means.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hmcore.records import ComponentState, InstanceHealth, NodeReport, NodeState, PeerReport, Role
from node_agent.consensus.outlook import Figures
from node_agent.platform.snapshot import Snapshot
from node_agent.platform.tally import OTHER, Calls, Histogram
from node_agent.platform.usage import Room, Usage
from node_agent.security.maps import Totals

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PREFIX = "hypermesh_"
PEERS = 32  # shown one by one, control nodes first: n nodes that each show all others would be n² series
CHECKS = 64
CONTAINER_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")  # Docker's words

_WELL = (ComponentState.READY, ComponentState.RUNNING)


def expose(snapshot: Snapshot) -> bytes:
    """All that `snapshot` holds, in the text format."""
    return generate_latest(_Families(snapshot))


@dataclass(frozen=True, slots=True)
class _Families(Collector):
    snapshot: Snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self.snapshot
        yield from _node(snapshot)
        yield from _components(snapshot.report)
        yield from _health(snapshot)
        yield from _raft(snapshot)
        yield from _calls("rpc_served", "served to others", snapshot.tally.served)
        yield from _calls("rpc_made", "made to other nodes", snapshot.tally.made)
        yield from _peers(snapshot.report)
        yield from _services(snapshot)
        if snapshot.containers is not None:
            yield _containers(snapshot.containers)
        yield from _security(snapshot)
        yield from _process(snapshot.usage, snapshot.loop_lag)
        if snapshot.room is not None:
            yield from _disk(snapshot.room)


# --- the node


def _node(snapshot: Snapshot) -> Iterator[Metric]:
    report = snapshot.report
    yield _info(
        "build_info",
        "The release that runs. The value is 1.",
        {"version": snapshot.version, "release": report.release, "python": platform.python_version()},
    )
    yield _info("node_info", "Who this is. The value is 1.", {"cluster": report.cluster, "node": report.name, "role": report.role.value})
    yield _gauge("start_time_seconds", "When the agent started, in Unix time.", round(snapshot.started, 3))
    yield _gauge("uptime_seconds", "How long the agent has been running.", report.uptime_seconds)
    yield _gauge("formed", "1 if this node belongs to a cluster.", report.formed)
    if snapshot.certificate_expires is not None:
        about = "When the node's certificate expires, in Unix time."
        yield _gauge("certificate_expiry_timestamp_seconds", about, snapshot.certificate_expires)


def _components(report: NodeReport) -> Iterator[Metric]:
    components = report.components
    about = "How long each phase of the agent's start took."
    yield _by("init_phase_duration_seconds", about, "phase", {phase.name: phase.seconds for phase in report.phases})
    about = "How long the component took to come up, the last time."
    yield _by("component_init_duration_seconds", about, "component", {name: each.init_seconds for name, each in components.items()})
    states = GaugeMetricFamily(PREFIX + "component_state", "1 for the state that the component is in.", labels=["component", "state"])
    for name, each in components.items():
        for state in ComponentState:
            states.add_metric([name, state.value], float(each.state is state))
    yield states
    about = "1 if the component is ready or running."
    yield _by("component_healthy", about, "component", {name: each.state in _WELL for name, each in components.items()})
    about = "Restarts of the component by its supervisor."
    restarts = CounterMetricFamily(PREFIX + "component_restarts_total", about, labels=["component"])
    for name, each in components.items():
        restarts.add_metric([name], each.restarts)
    yield restarts


def _health(snapshot: Snapshot) -> Iterator[Metric]:
    report = snapshot.report
    yield _gauge("node_health_score", "From 0 to 1: the weighted share of this node's checks that are well.", report.health_score)
    checks = report.checks[:CHECKS]
    yield _by("node_check_worth", "Per check: 1 when all is well, 0 when it is gone.", "check", {each.name: each.worth for each in checks})
    about = "Per check: its weight in the node's health score."
    yield _by("node_check_weight", about, "check", {each.name: each.weight for each in checks})
    yield _by("node_check_muted", "1 if the check is muted and does not count.", "check", {each.name: each.muted for each in checks})
    if snapshot.cluster_score is not None:
        yield _gauge("cluster_health_score", "From 0 to 1, as this node sees the cluster.", snapshot.cluster_score)
    states = Counter(member.state for member in report.members)
    about = "Members of the cluster by state, as this node knows the replicated state."
    yield _by("cluster_nodes", about, "state", {state.value: states[state] for state in NodeState if state is not NodeState.UNREACHABLE})


def _raft(snapshot: Snapshot) -> Iterator[Metric]:
    report, raft = snapshot.report, snapshot.report.raft
    yield _gauge("raft_term", "The newest term that this node knows.", raft.term)
    yield _gauge("raft_is_leader", "1 if this node leads.", raft.role == "leader")
    yield _gauge("raft_has_leader", "1 if this node knows a living leader.", raft.leader is not None)
    yield _gauge("raft_commit_index", "The last log index known to be committed.", raft.commit_index)
    yield _gauge("raft_applied_index", "The last log index that was applied here.", raft.applied_index)
    if report.role is not Role.CONTROL:
        return
    yield _gauge("raft_voters", "Nodes whose votes count.", len(raft.voters))
    yield _gauge("raft_reachable_voters", "Of these, how many this node reaches, itself included.", len(raft.reachable_voters))
    yield from _journal(snapshot.log)
    about = "How long it took to make the journal durable (fdatasync)."
    yield _histogram("raft_fsync_duration_seconds", about, (), {(): snapshot.tally.syncs})


def _journal(log: Figures | None) -> Iterator[Metric]:
    if log is not None:
        yield _gauge("raft_log_entries", "Entries in the journal that no snapshot has replaced yet.", log.entries)
        yield _gauge("raft_log_bytes", "Bytes of the commands in these entries.", log.size)
        yield _counter("raft_elections_total", "Elections for which this node stood since the agent started.", log.elections)


# --- what it does


def _calls(name: str, what: str, calls: Calls) -> Iterator[Metric]:
    about = f"How long calls {what} took."
    yield _histogram(f"{name}_duration_seconds", about, ("method",), {(method,): each for method, each in calls.durations.items()})
    failures = CounterMetricFamily(f"{PREFIX}{name}_errors_total", f"Calls {what} that failed, by kind.", labels=["method", "kind"])
    for (method, kind), count in calls.failures.items():
        failures.add_metric([method, kind], count)
    yield failures


def _peers(report: NodeReport) -> Iterator[Metric]:
    states = Counter(peer.state for peer in report.peers)
    about = "Other nodes by the state of the connection to them."
    yield _by("peers", about, "state", {state: states[state] for state in ("connected", "connecting", "broken")})
    control = {member.name for member in report.members if member.role is Role.CONTROL}

    def first(peer: PeerReport) -> tuple[bool, str]:
        return peer.name not in control, peer.name

    shown = sorted(report.peers, key=first)[:PEERS]
    about = f"1 if this node is connected to that peer ({PEERS} of them at most, control nodes first)."
    yield _by("peer_connected", about, "peer", {peer.name: peer.state == "connected" for peer in shown})
    trips = {peer.name: peer.rtt_ms / 1000 for peer in shown if peer.rtt_ms is not None}
    yield _by("peer_round_trip_seconds", "How far away that peer is, there and back.", "peer", trips)


def _services(snapshot: Snapshot) -> Iterator[Metric]:
    healths = Counter(instance.health for instance in snapshot.instances)
    about = "Instances in the service registry by health, as this node knows it."
    yield _by("service_instances", about, "health", {health.value: healths[health] for health in InstanceHealth})
    active = {instance.service for instance in snapshot.instances if instance.health is InstanceHealth.HEALTHY}
    yield _gauge("services_active", "Services with at least one healthy instance.", len(active))


def _containers(states: Mapping[str, int]) -> Metric:
    counts = dict.fromkeys(CONTAINER_STATES, 0)
    for state, count in states.items():
        known = state if state in counts else OTHER
        counts[known] = counts.get(known, 0) + count
    return _by("containers", "Containers of ours on this node, by state.", "state", counts)


def _security(snapshot: Snapshot) -> Iterator[Metric]:
    layer = snapshot.report.security
    if layer is not None:
        modes = {mode: mode == layer.mode for mode in ("off", "audit", "enforce")}
        yield _by("security_mode", "1 for the mode that the network policies are in.", "mode", modes)
        yield _gauge("security_programs", "eBPF programs of ours that are attached.", layer.programs)
        yield _gauge("security_flows", "Pairs of container and peer that are being counted.", layer.flows)
    if snapshot.totals is not None:
        yield from _totals(snapshot.totals)


def _totals(totals: Totals) -> Iterator[Metric]:
    seen = "seen from the container, since the node booted"
    for what, inwards, outwards in (
        ("bytes", totals.bytes_in, totals.bytes_out),
        ("packets", totals.packets_in, totals.packets_out),
        ("connections", totals.connections_in, totals.connections_out),
    ):
        about = f"{what.title()} of containers by direction, {seen}."
        family = CounterMetricFamily(f"{PREFIX}flow_{what}_total", about, labels=["direction"])
        family.add_metric(["in"], inwards)
        family.add_metric(["out"], outwards)
        yield family
    yield _counter("execs_total", "Programs that began in containers.", totals.execs)
    yield _counter("security_events_total", "Events that the kernel reported.", totals.events)
    about = "Events that the kernel dropped: more than it may tell (rate_limit), or the agent did not keep up (ring_full)."
    lost = CounterMetricFamily(f"{PREFIX}security_events_lost_total", about, labels=["reason"])
    lost.add_metric(["rate_limit"], totals.events_limited)
    lost.add_metric(["ring_full"], totals.events_overrun)
    yield lost


def _process(usage: Usage, loop_lag: float | None) -> Iterator[Metric]:
    yield _counter("process_cpu_seconds_total", "Processor time that the agent has used, its children included.", usage.cpu_seconds)
    yield _gauge("process_resident_memory_bytes", "Memory that the agent holds.", usage.resident_bytes)
    yield _gauge("process_open_fds", "File descriptors that the agent has open.", usage.open_files)
    yield _gauge("process_max_fds", "File descriptors that it may have open.", usage.max_files)
    if loop_lag is not None:
        about = "By how much the event loop was late for a timer: the worst of the last few samples."
        yield _gauge("event_loop_lag_seconds", about, loop_lag)


def _disk(room: Room) -> Iterator[Metric]:
    yield _gauge("disk_size_bytes", "Size of the file system that holds the agent's data.", room.size)
    yield _gauge("disk_free_bytes", "Room that is left there.", room.free)


# --- shapes


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, about, value=float(value))


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, about, value=value)


def _info(name: str, about: str, labels: Mapping[str, str]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, about, labels=list(labels))
    family.add_metric(list(labels.values()), 1.0)
    return family


def _by(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


def _histogram(name: str, about: str, labels: Iterable[str], values: Mapping[tuple[str, ...], Histogram]) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, about, labels=list(labels))
    for key, each in values.items():
        family.add_metric(list(key), buckets=each.cumulative(), sum_value=each.sum)
    return family
