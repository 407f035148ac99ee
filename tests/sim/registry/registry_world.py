"""A cluster's registry in virtual time: the real layers and the real state machine, with a log and a network that a plan of faults breaks.

Membership is played here: a node is suspect after two seconds of silence, down after four, back with its next heartbeat.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from hmcore.api import InstancesReply
from hmcore.errors import NotLeader, PeerUnreachable
from hmcore.records import Cluster, ComponentReport, ComponentState, InstanceHealth, Node, NodeState, Role
from node_agent.consensus.statemachine.commands import Command, ExpireInstances, PutInstances, decode, encode
from node_agent.consensus.statemachine.machine import Entry, State, apply
from node_agent.container.info import ContainerInfo
from node_agent.registry.layer import RegistryLayer
from node_agent.registry.own import Place
from node_agent.registry.replication import Replication

BEAT, SUSPECT, DOWN = 0.5, 2.0, 4.0
TTL, REFRESH = 12.0, 4.0
SERVICE = "shop/web"


class _Selector(selectors.DefaultSelector):
    slept = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen again"
            self.slept += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.slept


def run_virtually(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(main)


class Agent:
    """One node: its agent's current life, if any. The containers outlive it, as they do."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.incarnation = 0
        self.containers: dict[str, ContainerInfo] = {}
        self.cut = False  # its messages are lost
        self.died: float | None = 0.0
        self.quiet_since = 0.0  # the last moment at which its heartbeats may not have come through
        self.changes = 0  # of what it runs
        self.layer: RegistryLayer | None = None
        self._task: asyncio.Task[None] | None = None
        self.set("web", "running")

    # the view of the log that its layers have

    @property
    def is_leader(self) -> bool:
        return self.world.leader == self.name

    index = property(lambda self: self.world.state.index)
    cluster = property(lambda self: self.world.state.cluster)
    nodes = property(lambda self: self.world.state.nodes)
    registrations = property(lambda self: self.world.state.registrations)
    maintenance = property(lambda self: self.world.state.maintenance)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        await asyncio.sleep(self.world.chance.uniform(0.001, 0.05))
        if not self.is_leader:
            raise NotLeader(f"{self.name} does not lead", leader=self.world.leader)
        return self.world.apply(decode(command))

    # its life

    def set(self, container: str, state: str) -> None:
        self.containers = {**self.containers, container: ContainerInfo(id=container * 12, name=container, service=SERVICE, state=state)}
        self.changes += 1
        if self.layer is not None:
            self.layer.changed()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        if self.layer is not None:
            return
        self.incarnation += 1
        self.changes += 1
        self.died, self.quiet_since = None, self.world.now
        replication = Replication(
            cluster=self,  # type: ignore[arg-type]
            ttl=TTL,
            pull=self._pull,
            propose_timeout=1.0,
            request_prefix=lambda: f"{self.name}-{self.incarnation}",
            clock=lambda: self.world.now,
        )
        self.layer = RegistryLayer(
            Place(self.name, "10.0.0.1", 7443, "r1"),
            refresh=REFRESH,
            cluster=self,  # type: ignore[arg-type]
            components=lambda: {"registry": ComponentReport(state=ComponentState.RUNNING)},
            containers=lambda: self.containers,
            incarnation=lambda: self.incarnation,
            latency_ms=dict,
            failures=dict,
            replication=replication,
            clock=lambda: self.world.now,
        )
        self._task = tasks.create_task(self._live(self.layer), name=self.name)

    async def _live(self, layer: RegistryLayer) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(layer.run())
            while True:
                self.world.beat(self, layer.renewal())
                layer.poke()
                await asyncio.sleep(BEAT)

    def crash(self) -> None:
        if self._task is not None and self.layer is not None:
            self._task.cancel()
            self.layer, self._task, self.died = None, None, self.world.now

    async def _pull(self, name: str) -> InstancesReply:
        other = self.world.agents[name]
        await asyncio.sleep(self.world.chance.uniform(0.001, 0.2))
        if other.layer is None or ((other.cut or self.cut) and other is not self):
            await asyncio.sleep(1.0)
            raise PeerUnreachable("no answer", host=name)
        return other.layer.instances()

    @property
    def well(self) -> bool:
        return self.layer is not None and not self.cut


