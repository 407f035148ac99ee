"""HyperMeshPlatform: the agent. Makes the layers, wires them to each other, brings them up, and takes them down again.

What happens in between is the layers' own business; this file is the only one that knows all of them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from hmcore.api import FORMATION, STATE, Empty, Formation, FormRequest, StateReply
from hmcore.config.agent import AgentConfig
from hmcore.errors import HyperMeshError, InitializationFailed, InvalidRequest
from hmcore.pki import Identity, Kind
from hmcore.records import NodeReport, Role
from hmcore.stoq.endpoint import Local
from hmcore.stoq.local import UnixListener, serve_unix
from node_agent.consensus.machine import FormCluster
from node_agent.consensus.raft import RaftNode
from node_agent.container.layer import ContainerLayer
from node_agent.orchestration.controller import Leader, Orchestration
from node_agent.orchestration.pulse import Incarnation, Myself, Pulse
from node_agent.platform import health
from node_agent.platform.api import routes
from node_agent.platform.coordinator import Coordinator, Phase
from node_agent.platform.health import Health
from node_agent.platform.identity import NodeIdentity, load_identity
from node_agent.platform.layers import FORMATION_TIMEOUT, TransportLayer, VoterLayer
from node_agent.platform.lifecycle import Backoff, Managed
from node_agent.platform.notify import notify, watchdog_interval
from node_agent.platform.observer import TIMEOUT, ObserverLayer
from node_agent.platform.peers import control_nodes, peer_addresses
from node_agent.platform.release import running_release

RAFT = "raft"  # the pool's kind of messages
DOCKER_BACKOFF = Backoff(first=0.5, ceiling=5.0)  # knocking at Docker's socket is cheap, and its return is waited for

log = logging.getLogger(__name__)


class HyperMeshPlatform:
    """One agent. `run` is its whole life."""

    def __init__(self, config: AgentConfig, *, age: float = 0.0, wall_clock: Callable[[], float] = time.time) -> None:
        """`age`: seconds that the process has lived already."""
        self.name = config.node
        self.wall_clock = wall_clock
        self._config = config
        self._release = running_release()
        self._born = time.monotonic() - age
        self._identity: NodeIdentity | None = None
        self._socket: UnixListener | None = None
        self._stopping = asyncio.Event()
        self._failure: HyperMeshError | None = None
        self._routes = routes(self)
        self._wire()
        interval, timeout = config.settings.health.interval, config.settings.health.timeout
        self._components = {
            layer.name: Managed(layer, check_interval=interval, check_timeout=timeout, backoff=backoff)
            for layer, backoff in (
                (self._transport, None),
                (self.cluster, None),
                (self._container, DOCKER_BACKOFF),
                (self._orchestration, None),
            )
        }
        self._coordinator: Coordinator | None = None

    def _wire(self) -> None:
        """Make the layers. Each knows of the others only what it is given here."""
        config, settings = self._config, self._config.settings
        self._transport = TransportLayer(
            config,
            self._release,
            self._proof,
            self._routes,
            on_up=self._peer_up,
            on_down=self._peer_down,
            on_message=self._message,
        )
        self._container = ContainerLayer(config.docker_socket, config.cluster_id, timeout=settings.health.timeout)
        incarnation = Incarnation(config.data_dir / "incarnation", self.wall_clock)
        leader = None
        self._voter: VoterLayer | None = None
        self._observer: ObserverLayer | None = None
        self.cluster: VoterLayer | ObserverLayer
        if config.role is Role.CONTROL:
            self.cluster = self._voter = self._make_voter()
            leader = Leader(
                me=self.name,
                formation=FormCluster(id=config.cluster_id, bootstrap=config.bootstrap),
                cluster=self._voter,
                timing=settings.membership,
                propose_timeout=2 * settings.raft.election_max,
                request_prefix=lambda: f"{self.name}-{incarnation.value}",
                clock=time.monotonic,
            )
        else:
            self.cluster = self._observer = self._make_observer()
        me = Myself(self.name, config.address, config.port, config.role, self._release, config.labels)
        self._orchestration = Orchestration(
            me=me,
            incarnation=incarnation,
            pulse=Pulse(me, incarnation, self.health, self._transport.send),
            cluster=self.cluster,
            control_nodes=self._control_nodes,
            timing=settings.membership,
            leader=leader,
            on_leader_change=lambda: self._components["consensus"].poke(),
        )

    def _make_voter(self) -> VoterLayer:
        config = self._config
        raft = RaftNode(
            name=config.node,
            voters=[voter.name for voter in config.voters],
            directory=config.data_dir / "raft",
            settings=config.settings.raft,
            links=_RaftLinks(self._send_raft),
            call_timeout=config.settings.calls.timeout,
            on_applied=lambda state: self._members_changed(),
            on_fatal=lambda error: None,  # `run` raises it, too
        )

        def ask(name: str) -> Awaitable[Formation]:
            return self._transport.call(name, FORMATION, Empty(), timeout=FORMATION_TIMEOUT)

        return VoterLayer(config, raft, ask, self._transport.reconnect)

    def _make_observer(self) -> ObserverLayer:
        def ask(name: str) -> Awaitable[StateReply]:
            return self._transport.call(name, STATE, Empty(), timeout=TIMEOUT)

        return ObserverLayer(
            self.name,
            self._config.cluster_id,
            self._config.bootstrap,
            control_nodes=self._control_nodes,
            connected=lambda: self._transport.connected,
            ask=ask,
            on_applied=self._members_changed,
        )

    # --- life

    async def run(self) -> None:
        """Live until SIGTERM. Raises what kept the agent from starting, or made it stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with asyncio.TaskGroup() as tasks:
            self._coordinator = Coordinator(
                self._phases(tasks),
                timeout=self._config.settings.initialization_timeout,
                refuse_missing=self._config.settings.optional_layers == "refuse",
                on_ready=self._ready,
                age=self.age(),
            )
            helpers = [
                tasks.create_task(self._bring_up(self._coordinator), name="bring up"),
                tasks.create_task(self._feed_watchdog(), name="watchdog"),
            ]
            await self._stopping.wait()
            notify("STOPPING=1")
            log.info("stopping")
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers)
            await self._coordinator.take_down()
        if self._failure is not None:
            raise self._failure

    async def _bring_up(self, coordinator: Coordinator) -> None:
        try:
            await coordinator.bring_up()
        except HyperMeshError as error:
            self._die(error)

    def _die(self, error: HyperMeshError) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    def _ready(self) -> None:
        notify("READY=1")
        log.info("node %s is up after %.2f s, release %s", self.name, self.age(), self._release[:12])

    async def _feed_watchdog(self) -> None:
        interval = watchdog_interval()
        while interval is not None:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _phases(self, tasks: asyncio.TaskGroup) -> list[Phase]:
        def layer(name: str, *needs: str, optional: bool = False) -> Phase:
            managed = self._components[name]

            async def start() -> None:
                try:
                    await managed.initialize()
                except Exception:
                    if optional:
                        managed.start(tasks, self._die)
                    raise
                managed.start(tasks, self._die)

            async def undo() -> None:
                if name == "orchestration":
                    self._orchestration.say_good_bye()
                await managed.stop()

            return Phase(name, start, undo, needs, optional)

        return [
            Phase("identity", self._prove_identity),
            layer("transport", "identity"),
            layer("consensus", "transport"),
            layer("container", "identity", optional=True),
            layer("orchestration", "consensus"),
            Phase("api", self._open_socket, self._close_socket, ("transport",)),
        ]

    async def _prove_identity(self) -> None:
        for directory, mode in ((self._config.data_dir, 0o700), (self._config.socket.parent, 0o755)):
            try:
                directory.mkdir(mode=mode, parents=True, exist_ok=True)
            except OSError as error:
                raise InitializationFailed(f"{directory} cannot be made: {error.strerror}") from error
        self._identity = load_identity(
            self._config.pki_dir, cluster=self._config.cluster_id, node=self.name, now=datetime.fromtimestamp(self.wall_clock(), UTC)
        )
        self._set_peers()

    def _proof(self) -> NodeIdentity:
        assert self._identity is not None
        return self._identity

    async def _open_socket(self) -> None:
        identity = Identity(self._config.cluster_id, Kind.NODE, self.name)
        self._socket = await serve_unix(
            str(self._config.socket),
            self._routes,
            local=Local(identity, self._config.role.value, self._release),
            high_water=self._config.settings.transport.high_water_bytes,
        )

    async def _close_socket(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    # --- what the connections say

    def _send_raft(self, peer: str, payload: bytes) -> bool:
        self._orchestration.ride()
        return self._transport.send(peer, RAFT, payload)

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
        self._components["transport"].poke()
        self._components["consensus"].poke()

    def _message(self, peer: str, kind: str, payload: bytes) -> None:
        match kind:
            case "raft" if self._voter is not None:
                self._voter.raft.receive(peer, payload)
            case "heartbeat":
                self._orchestration.heard(peer, payload)

    # --- who there is

    def _control_nodes(self) -> list[str]:
        return control_nodes(self._config, self.cluster.nodes)

    def _members_changed(self) -> None:
        self._set_peers()
        self._components["consensus"].poke()

    def _set_peers(self) -> None:
        self._transport.set_peers(peer_addresses(self._config, self.cluster.nodes))

    # --- what is answered

    def age(self) -> float:
        return time.monotonic() - self._born

    def health(self) -> Health:
        return health.judge(health.checks({name: managed.report() for name, managed in self._components.items()}))

    async def form(self, request: FormRequest) -> Formation:
        if self._voter is None:
            raise InvalidRequest(f"{self.name} is a worker: it does not form clusters")
        return await self._voter.form(request)

    def report(self) -> NodeReport:
        condition = self.health()
        return NodeReport(
            cluster=self._config.cluster_id,
            name=self.name,
            address=self._config.address,
            role=self._config.role,
            release=self._release,
            uptime_seconds=round(self.age(), 3),
            health_score=condition.score,
            reasons=list(condition.reasons),
            containers=self._container.running,
            components={name: managed.report() for name, managed in self._components.items()},
            raft=self.cluster.report(),
            formed=self.cluster.formed,
            members=[self.cluster.nodes[name] for name in sorted(self.cluster.nodes)],
            peers=self._transport.reports(),
            phases=list(self._coordinator.timeline) if self._coordinator else [],
            unix_time=self.wall_clock(),
        )


class _RaftLinks:
    """See node_agent.consensus.transport.Links."""

    def __init__(self, send: Callable[[str, bytes], bool]) -> None:
        self._send = send

    def send(self, peer: str, payload: bytes) -> bool:
        return self._send(peer, payload)
