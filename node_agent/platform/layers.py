"""The agent's layers, made and wired to each other: the only file that knows all of them. What they do is their own business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from hmcore.api import BARRIER, FORMATION, Empty, Formation, InstancesReply
from hmcore.config.agent import AgentConfig
from hmcore.records import ComponentReport, ComponentState, Node, Role
from hmcore.stoq.endpoint import Service
from node_agent.consensus.following.observer import INTERVAL, ObserverLayer
from node_agent.consensus.layer import FORMATION_TIMEOUT, VoterLayer
from node_agent.consensus.statemachine import levels
from node_agent.container.layer import ContainerLayer
from node_agent.orchestration.controller import Orchestration
from node_agent.orchestration.pulse import Incarnation, Myself, Pulse
from node_agent.platform.appside import AppSide
from node_agent.platform.appstreams import AppStreams
from node_agent.platform.asking import Asking
from node_agent.platform.changes import Changes
from node_agent.platform.consistency import Consistency
from node_agent.platform.control import Control, Memory, make_voter
from node_agent.platform.forwarding import Forwarding
from node_agent.platform.health import Health
from node_agent.platform.keys import Keys
from node_agent.platform.lifecycle import Backoff, Managed
from node_agent.platform.locks import Locks
from node_agent.platform.peers import control_nodes, peer_addresses
from node_agent.platform.raising import Raising
from node_agent.platform.tally import Tally
from node_agent.platform.voting import Voting
from node_agent.platform.watches import Watches
from node_agent.registry.directory import Directory
from node_agent.registry.layer import RegistryLayer
from node_agent.registry.own import Place
from node_agent.registry.registry import Catalogue
from node_agent.security.chronicle import Chronicle
from node_agent.security.journal import Waiters
from node_agent.security.layer import SecurityLayer
from node_agent.security.maps import Record
from node_agent.transport.identity import NodeIdentity
from node_agent.transport.layer import TransportLayer

RAFT = "raft"  # the pool's kind of messages
FOLLOWERS = 1024  # nodes that may wait at this one for what is newer; more are answered at once, and ask every few seconds
GRACE = 0.5  # seconds: what a layer asks of others times out first, and then says who did not answer and what mends it
DOCKER_BACKOFF = Backoff(first=0.5, ceiling=5.0)  # knocking at Docker's socket is cheap, and its return is waited for


class Layers:
    """`managed` are the components by name, in the order in which they are shown."""

    def __init__(
        self,
        config: AgentConfig,
        release: str,
        *,
        identity: Callable[[], NodeIdentity],
        health: Callable[[], Health],
        service: Service,
        wall_clock: Callable[[], float],
        tally: Tally,
        streams: AppStreams,
    ) -> None:
        """`identity` is asked once the identity phase is over, `health` whenever a heartbeat goes out; `service` answers peers' calls.
        `tally` counts what goes on, `streams` hears when containers come and go."""
        self._config = config
        self._tally = tally
        self._led_by: str | None = None
        self._peered: Mapping[str, Node] | None = None  # whom we connect to
        settings = config.settings
        self.transport = TransportLayer(
            config,
            release,
            identity,
            service,
            on_up=self._peer_up,
            on_down=self._peer_down,
            on_message=self._message,
            observe=tally.made.add,
        )
        self.container = ContainerLayer(
            config.docker_socket, config.cluster_id, timeout=settings.health.timeout, on_change=self._containers_changed
        )
        self.security = SecurityLayer(
            settings.security,
            node=config.node,
            on_records=self._security_records,
            running=self._running_containers,
            on_unwatched=lambda: self.registry.changed(),  # made later
        )
        self.chronicle = Chronicle(
            config.node,
            self.security,
            began=int(wall_clock() * 1e6),
            off=not self.security.serving,
            trouble=self._security_trouble,
            wall_clock=wall_clock,
        )
        self._asking = Asking(config.node, lambda: self.directory)  # made later
        self.incarnation = Incarnation(config.data_dir / "incarnation", wall_clock)
        self.news = Waiters(FOLLOWERS, INTERVAL)  # of the replicated state
        self._voter = voter = self._make_voter(wall_clock) if config.role is Role.CONTROL else None
        self._observer = self._make_observer() if voter is None else None
        self._memory = memory = Memory(voter)
        self.changes = Changes(config.node, self.cluster, voter, timeout=2 * settings.raft.election_max)
        self.consistency = Consistency(
            config.node,
            self.cluster,
            voter,
            self._ask_barrier,
            timeout=2 * settings.raft.election_max,
            reach=None if self._observer is None else self._observer.reach,
        )
        self.keys = Keys(config.node, self.changes, keys=memory.keys, leader=lambda: self.cluster.leader, barrier=self.consistency.wait)
        self.watches = Watches(config.node, state=memory.state, leader=lambda: (self.cluster.leader, self.cluster.report().term))
        self.directory = Directory(
            config.node,
            catalogue=lambda: self.registry.catalogue,
            call=self.transport.call,
            connected=lambda: self.transport.connected,
            fresh=lambda: self.cluster.fresh,
        )
        self.forwarding = Forwarding(self._asking.report, links=self.transport.reports, wall_clock=wall_clock)
        self.control = None if voter is None else self._make_control(voter)
        self.locks = Locks(
            config.node,
            self.changes,
            None if self.control is None else self.control.keeper,
            locks=memory.locks,
            leader=lambda: self.cluster.leader,
            barrier=self.consistency.wait,
        )
        self.voting = Voting(config.node, self.cluster, voter)
        self.raising = Raising(self.changes, None if self.control is None else self.control.leader.known)
        self.apps = AppSide(config, self, identity=identity, streams=streams)
        self.registry = self._make_registry(release)
        self.orchestration = self._make_orchestration(release, health)
        interval, timeout = settings.health.interval, settings.health.timeout
        self.managed = {
            layer.name: Managed(
                layer, check_interval=interval, check_timeout=timeout + GRACE, backoff=backoff, on_change=self.registry.changed
            )
            for layer, backoff in (
                (self.transport, None),
                (self.cluster, None),
                (self.container, DOCKER_BACKOFF),
                (self.security, None),
                (self.apps.network, DOCKER_BACKOFF),
                (self.apps.images, None),
                (self.apps.workload, None),
                (self.registry, None),
                (self.orchestration, None),
            )
        }

    @property
    def cluster(self) -> VoterLayer | ObserverLayer:
        """What the cluster agreed on, as this node knows it."""
        found = self._voter or self._observer
        assert found is not None
        return found

    def _make_voter(self, wall_clock: Callable[[], float]) -> VoterLayer:
        def ask(name: str) -> Awaitable[Formation]:
            return self.transport.call(name, FORMATION, Empty(), timeout=FORMATION_TIMEOUT)

        return make_voter(
            self._config,
            links=_RaftLinks(self._send_raft),
            ask_formation=ask,
            reconnect=self.transport.reconnect,
            on_applied=self._state_changed,
            on_sync=self._tally.syncs.add,
            wall_clock=wall_clock,
        )

    def _make_control(self, voter: VoterLayer) -> Control:
        return Control(
            self._config,
            voter,
            barrier=self.consistency.barrier,
            request_prefix=lambda: f"{self._config.node}-{self.incarnation.value}",
            unlock=lambda node, request: self.apps.unlock(node, request),  # made later, as is what follows
            enrol=lambda request: self.apps.enrol(request),
            on_renewal=lambda name, incarnation, revision: self.registry.heard(name, incarnation, revision),
        )

    def _make_observer(self) -> ObserverLayer:
        return ObserverLayer(
            self._config.node,
            self._config.cluster_id,
            self._config.bootstrap,
            control_nodes=self._control_nodes,
            connected=lambda: self.transport.connected,
            watch=self._asking.watch,
            tables=self._asking.tables,
            ask=self._asking.state,
            on_applied=self._state_changed,
        )

    def _make_registry(self, release: str) -> RegistryLayer:
        config, settings = self._config, self._config.settings
        return RegistryLayer(
            Place(config.node, config.address, config.port, release),
            refresh=settings.registry.refresh,
            cluster=self.cluster,
            components=self.reports,
            containers=lambda: None if self.container.running is None else self.apps.containers(),
            unwatched=self.security.unwatched,
            incarnation=lambda: self.incarnation.value,
            latency_ms=self.directory.latency_ms,
            failures=self.directory.failures,
            replication=None if self.control is None else self.control.replication(self._pull_instances),
            on_told=lambda: self.apps.telling.instances(self.registry.instances()),
        )

    async def _pull_instances(self, name: str) -> InstancesReply:
        if name == self._config.node:
            return self.registry.instances()
        return await self._asking.instances(name, self._config.settings.calls.timeout)

    async def _ask_barrier(self, name: str, timeout: float) -> int:
        reply = await self.transport.call(name, BARRIER, Empty(), timeout=timeout)
        return reply.index

    def reports(self) -> dict[str, ComponentReport]:
        return {name: managed.report() for name, managed in self.managed.items()}

    def _make_orchestration(self, release: str, health: Callable[[], Health]) -> Orchestration:
        config, settings, control = self._config, self._config.settings, self.control
        me = Myself(config.node, config.address, config.port, config.role, release, config.labels, levels.LATEST)
        return Orchestration(
            me=me,
            incarnation=self.incarnation,
            pulse=Pulse(me, self.incarnation, health, self.transport.send, self.registry.renewal, self._memory.holds),
            cluster=self.cluster,
            control_nodes=self._control_nodes,
            timing=settings.membership,
            leader=None if control is None else control.leader,
            on_leader_change=self._leader_changed,
            loops={} if control is None else control.loops,
            trouble=lambda: None if control is None else control.trouble,
        )

    # --- what the connections say

    def _send_raft(self, peer: str, payload: bytes) -> bool:
        self.orchestration.ride()
        return self.transport.send(peer, RAFT, payload)

    def _peer_up(self, peer: str) -> None:
        if self._voter is not None:
            self._voter.raft.peer_up(peer)
        self._connections_changed()

    def _peer_down(self, peer: str) -> None:
        if self._voter is not None:
            self._voter.raft.peer_down(peer)
        self._connections_changed()

    def _connections_changed(self) -> None:
        if self._observer is not None:
            self._observer.connections_changed()
        self.managed["transport"].poke()
        self.managed["consensus"].poke()

    def _message(self, peer: str, kind: str, payload: bytes) -> None:
        match kind:
            case "raft" if self._voter is not None:
                self._voter.raft.receive(peer, payload)
                leader = self._voter.leader
                if leader is not None and leader != self._led_by:  # or "no leader" stays until the next check is due
                    self._led_by = leader
                    self.managed["consensus"].poke()
            case "heartbeat":
                self.orchestration.heard(peer, payload)

    def _containers_changed(self) -> None:
        self.registry.changed()
        self.apps.containers_changed()
        self.chronicle.containers_changed(self.container.containers())

    def _running_containers(self) -> frozenset[str]:
        return frozenset(info.id for info in self.container.containers().values() if info.running)

    def _security_records(self, records: list[Record]) -> None:
        self.chronicle.received(records)

    def _security_trouble(self) -> tuple[str, str | None] | None:
        if self.security.report() is not None:
            return None
        said = self.managed["security"].report()
        return said.error or f"the eBPF layer is {said.state}", said.fix

    def _leader_changed(self) -> None:
        self.watches.leader_changed()
        self.managed["consensus"].poke()
        self.registry.poke()
        if self.control is not None:
            self.control.poke()

    # --- what those for apps ask (appside.Around)

    def catalogue(self) -> Catalogue:
        return self.registry.catalogue

    async def barrier(self) -> None:
        await self.consistency.wait()

    def reachable_control_nodes(self) -> list[str]:
        connected = self.transport.connected
        return [name for name in self._control_nodes() if name in connected or name == self._config.node]

    def incarnation_value(self) -> int:
        return self.incarnation.value

    def instances_changed(self) -> None:
        self.registry.changed()

    def network_troubled(self) -> None:
        self.managed["network"].poke()

    def apps_open(self) -> None:
        self.managed["apps"].poke()

    # --- who there is

    def _control_nodes(self) -> list[str]:
        return control_nodes(self._config, self.cluster.nodes)

    def _state_changed(self) -> None:
        self.news.wake()
        self.watches.applied()
        if self.control is not None:
            self.control.state_changed()
        self.apps.state_changed()
        self.consistency.state_changed()
        self.registry.records_changed()
        if self.cluster.nodes is not self._peered:
            self.set_peers()
        if self.managed["consensus"].state is not ComponentState.RUNNING:
            self.managed["consensus"].poke()  # what was applied may have been all that it lacked

    def set_peers(self) -> None:
        """Connect to the nodes that the cluster knows, and to the voters of the configuration until it knows any."""
        self._peered = self.cluster.nodes
        self.transport.set_peers(peer_addresses(self._config, self.cluster.nodes))


class _RaftLinks:
    """See node_agent.consensus.protocol.transport.Links."""

    def __init__(self, send: Callable[[str, bytes], bool]) -> None:
        self._send = send

    def send(self, peer: str, payload: bytes) -> bool:
        return self._send(peer, payload)
