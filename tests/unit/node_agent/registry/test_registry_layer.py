"""The shells: what a node tells and when, and what the leader does about it. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from hmcore.api import InstancesReply
from hmcore.errors import InvalidRequest, NoQuorum, PeerUnreachable
from hmcore.records import Cluster, ComponentReport, ComponentState, Instance, InstanceHealth, Node, Role
from node_agent.consensus.statemachine.commands import ExpireInstances, PutInstances, decode, encode
from node_agent.consensus.statemachine.machine import Entry, State, apply
from node_agent.container.info import ContainerInfo
from node_agent.registry.layer import SETTLING, RegistryLayer
from node_agent.registry.own import Place
from node_agent.registry.replication import Replication

H = InstanceHealth
S = ComponentState
TTL, REFRESH = 60.0, 20.0


class Log:
    """A replicated log that accepts everything at once, while `quorum` lasts; and the view that a node has of it."""

    def __init__(self) -> None:
        members = {name: Node(name=name, address="10.0.0.1", port=7443, role=Role.CONTROL, release="r1") for name in ("node1", "node2")}
        self.state = State(cluster=Cluster(id="hm-abc123defg", bootstrap="b1"), nodes=members)
        self.is_leader = True
        self.quorum = True
        self.commands: list[object] = []

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        await asyncio.sleep(0.002)
        if not self.quorum:
            raise NoQuorum("no quorum: 1 of 3 voters reachable")
        self.commands.append(decode(command))
        state, result = apply(self.state, command, Entry(self.state.index + 1))
        self.state = msgspec.structs.replace(state, index=self.state.index + 1)
        return self.state.index, result

    index = property(lambda self: self.state.index)
    cluster = property(lambda self: self.state.cluster)
    nodes = property(lambda self: self.state.nodes)
    registrations = property(lambda self: self.state.registrations)
    maintenance = property(lambda self: self.state.maintenance)


class Bench:
    """node1, which leads; node2's answers are `other`."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.log = Log()
        self.components = {"transport": S.RUNNING, "registry": S.RUNNING}
        self.containers: dict[str, ContainerInfo] | None = {}
        self.unwatched: dict[str, str] = {}
        self.other: InstancesReply | Exception = PeerUnreachable("no route")
        self.pulls = 0
        self.replication = Replication(
            cluster=self.log,  # type: ignore[arg-type]
            ttl=TTL,
            pull=self._pull,
            propose_timeout=1.0,
            request_prefix=lambda: "node1-1",
            clock=self.loop.time,
        )
        self.layer = RegistryLayer(
            Place("node1", "10.0.0.1", 7443, "r1"),
            refresh=REFRESH,
            cluster=self.log,  # type: ignore[arg-type]
            components=lambda: {name: ComponentReport(state=state) for name, state in self.components.items()},
            containers=lambda: self.containers,
            unwatched=lambda: self.unwatched,
            incarnation=lambda: 1,
            latency_ms=dict,
            failures=dict,
            replication=self.replication,
            clock=self.loop.time,
        )

    async def _pull(self, name: str) -> InstancesReply:
        self.pulls += 1
        if name == "node1":
            return self.layer.instances()
        await asyncio.sleep(0.01)
        if isinstance(self.other, Exception):
            raise self.other
        return self.other

    async def beats(self, seconds: float) -> None:
        """node1's own heartbeats, every half second."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            revision = self.layer.renewal()
            if revision is not None:
                self.layer.heard("node1", 1, revision)
            await asyncio.sleep(0.5)

    def start(self, name: str, state: str = "running") -> None:
        assert self.containers is not None
        self.containers = {**self.containers, name: ContainerInfo(id=name * 12, name=name, service="shop/web", state=state)}
        self.layer.changed()

    def told(self) -> dict[str, InstanceHealth]:
        registered = self.log.registrations.get("node1")
        return {one.id: one.health for one in registered.instances} if registered else {}

    @property
    def puts(self) -> int:
        return sum(isinstance(command, PutInstances) for command in self.log.commands)


@pytest.fixture
def play(virtual) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def whole() -> None:
            bench = Bench()
            await bench.layer.initialize()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(bench.layer.run())
                await scenario(bench)
                running.cancel()
            await bench.layer.stop()

        virtual(whole())

    return run


def test_what_a_node_runs_gets_into_the_log_once(play):
    async def scenario(bench: Bench) -> None:
        await bench.beats(1)
        assert bench.told() == {"node1/transport": H.HEALTHY, "node1/registry": H.HEALTHY}
        await bench.beats(100)
        assert (bench.puts, len(bench.log.commands)) == (1, 1), "renewals are not written"
        bench.start("web")
        await bench.beats(1)
        assert bench.told()["node1/web"] is H.HEALTHY
        bench.containers = {}
        bench.layer.changed()
        await bench.beats(5)
        assert "node1/web" not in bench.told()
        assert bench.puts == 3
        assert await bench.layer.check() is None

    play(scenario)


def test_a_starting_node_waits_until_it_knows_what_it_runs(play):
    async def scenario(bench: Bench) -> None:
        bench.components["container"] = S.INITIALIZING
        with pytest.raises(InvalidRequest, match="still starting"):
            bench.layer.instances()
        await bench.beats(2)
        assert bench.told() == {}
        bench.components["container"] = S.RUNNING
        bench.start("web")
        await bench.beats(1)
        assert set(bench.told()) == {"node1/transport", "node1/registry", "node1/container", "node1/web"}

    play(scenario)


def test_it_does_not_wait_for_ever(play):
    async def scenario(bench: Bench) -> None:
        bench.components["container"] = S.INITIALIZING
        await bench.beats(SETTLING + 1)
        assert bench.told()["node1/container"] is H.UNKNOWN

    play(scenario)


def test_containers_stay_as_unknown_while_docker_is_away(play):
    async def scenario(bench: Bench) -> None:
        bench.start("web")
        await bench.beats(2)
        bench.containers = None
        bench.layer.changed()
        await bench.beats(2)
        assert bench.told()["node1/web"] is H.UNKNOWN
        bench.containers = {}
        bench.start("web")
        await bench.beats(4)
        assert bench.told()["node1/web"] is H.HEALTHY

    play(scenario)


def test_flapping_does_not_flood_the_log_and_its_end_is_told(play):
    async def scenario(bench: Bench) -> None:
        for number in range(600):
            bench.start("web", "running" if number % 2 else "exited")
            await asyncio.sleep(0.1)
            if number % 5 == 0:
                await bench.beats(0.1)
        flapped = bench.puts
        assert flapped <= 12
        bench.start("web", "running")
        await bench.beats(90)
        assert bench.told()["node1/web"] is H.HEALTHY
        assert bench.puts <= flapped + 1

    play(scenario)


def test_a_lost_heartbeat_is_made_up_for_by_the_next(play):
    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(0.1)
        assert bench.layer.renewal() is not None
        assert bench.layer.renewal() is not None  # the log does not have it yet
        await bench.beats(1)
        assert bench.layer.renewal() is None
        await asyncio.sleep(REFRESH)
        assert bench.layer.renewal() is not None

    play(scenario)


def test_what_has_expired_is_renewed_by_the_next_heartbeat(play):
    async def scenario(bench: Bench) -> None:
        await bench.beats(1)
        assert bench.layer.renewal() is None
        made = bench.log.registrations["node1"]
        late = ExpireInstances(node="node1", revision=made.revision, reason="not renewed for 60 s")
        await bench.log.propose(encode(late), request_id="r", timeout=1.0)
        await bench.beats(2)
        assert bench.log.registrations["node1"].expired == ""

    play(scenario)


def test_what_is_asked_for_and_turns_out_to_be_known_is_not_written(play):
    """The heartbeat before the last one comes late: the leader asks, and hears what it has already."""

    async def scenario(bench: Bench) -> None:
        await bench.beats(1)
        bench.layer.heard("node1", 1, 99)
        await asyncio.sleep(5)
        assert (bench.pulls, bench.puts) == (2, 1)

    play(scenario)


def test_others_are_asked_again_ever_later_and_the_trouble_shows(play):
    async def scenario(bench: Bench) -> None:
        await bench.beats(1)
        bench.layer.heard("node2", 1, 99)
        await asyncio.sleep(60)
        assert 4 <= bench.pulls <= 10
        assert "the instances of node2 cannot be copied: no route" in (await bench.layer.check() or "")
        bench.other = InstancesReply(revision=99, incarnation=1, instances=[])
        await asyncio.sleep(20)
        assert bench.log.registrations["node2"].revision == 99
        assert await bench.layer.check() is None

    play(scenario)


def test_the_trouble_is_over_when_the_node_has_told_its_instances_itself(play):
    """Which an agent that starts does, while it still refuses to be asked."""

    async def scenario(bench: Bench) -> None:
        await bench.beats(1)
        bench.layer.heard("node2", 1, 98)
        await asyncio.sleep(60)
        assert await bench.layer.check() is not None
        bench.layer.heard("node2", 2, 99)
        told = PutInstances(node="node2", incarnation=2, revision=99, instances=())
        await bench.log.propose(encode(told), request_id="r", timeout=1.0)
        bench.layer.records_changed()
        await asyncio.sleep(0.1)
        assert await bench.layer.check() is None

    play(scenario)


def test_a_node_speaks_for_nobody_else(play):
    async def scenario(bench: Bench) -> None:
        for id, node in (("node1/web", "node2"), ("node2/web", "node1"), ("node2web", "node2")):
            foreign = Instance(id=id, service="x", node=node, address="10.0.0.1")
            bench.other = InstancesReply(revision=99, incarnation=1, instances=[foreign])
            bench.layer.heard("node2", 1, 99)
            await asyncio.sleep(20)
        assert "node2" not in bench.log.registrations

    play(scenario)


def test_without_a_quorum_it_tries_on_without_spinning(play):
    async def scenario(bench: Bench) -> None:
        bench.log.quorum = False
        await bench.beats(60)
        assert bench.pulls <= 12
        bench.log.quorum = True
        await bench.beats(20)
        assert bench.told()

    play(scenario)


def test_expiry_without_a_quorum_does_not_spin_either(play):
    async def scenario(bench: Bench) -> None:
        await bench.beats(1)
        bench.log.quorum = False
        proposals = bench.replication._requests
        await asyncio.sleep(TTL + 60)
        assert 3 <= bench.replication._requests - proposals <= 12

    play(scenario)


def test_who_does_not_lead_only_listens(play):
    async def scenario(bench: Bench) -> None:
        bench.log.is_leader = False
        await bench.beats(TTL * 3)
        assert (bench.log.commands, bench.pulls) == ([], 0)
        bench.log.is_leader = True
        bench.layer.poke()
        await bench.beats(1)
        assert bench.told()

    play(scenario)


def test_a_list_that_is_too_long_is_cut_and_said(play, caplog):
    async def scenario(bench: Bench) -> None:
        bench.containers = {f"{n}": ContainerInfo(id=f"{n:064x}", name=f"w{n}", service="x", image="i" * 250) for n in range(3000)}
        bench.layer.changed()
        await bench.beats(4)
        assert "containers are not registered" in (await bench.layer.check() or "")
        assert 1000 < len(bench.told()) < 3000

    play(scenario)
    assert "more than the registry can carry" in caplog.text


def test_that_a_container_is_not_watched_is_told_when_it_is_found(play):
    def attributes(bench: Bench) -> dict[str, str]:
        return {one.id: one.attributes for one in bench.log.registrations["node1"].instances}["node1/a"]

    async def scenario(bench: Bench) -> None:
        bench.start("a")
        await bench.beats(3)
        assert "unwatched" not in attributes(bench)
        bench.unwatched = {"a" * 12: "outside hypermesh.slice (--cgroup-parent)"}
        bench.layer.changed()
        await bench.beats(3)
        assert attributes(bench)["unwatched"] == "outside hypermesh.slice (--cgroup-parent)"
        assert bench.told()["node1/a"] is H.HEALTHY

    play(scenario)
