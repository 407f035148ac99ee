"""What this node has for apps, made and wired to each other: their containers, the images, secrets and the network that these need, and the
calls about them. Beside layers.py, which knows the rest of the agent."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from hmcore.api import ChangeReply, Method
from hmcore.apps.calls import LEASE, TELL, LeaseReply, LeaseRequest, TellRequest
from hmcore.apps.secrets import ENROL, FETCH, UNLOCK, EnrolRequest, FetchReply, FetchRequest, UnlockReply, UnlockRequest
from hmcore.apps.subnets import gateway
from hmcore.config.agent import AgentConfig
from hmcore.errors import NotLeader
from hmcore.images.calls import HOLD_IMAGE, HoldImageRequest
from hmcore.pki import Identity, Kind
from hmcore.stoq.mtls import Credentials
from node_agent.consensus.statemachine.state import State
from node_agent.container.creation import NodeFacts
from node_agent.container.draining import ROUND
from node_agent.container.executor import AllFiles
from node_agent.container.fencing.fence import boot_of
from node_agent.container.fencing.keeper import Keeper
from node_agent.container.files import LaidFiles
from node_agent.container.info import ContainerInfo
from node_agent.container.layer import ContainerLayer
from node_agent.container.resolvconf_files import LaidResolvConf
from node_agent.container.supply import Supply
from node_agent.container.telling import Telling
from node_agent.container.workload import Workload
from node_agent.network import docker
from node_agent.network.layer import NetworkLayer
from node_agent.network.wanted import Known, Wanted, wanted
from node_agent.orchestration.cluster import ClusterView
from node_agent.platform.apps import Apps
from node_agent.platform.appstreams import AppStreams
from node_agent.platform.changes import Changes
from node_agent.platform.control import Control
from node_agent.platform.images import Images
from node_agent.platform.secrets import Secrets
from node_agent.registry.registry import Catalogue
from node_agent.security import placement
from node_agent.transport.identity import NodeIdentity
from node_agent.transport.layer import TransportLayer, listening_address
from node_agent.vault.fetching import Fetching

Req = TypeVar("Req")
Res = TypeVar("Res")


class Around(Protocol):
    """What the rest of the agent is, as far as it matters here (layers.Layers)."""

    @property
    def cluster(self) -> ClusterView: ...
    @property
    def container(self) -> ContainerLayer: ...
    @property
    def transport(self) -> TransportLayer: ...
    @property
    def control(self) -> Control | None: ...
    @property
    def changes(self) -> Changes: ...
    def catalogue(self) -> Catalogue:
        """All instances, as of now."""

    async def barrier(self) -> None:
        """Done once this node's state has all that was acknowledged before."""

    def reachable_control_nodes(self) -> list[str]: ...
    def incarnation_value(self) -> int: ...
    def instances_changed(self) -> None:
        """Some container is to be told otherwise."""

    def network_troubled(self) -> None:
        """What the containers' network says of itself is something else."""

    def apps_open(self) -> None:
        """Replicas can be placed here from now on."""