class World:
    def __init__(self, names: list[str], seed: int) -> None:
        self.chance = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.state = State(cluster=Cluster(id="hm-abc123defg", bootstrap="b1"))
        self.leader: str | None = names[0]
        self.loss = 0.0
        self.heard: dict[str, float] = {}
        self.written: list[Command] = []
        self.agents = {name: Agent(self, name) for name in names}

    @property
    def now(self) -> float:
        return self.loop.time()

    def apply(self, command: Command) -> tuple[int, bytes]:
        if isinstance(command, PutInstances | ExpireInstances):
            self._must_be_true(command)
            self.written.append(command)
        state, result = apply(self.state, encode(command), Entry(self.state.index + 1))
        self.state = replace(state, index=self.state.index + 1)
        return self.state.index, result

    def _must_be_true(self, command: Command) -> None:
        """Nobody who could renew all the time is expired: a lost heartbeat or two, or another leader, are no reason."""
        if isinstance(command, ExpireInstances) and command.reason:
            agent = self.agents[command.node]
            assert not (agent.well and self.now - agent.quiet_since > TTL), f"{command.node} is well since {agent.quiet_since}"

    def beat(self, agent: Agent, revision: int | None) -> None:
        """A heartbeat to every node. Those that get lost say nothing to anybody."""
        if agent.cut:
            agent.quiet_since = self.now
            return
        for other in self.agents.values():
            if other.layer is None or (other.cut and other is not agent):
                continue
            if other is not agent and self.chance.random() < self.loss:
                agent.quiet_since = self.now
                continue
            if other.name == self.leader:
                self.heard[agent.name] = self.now
            if revision is not None:
                other.layer.heard(agent.name, agent.incarnation, revision)

    async def membership(self) -> None:
        """What the leader does about liveness, as soon as there is one."""
        while True:
            await asyncio.sleep(0.1)
            leader = self.agents.get(self.leader or "")
            if leader is None or leader.layer is None:
                continue
            for name in self.agents:
                silence = self.now - self.heard.get(name, -DOWN)
                known = self.state.nodes.get(name)
                wanted = NodeState.READY if silence < SUSPECT else NodeState.SUSPECT if silence < DOWN else NodeState.DOWN
                if (known is None and wanted is NodeState.READY) or (known is not None and known.state is not wanted):
                    node = Node(name=name, address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1", state=wanted)
                    self.state = replace(self.state, nodes={**self.state.nodes, name: node}, index=self.state.index + 1)

    def elect(self, name: str | None) -> None:
        """The new one has heard everybody all along; it gives them their time anew."""
        self.leader = name
        self.heard = dict.fromkeys(self.state.nodes, self.now)

    async def watch(self) -> None:
        """At every moment: who has been dead for longer than it takes to be suspect gets no call from anybody."""
        while True:
            await asyncio.sleep(0.25)
            leader = self.agents.get(self.leader or "")
            if leader is None or leader.layer is None:
                continue
            gone = {
                agent.name
                for agent in self.agents.values()
                if agent.died is not None and self.now - max(agent.died, self.heard.get(agent.name, 0.0)) > SUSPECT + 0.5
            }
            for chosen in leader.layer.catalogue.pool(SERVICE).members:
                assert chosen.instance.node not in gone, f"{chosen.instance.id} resolves though its node is dead"

    def settled(self) -> None:
        """The replicated instances are those that each living node tells, and nobody vouches for the dead."""
        assert self.leader is not None
        for agent in self.agents.values():
            registered = self.state.registrations.get(agent.name)
            if agent.layer is None:
                assert registered is None or registered.expired, f"{agent.name} is dead and still counts"
                continue
            assert registered is not None, f"{agent.name} was never registered"
            assert not registered.expired, f"{agent.name} lives and counts as expired: {registered.expired}"
            assert list(registered.instances) == agent.layer.instances().instances, agent.name
            health = {one.id: one.health for one in registered.instances}
            for name, info in agent.containers.items():
                wanted = InstanceHealth.HEALTHY if info.running else InstanceHealth.UNHEALTHY
                assert health[f"{agent.name}/{name}"] is wanted, f"{agent.name} runs {info}, registered is {health}"
