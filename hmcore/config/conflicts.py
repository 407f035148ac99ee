"""Settings that are fine each by itself but cannot work together: which, why, and what would."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from hmcore.config.problems import Mistake
from hmcore.config.settings import Settings

LEASE_ELECTIONS = 1.25  # a lease is renewed well before it ends; what is left of it then must outlast a leader's replacement
AFTER_LEASES = 1.4  # of `fencing.after`, a fiftieth is for clocks; the rest beyond the lease (0.9 s at least) for the kill


def conflicts(settings: Settings) -> list[Mistake]:
    """Every combination that cannot work, with paths below `settings`."""
    return [
        *_failure_detection(settings),
        *_election(settings),
        *_fencing(settings),
        *_checks(settings),
        *_reconnection(settings),
        *_ports(settings),
        *_subnets(settings),
    ]


def _mistake(path: str, message: str, hint: str) -> Mistake:
    return Mistake(tuple(path.split(".")), message, hint)


def _failure_detection(settings: Settings) -> Iterator[Mistake]:
    heartbeat, suspect, down = settings.membership.heartbeat, settings.membership.suspect, settings.membership.down
    if suspect <= 2 * heartbeat:
        why = f"{suspect:g} s is not above two heartbeats ({heartbeat:g} s each): one lost packet would make a node suspect"
        yield _mistake("membership.suspect", why, f"at least {3 * heartbeat:g}")
    if down <= suspect:
        why = f"{down:g} s is not above suspect ({suspect:g} s): a node must be suspect before it is down"
        yield _mistake("membership.down", why, f"at least {2 * suspect:g}")


def _election(settings: Settings) -> Iterator[Mistake]:
    raft, timeout = settings.raft, settings.calls.timeout
    if raft.election_min < 5 * raft.heartbeat:
        why = f"{raft.election_min:g} s is under 5 Raft heartbeats ({raft.heartbeat:g} s each): a short delay would depose the leader"
        hint = f"at least {5 * raft.heartbeat:g}, or raft.heartbeat at most {raft.election_min / 5:g}"
        yield _mistake("raft.election_min", why, hint)
    if raft.election_max <= raft.election_min:
        why = f"{raft.election_max:g} s is not above election_min ({raft.election_min:g} s): voters would stand at once and split the vote"
        yield _mistake("raft.election_max", why, f"about {2 * max(raft.election_min, 5 * raft.heartbeat):g}")
    if timeout <= raft.election_max:
        why = f"{timeout:g} s is not above raft.election_max ({raft.election_max:g} s): every write would fail when a leader dies"
        yield _mistake("calls.timeout", why, f"at least {2 * raft.election_max:g}")


def _fencing(settings: Settings) -> Iterator[Mistake]:
    fencing, election = settings.fencing, settings.raft.election_max
    if fencing.lease < LEASE_ELECTIONS * election:
        why = f"{fencing.lease:g} s does not outlast an election (raft.election_max: {election:g} s): exclusive services would end with it"
        yield _mistake("fencing.lease", why, f"at least {LEASE_ELECTIONS * election:g}")
    if fencing.after < AFTER_LEASES * fencing.lease:
        why = f"{fencing.after:g} s is not beyond the lease ({fencing.lease:g} s) by enough: two replicas of an exclusive service could run"
        yield _mistake("fencing.after", why, f"at least {AFTER_LEASES * fencing.lease:g}, or fencing.lease less")


def _checks(settings: Settings) -> Iterator[Mistake]:
    health, registry = settings.health, settings.registry
    if health.timeout > health.interval:
        why = f"{health.timeout:g} s is above the interval ({health.interval:g} s): checks would pile up"
        yield _mistake("health.timeout", why, f"at most {health.interval:g}")
    if health.interval > registry.ttl / 2:
        why = f"{health.interval:g} s is over half of registry.ttl ({registry.ttl:g} s): healthy instances would expire between checks"
        yield _mistake("health.interval", why, f"at most {registry.ttl / 2:g}, or registry.ttl at least {2 * health.interval:g}")
    if registry.refresh > registry.ttl / 2:
        why = f"{registry.refresh:g} s is over half the ttl ({registry.ttl:g} s): one lost renewal would take an instance out"
        yield _mistake("registry.refresh", why, f"at most {registry.ttl / 2:g}")


def _reconnection(settings: Settings) -> Iterator[Mistake]:
    transport = settings.transport
    if transport.reconnect_max < transport.reconnect_min:
        why = f"{transport.reconnect_max:g} s is under reconnect_min ({transport.reconnect_min:g} s)"
        yield _mistake("transport.reconnect_max", why, f"at least {transport.reconnect_min:g}")


def _ports(settings: Settings) -> Iterator[Mistake]:
    port = settings.metrics.port
    if port == settings.transport.port:
        yield _mistake("metrics.port", f"{port} is transport.port, whose TCP side is for bulk content", "another one, such as 7444")
    tunnels = settings.network.vxlan_port
    if tunnels == settings.transport.port:
        yield _mistake("network.vxlan_port", f"{tunnels} is transport.port, on which agents listen", "another one, such as 4789")


def _subnets(settings: Settings) -> Iterator[Mistake]:
    network = settings.network
    whole = ipaddress.IPv4Network(network.cidr).prefixlen
    if network.subnet_prefix < whole:
        why = f"a /{network.subnet_prefix} for each node does not fit into {network.cidr}"
        longer = min(28, whole + 8)
        hint = f"{longer} leaves room for {1 << (longer - whole)} nodes" if longer > whole else "28 at most, and a larger network.cidr"
        yield _mistake("network.subnet_prefix", why, hint)