class AppSide:
    """`network`, `images` and `workload` are components."""

    def __init__(self, config: AgentConfig, around: Around, *, identity: Callable[[], NodeIdentity], streams: AppStreams) -> None:
        """`identity` is asked once the identity phase is over."""
        self._config = config
        self._around = around
        self._identity = identity
        self._me = Identity(config.cluster_id, Kind.NODE, config.node)
        self._parent = placement.here()
        self._network_seen: tuple[object, ...] = ()
        control = around.control
        self.telling = Telling(self._tell, incarnation=around.incarnation_value, on_open=around.apps_open)
        self.fetching = Fetching(config.node, self._fetch, control_nodes=around.reachable_control_nodes)
        self.network = NetworkLayer(
            config.settings.network,
            config.cluster_id,
            wanted=self._network_wanted,
            networks=lambda: around.container.engine,
            on_bridge=lambda: self.workload.poke(),  # made later
            on_ports=lambda: self.workload.ports_changed(),
            on_trouble=around.network_troubled,
        )
        self.images = Supply(
            self._me,
            config.data_dir / "blobs",
            listen=(listening_address(config.address), config.port),
            credentials=self._credentials,
            view=around.cluster,
            docker=lambda: around.container.images,
            tell=self._hold,
            registries=self.fetching.credentials,
        )
        self.files = LaidFiles(config.socket.parent / "files", wanted=lambda: self.workload.wanted, fetch=self.fetching.value)
        self.resolvers = LaidResolvConf(config.socket.parent / "resolv", facts=self._facts, wanted=lambda: self.workload.wanted)
        self.fencing = Keeper(
            config.socket.parent / "fence",
            self._lease,
            lease=config.settings.fencing.lease,
            known=lambda: self.workload.as_of,
            on_change=lambda: self.workload.poke(),
            boot=lambda: boot_of(config.socket.parent / "fence"),
        )
        self.workload = Workload(
            config.node,
            view=around.cluster,
            layer=around.container,
            facts=self._facts,
            images=self.images.images,
            files=AllFiles(self.files, self.resolvers),
            telling=self.telling,
            fencing=self.fencing,
            ports=lambda: self.network.given if self.network.managed else {},
            on_change=around.instances_changed,
            apps=config.apps,
            before_removal=streams.logs.remember,
        )
        self._streams = streams
        self.calls = Apps(
            config.node,
            around.changes,
            state=self._state,
            leader=self._leader,
            barrier=around.barrier,
            waits=lambda: {} if control is None else control.apps.waits,
        )
        self.image_calls = Images(
            config.node, around.changes, state=self._state, leader=self._leader, barrier=around.barrier, pin=self.images.pinning.pin
        )
        self.secret_calls = Secrets(
            config.node,
            around.changes,
            state=self._state,
            leader=self._leader,
            barrier=around.barrier,
            holder=None if control is None else control.vault_holder,
            keeper=None if control is None else control.vault_keeper,
        )

    def _state(self) -> State | None:
        control = self._around.control
        return None if control is None else control.voter.state

    def _leader(self) -> str | None:
        return self._around.cluster.leader

    async def told(self, request: TellRequest, node: str) -> ChangeReply:
        """By a node, of itself. Raises what Told.tell does."""
        control = self._around.control
        if control is None:
            raise NotLeader(f"{self._config.node} is a worker and leads nobody", leader=self._leader())
        return await control.told.tell(request, node)

    async def granted(self, request: LeaseRequest, node: str) -> LeaseReply:
        """To a node, at its own word. Raises what Granter.grant does."""
        control = self._around.control
        if control is None:
            raise NotLeader(f"{self._config.node} is a worker and leads nobody", leader=self._leader())
        return await control.granter.grant(request, node)

    # --- what happens

    def state_changed(self) -> None:
        """Something was applied."""
        self.workload.state_changed()
        self.images.state_changed()
        view = self._around.cluster
        seen = (view.nodes, view.subnets, view.generations, view.registrations, view.maintenance)
        if len(self._network_seen) != len(seen) or any(new is not old for new, old in zip(seen, self._network_seen, strict=True)):
            self._network_seen = seen
            self.network.poke()

    def containers_changed(self) -> None:
        self.workload.containers_changed()
        self._streams.containers_changed()
        self.network.poke()

    def containers(self) -> Mapping[str, ContainerInfo]:
        """Ours, as the registry shall know them."""
        return self.workload.containers()

    # --- what the components ask

    def _facts(self) -> NodeFacts | None:
        """What all containers here have in common; None while that is not known, or the network is not there."""
        driver, own = self._around.container.cgroup_driver, self._around.cluster.subnets.get(self._config.node)
        if not driver or own is None or not self.network.bridged:
            return None
        return NodeFacts(
            self._config.cluster_id,
            network=docker.NAME if self.network.managed else "bridge",
            dns=gateway(own.cidr) if self.network.managed else "",
            cgroup_parent=placement.for_driver(self._parent, driver),
            files=str(self._config.socket.parent / "files"),
            resolvers=str(self._config.socket.parent / "resolv"),
            gates=str(self._config.socket.parent / "fence" / "open"),
            address=self._config.address,
            margin=self._config.settings.raft.heartbeat + ROUND,  # followers hear by the next one that something is agreed on
        )

    def _network_wanted(self) -> Wanted | None:
        view = self._around.cluster
        if not view.nodes:
            return None
        known = Known(view.nodes, view.subnets, view.generations, self._around.catalogue(), self._around.container.containers().values())
        return wanted(self._config.node, self._config.settings.network.cidr, known)

    def _credentials(self) -> Credentials:
        proof = self._identity()
        return Credentials(ca=proof.ca, certificate=proof.certificate, key=proof.key)

    # --- what goes to control nodes

    async def _tell(self, request: TellRequest) -> None:
        await self._to_leader(TELL, request, lambda: self.told(request, self._config.node))

    async def _lease(self, request: LeaseRequest) -> LeaseReply:
        return await self._to_leader(LEASE, request, lambda: self.granted(request, self._config.node))

    async def _hold(self, image: str, holds: bool) -> None:
        request = HoldImageRequest(id=f"hold-{secrets.token_hex(8)}", image_id=image, holds=holds)
        await self._to_leader(HOLD_IMAGE, request, lambda: self.image_calls.hold(request, self._me))

    async def enrol(self, request: EnrolRequest) -> ChangeReply:
        return await self._to_leader(ENROL, request, lambda: self.secret_calls.enrol(request, self._me))

    async def unlock(self, node: str, request: UnlockRequest) -> UnlockReply:
        return await self._call(node, UNLOCK, request)

    async def _fetch(self, node: str, request: FetchRequest) -> FetchReply:
        if node == self._config.node:
            return await self.secret_calls.fetch(request, self._me)
        return await self._call(node, FETCH, request)

    async def _to_leader(self, method: Method[Req, Res], request: Req, here: Callable[[], Awaitable[Res]]) -> Res:
        """`here` answers when we lead ourselves."""
        leader = self._around.cluster.leader
        if leader is None:
            raise NotLeader("nobody is known to lead", leader=None)
        if leader == self._config.node:
            return await here()
        return await self._call(leader, method, request)

    async def _call(self, node: str, method: Method[Req, Res], request: Req) -> Res:
        return await self._around.transport.call(node, method, request, timeout=self._config.settings.calls.timeout)
