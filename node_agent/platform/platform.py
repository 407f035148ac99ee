"""HyperMeshPlatform: the agent. Brings its layers (layers.py) up in phases, answers for them, and takes them down again."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from hmcore.api import Formation, FormRequest
from hmcore.config.agent import AgentConfig
from hmcore.errors import HyperMeshError, InitializationFailed, InvalidRequest
from hmcore.pki import Identity, Kind
from hmcore.records import NodeReport, RaftReport
from hmcore.stoq.endpoint import Local
from hmcore.stoq.local import UnixListener, serve_unix
from node_agent.notify import notify, watchdog_interval
from node_agent.orchestration.cluster import ClusterView
from node_agent.platform import health
from node_agent.platform.api import routes
from node_agent.platform.appside import AppSide
from node_agent.platform.appstreams import AppStreams
from node_agent.platform.changes import Changes
from node_agent.platform.consistency import Consistency
from node_agent.platform.coordinator import Coordinator, Phase
from node_agent.platform.forwarding import Forwarding
from node_agent.platform.health import Health
from node_agent.platform.keys import Keys
from node_agent.platform.layers import Layers
from node_agent.platform.lifecycle import Managed
from node_agent.platform.locks import Locks
from node_agent.platform.monitoring import Monitoring
from node_agent.platform.raising import Raising
from node_agent.platform.release import running_release
from node_agent.platform.tally import Tally
from node_agent.platform.vitals import Vitals
from node_agent.platform.voting import Voting
from node_agent.platform.watches import Watches
from node_agent.registry.layer import RegistryLayer
from node_agent.security.chronicle import Chronicle
from node_agent.security.journal import Waiters
from node_agent.transport.identity import NodeIdentity, load_identity

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
        self._tally = Tally()
        observe = self._tally.served.add
        streams = AppStreams(config.docker_socket, lambda: self._layers.container.containers(), timeout=config.settings.health.timeout)
        self._routes = routes(self, observe, streams.dialogues(observe))
        self._layers = Layers(
            config,
            self._release,
            identity=self._proof,
            health=self.health,
            service=self._routes,
            wall_clock=wall_clock,
            tally=self._tally,
            streams=streams,
        )
        self._metrics = self._make_metrics()
        self._coordinator: Coordinator | None = None
        self._vitals = Vitals(
            config,
            self._layers,
            expires=self._expires,
            metrics=self._metrics.report,
            wall_clock=wall_clock,
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
            await self._layers.consistency.hand_over()
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
            return supervised(self._layers.managed[name], *needs, optional=optional)

        def supervised(managed: Managed, *needs: str, optional: bool = False) -> Phase:
            async def start() -> None:
                try:
                    await managed.initialize()
                except Exception:
                    if optional:
                        managed.start(tasks, self._die)
                    raise
                managed.start(tasks, self._die)

            async def undo() -> None:
                if managed.name == "orchestration":
                    self._layers.orchestration.say_good_bye()
                await managed.stop()

            return Phase(managed.name, start, undo, needs, optional)

        return [
            Phase("identity", self._prove_identity),
            layer("transport", "identity"),
            layer("consensus", "transport"),
            layer("container", "identity", optional=True),
            layer("security", "identity", optional=True),
            layer("network", "consensus", optional=True),
            layer("images", "identity", optional=True),
            layer("apps", "consensus"),
            layer("registry", "consensus"),
            layer("orchestration", "registry"),
            Phase("api", self._open_socket, self._close_socket, ("transport",)),
            supervised(self._metrics, "identity", optional=True),
        ]

    async def _prove_identity(self) -> None:
        for directory, mode in ((self._config.data_dir, 0o700), (self._config.socket.parent, 0o755)):
            try:
                directory.mkdir(mode=mode, parents=True, exist_ok=True)
            except OSError as error:
                raise InitializationFailed(f"{directory} cannot be made: {error.strerror}", fix=f"ls -ld {directory}") from error
        self._identity = load_identity(
            self._config.pki_dir, cluster=self._config.cluster_id, node=self.name, now=datetime.fromtimestamp(self.wall_clock(), UTC)
        )
        self._layers.set_peers()

    def _proof(self) -> NodeIdentity:
        assert self._identity is not None
        return self._identity

    def _expires(self) -> datetime | None:
        return self._identity.expires if self._identity else None

    def _make_metrics(self) -> Managed:
        settings = self._config.settings.health
        monitoring = Monitoring(
            self._config,
            self._layers,
            self._tally,
            report=self.report,
            expires=self._expires,
            stopping=self._stopping.is_set,
            started=self.wall_clock() - self.age(),
        )
        return Managed(monitoring, check_interval=settings.interval, check_timeout=settings.timeout)

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

    # --- what is answered

    @property
    def cluster(self) -> ClusterView:
        return self._layers.cluster

    @property
    def changes(self) -> Changes:
        return self._layers.changes

    @property
    def keys(self) -> Keys:
        return self._layers.keys

    @property
    def locks(self) -> Locks:
        return self._layers.locks

    @property
    def apps(self) -> AppSide:
        return self._layers.apps

    @property
    def voting(self) -> Voting:
        return self._layers.voting

    @property
    def raising(self) -> Raising:
        return self._layers.raising

    @property
    def consistency(self) -> Consistency:
        return self._layers.consistency

    @property
    def watches(self) -> Watches:
        return self._layers.watches

    @property
    def forwarding(self) -> Forwarding:
        return self._layers.forwarding

    @property
    def registry(self) -> RegistryLayer:
        return self._layers.registry

    @property
    def chronicle(self) -> Chronicle:
        return self._layers.chronicle

    @property
    def news(self) -> Waiters:
        return self._layers.news

    def age(self) -> float:
        return time.monotonic() - self._born

    def health(self) -> Health:
        return health.judge(self._vitals.checks())

    async def form(self, request: FormRequest) -> Formation:
        if self._layers.control is None:
            raise InvalidRequest(f"{self.name} is a worker: it does not form clusters")
        return await self._layers.control.voter.form(request)

    def _raft_report(self) -> RaftReport:
        control = self._layers.control
        said = self.cluster.report()
        return said if control is None else msgspec.structs.replace(said, divergences=control.comparison.divergences)

    def report(self) -> NodeReport:
        checks = self._vitals.checks()
        condition = health.judge(checks)
        return NodeReport(
            cluster=self._config.cluster_id,
            name=self.name,
            address=self._config.address,
            role=self._config.role,
            release=self._release,
            uptime_seconds=round(self.age(), 3),
            health_score=condition.score,
            reasons=list(condition.reasons),
            containers=self._layers.container.running,
            components={name: managed.report() for name, managed in self._layers.managed.items()},
            raft=self._raft_report(),
            formed=self.cluster.formed,
            members=[self.cluster.nodes[name] for name in sorted(self.cluster.nodes)],
            peers=self._layers.transport.reports(),
            phases=list(self._coordinator.timeline) if self._coordinator else [],
            unix_time=self.wall_clock(),
            checks=checks,
            mutes=[self.cluster.mutes[key] for key in sorted(self.cluster.mutes)],
            maintenance=[self.cluster.maintenance[target] for target in sorted(self.cluster.maintenance)],
            security=self._layers.security.report(),
            index=self.cluster.index,
            apps=self._config.apps,
            unpublished=self._layers.apps.network.unpublished,
        )
