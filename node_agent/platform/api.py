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
    ChangeReply,
    Empty,
    EventsReply,
    EventsRequest,
    FlowsReply,
    Formation,
    FormRequest,
    InstancesReply,
    MaintainRequest,
    MuteRequest,
    PingReply,
    RaiseReply,
    RaiseRequest,
    RegistryReply,
    ReportRequest,
    ReportsReply,
    ReportsRequest,
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
    AcquireReply,
    AcquireRequest,
    LocksReply,
    LocksRequest,
    ReleaseRequest,
    RenewReply,
    RenewRequest,
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
    DeleteKeyRequest,
    KeyReply,
    KeyRequest,
    KeysReply,
    KeysRequest,
    PutKeyRequest,
)
from hmcore.voters import CONFIGURE, RAFT, ConfigureRequest, RaftStatus
from hmcore.watch import TABLES, WATCH, TablesReply, TablesRequest, WatchReply, WatchRequest
from node_agent.orchestration.cluster import ClusterView
from node_agent.platform.app_calls import AppAnswers, app_calls
from node_agent.platform.callers import CHANGERS, NODES, READERS
from node_agent.platform.changes import Changes
from node_agent.platform.consistency import Consistency
from node_agent.platform.forwarding import Forwarding
from node_agent.platform.keys import Keys
from node_agent.platform.locks import Locks
from node_agent.platform.raising import Raising
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

    async def reports(_peer: Peer, request: ReportsRequest) -> ReportsReply:
        return await agent.forwarding.reports(request)

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

    async def configure(peer: Peer, request: ConfigureRequest) -> ChangeReply:
        return await agent.voting.configure(request, peer.identity)

    async def raft(_peer: Peer, _request: Empty) -> RaftStatus:
        return agent.voting.status()

    async def instances(_peer: Peer, _request: Empty) -> InstancesReply:
        return agent.registry.instances()

    async def registry(_peer: Peer, _request: Empty) -> RegistryReply:
        return agent.registry.everything()

    async def maintain(peer: Peer, request: MaintainRequest) -> ChangeReply:
        return await agent.changes.maintain(request, peer.identity)

    async def mute(peer: Peer, request: MuteRequest) -> ChangeReply:
        return await agent.changes.mute(request, peer.identity)

    async def raise_level(peer: Peer, request: RaiseRequest) -> RaiseReply:
        return await agent.raising.carry_out(request, peer.identity)

    async def put_key(peer: Peer, request: PutKeyRequest) -> ChangeReply:
        return await agent.keys.put(request, peer.identity)

    async def delete_key(peer: Peer, request: DeleteKeyRequest) -> ChangeReply:
        return await agent.keys.delete(request, peer.identity)

    async def get_key(_peer: Peer, request: KeyRequest) -> KeyReply:
        return await agent.keys.get(request)

    async def list_keys(_peer: Peer, request: KeysRequest) -> KeysReply:
        return await agent.keys.list(request)

    async def acquire(peer: Peer, request: AcquireRequest) -> AcquireReply:
        return await agent.locks.acquire(request, peer.identity)

    async def renew(peer: Peer, request: RenewRequest) -> RenewReply:
        return await agent.locks.renew(request, peer.identity)

    async def release(peer: Peer, request: ReleaseRequest) -> ChangeReply:
        return await agent.locks.release(request, peer.identity)

    async def locks(_peer: Peer, request: LocksRequest) -> LocksReply:
        return await agent.locks.list(request)

    async def watch(_peer: Peer, request: WatchRequest) -> WatchReply:
        return await agent.watches.watch(request)

    async def tables(_peer: Peer, request: TablesRequest) -> TablesReply:
        return await agent.watches.tables(request)

    async def flows(_peer: Peer, _request: Empty) -> FlowsReply:
        return await agent.chronicle.flows()

    async def events(_peer: Peer, request: EventsRequest) -> EventsReply:
        return await agent.chronicle.events(request)

    return Router(
        {
            PING: (NODES + READERS, ping),
            REPORT: (NODES + READERS, report),
            REPORTS: (READERS, reports),
            FORMATION: (NODES + READERS, formation),
            STATE: (NODES + READERS, state),
            BARRIER: (NODES + READERS, barrier),
            TRANSFER: (CHANGERS, transfer),
            CONFIGURE: (CHANGERS, configure),
            RAFT: (NODES + READERS, raft),
            FLOWS: (READERS, flows),
            EVENTS: (READERS, events),
            FORM: (CHANGERS, form),
            INSTANCES: (NODES, instances),
            REGISTRY: (READERS, registry),
            MAINTAIN: (CHANGERS, maintain),
            MUTE: (CHANGERS, mute),
            RAISE: (CHANGERS, raise_level),
            PUT_KEY: (CHANGERS, put_key),
            DELETE_KEY: (CHANGERS, delete_key),
            GET_KEY: (READERS, get_key),
            LIST_KEYS: (READERS, list_keys),
            ACQUIRE: (NODES + CHANGERS, acquire),
            RENEW: (NODES + CHANGERS, renew),
            RELEASE: (NODES + CHANGERS, release),
            LOCKS: (NODES + READERS, locks),
            WATCH: (NODES + READERS, watch),
            TABLES: (NODES + READERS, tables),
            **app_calls(lambda: agent.apps),
        },
        denied=_denied,
        observe=observe,
        streams=streams,
    )


def _denied(peer: Peer, method: str) -> None:
    log.warning("refused: %s may not call %s", peer.identity, method)
