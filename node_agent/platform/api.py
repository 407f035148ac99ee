"""Who may call what: one table. Nodes speak to nodes, operators change, viewers read. Every refusal is a line in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from hmcore.api import (
    BARRIER,
    EVENTS,
    FLOWS,
    FORM,
    FORMATION,
    INSTANCES,
    MAINTAIN,
    MUTE,
    PING,
    RAISE,
    REGISTRY,
    REPORT,
    REPORTS,
    STATE,
    TRANSFER,
    BarrierReply,
    Empty,
    FlowsReply,
    Formation,
    FormRequest,
    InstancesReply,
    PingReply,
    RegistryReply,
    ReportRequest,
    StateReply,
    StateRequest,
    TransferReply,
    TransferRequest,
)
from hmcore.locks import (
    ACQUIRE,
    LOCKS,
    RELEASE,
    RENEW,
)
from hmcore.pki import Kind
from hmcore.records import NodeReport
from hmcore.stoq.greeting import Peer
from hmcore.stoq.rpc import Observe, Router, Streams
from hmcore.store import (
    DELETE_KEY,
    GET_KEY,
    LIST_KEYS,
    PUT_KEY,
)
from hmcore.voters import CONFIGURE, RAFT, RaftStatus
from hmcore.watch import TABLES, WATCH
from node_agent.orchestration.cluster import ClusterView
from node_agent.platform.app_calls import AppAnswers, app_calls
from node_agent.platform.callers import CHANGERS, NODES, READERS
from node_agent.platform.changes import Changes
from node_agent.platform.consistency import Consistency
from node_agent.platform.forwarding import Forwarding
from node_agent.platform.keys import Keys
from node_agent.platform.locks import Locks
from node_agent.platform.raising import Raising
from node_agent.platform.routes import read, route, signed
from node_agent.platform.voting import Voting
from node_agent.platform.watches import Watches
from node_agent.registry.layer import RegistryLayer
from node_agent.security.chronicle import Chronicle
from node_agent.security.journal import Waiters

log = logging.getLogger(__name__)


class Agent(Protocol):
    """What the calls are answered from."""

    @property
    def name(self) -> str: ...
    @property
    def cluster(self) -> ClusterView: ...
    @property
    def changes(self) -> Changes: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def locks(self) -> Locks: ...
    @property
    def apps(self) -> AppAnswers: ...
    @property
    def raising(self) -> Raising: ...
    @property
    def consistency(self) -> Consistency: ...
    @property
    def voting(self) -> Voting: ...
    @property
    def watches(self) -> Watches: ...
    @property
    def registry(self) -> RegistryLayer: ...
    @property
    def chronicle(self) -> Chronicle: ...
    @property
    def forwarding(self) -> Forwarding: ...
    @property
    def news(self) -> Waiters:
        """Of the replicated state."""

    @property
    def wall_clock(self) -> Callable[[], float]: ...
    def report(self) -> NodeReport: ...
    async def form(self, request: FormRequest) -> Formation: ...


def routes(agent: Agent, observe: Observe = lambda method, outcome, seconds: None, streams: Streams | None = None) -> Router:
    """The table, and what answers each call. `observe` hears how each ended. `streams` are answered elsewhere (appstreams.py)."""

    async def ping(_peer: Peer, _request: Empty) -> PingReply:
        return PingReply(name=agent.name, unix_time=agent.wall_clock())

    async def report(_peer: Peer, request: ReportRequest) -> NodeReport:
        said = agent.report()
        return said if request.members else msgspec.structs.replace(said, members=[])

    async def formation(_peer: Peer, _request: Empty) -> Formation:
        return agent.cluster.formation()

    async def form(peer: Peer, request: FormRequest) -> Formation:
        log.info("%s asks to form the cluster", peer.identity)
        return await agent.form(request)

    async def state(peer: Peer, request: StateRequest) -> StateReply:
        view = agent.cluster
        node = peer.identity.kind is Kind.NODE  # a worker asks often: it needs the registry, and no events
        if request.consistent:
            await agent.consistency.wait()
        asked = time.monotonic()
        if node and request.wait > 0 and view.index <= request.since:
            await agent.news.until(lambda: view.index > request.since, request.wait)
        waited = time.monotonic() - asked
        index, leader, term = view.index, view.leader, view.report().term
        sure, no_quorum = request.consistent, "" if view.no_quorum is None else view.no_quorum.message
        if request.since == index:
            short = StateReply(index=index, leader=leader, term=term, nodes=[], unchanged=True, waited=waited)
            return msgspec.structs.replace(short, no_quorum=no_quorum, consistent=sure)
        return StateReply(
            index=index,
            leader=leader,
            term=term,
            nodes=[view.nodes[name] for name in sorted(view.nodes)],
            events=[] if node else list(view.events),
            partial=request.partial and node,
            waited=waited,
            registrations={
                name: made
                for name, made in (view.registrations.items() if node else ())
                if not request.partial or made.index > request.since
            },
            maintenance=[view.maintenance[target] for target in sorted(view.maintenance)],
            mutes=[view.mutes[key] for key in sorted(view.mutes)],
            no_quorum=no_quorum,
            consistent=sure,
        )

    async def barrier(_peer: Peer, _request: Empty) -> BarrierReply:
        return BarrierReply(index=await agent.consistency.barrier())

    async def transfer(peer: Peer, request: TransferRequest) -> TransferReply:
        log.info("%s asks that %s lead", peer.identity, request.to or "another")
        handed = await agent.consistency.transfer(request.to)
        return TransferReply(leader=handed.leader, term=handed.term, seconds=handed.seconds, index=agent.cluster.index)

    async def raft(_peer: Peer, _request: Empty) -> RaftStatus:
        return agent.voting.status()

    async def instances(_peer: Peer, _request: Empty) -> InstancesReply:
        return agent.registry.instances()

    async def registry(_peer: Peer, _request: Empty) -> RegistryReply:
        return agent.registry.everything()

    async def flows(_peer: Peer, _request: Empty) -> FlowsReply:
        return await agent.chronicle.flows()

    return Router(
        dict(
            [
                route(PING, NODES + READERS, ping),
                route(REPORT, NODES + READERS, report),
                read(REPORTS, READERS, lambda: agent.forwarding.reports),
                route(FORMATION, NODES + READERS, formation),
                route(STATE, NODES + READERS, state),
                route(BARRIER, NODES + READERS, barrier),
                route(TRANSFER, CHANGERS, transfer),
                signed(CONFIGURE, CHANGERS, lambda: agent.voting.configure),
                route(RAFT, NODES + READERS, raft),
                route(FLOWS, READERS, flows),
                read(EVENTS, READERS, lambda: agent.chronicle.events),
                route(FORM, CHANGERS, form),
                route(INSTANCES, NODES, instances),
                route(REGISTRY, READERS, registry),
                signed(MAINTAIN, CHANGERS, lambda: agent.changes.maintain),
                signed(MUTE, CHANGERS, lambda: agent.changes.mute),
                signed(RAISE, CHANGERS, lambda: agent.raising.carry_out),
                signed(PUT_KEY, CHANGERS, lambda: agent.keys.put),
                signed(DELETE_KEY, CHANGERS, lambda: agent.keys.delete),
                read(GET_KEY, READERS, lambda: agent.keys.get),
                read(LIST_KEYS, READERS, lambda: agent.keys.list),
                signed(ACQUIRE, NODES + CHANGERS, lambda: agent.locks.acquire),
                signed(RENEW, NODES + CHANGERS, lambda: agent.locks.renew),
                signed(RELEASE, NODES + CHANGERS, lambda: agent.locks.release),
                read(LOCKS, NODES + READERS, lambda: agent.locks.list),
                read(WATCH, NODES + READERS, lambda: agent.watches.watch),
                read(TABLES, NODES + READERS, lambda: agent.watches.tables),
                *app_calls(lambda: agent.apps),
            ]
        ),
        denied=_denied,
        observe=observe,
        streams=streams,
    )


def _denied(peer: Peer, method: str) -> None:
    log.warning("refused: %s may not call %s", peer.identity, method)
