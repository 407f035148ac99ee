"""The shells round the pure decisions: heartbeats go out, the leader proposes what follows from them, and never spins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hostile_bytes import everything, nothing_is_opened

from hmcore.api import Formation, Heartbeat
from hmcore.config.settings import Membership
from hmcore.errors import NoQuorum
from hmcore.records import Cluster, Event, Node, NodeState, RaftReport, Role
from node_agent.consensus.statemachine.machine import Entry, FormCluster, Refused, State, apply, encode_result
from node_agent.orchestration.advance import Known
from node_agent.orchestration.controller import Leader, Orchestration
from node_agent.orchestration.pulse import Incarnation, Myself, Pulse
from node_agent.platform.health import Health

TIMING = Membership()
FORMATION = FormCluster(id="hm-abc123defg", bootstrap="b1")


class Log:
    """A replicated log that accepts everything at once, while `quorum` lasts. Also the view that a node has of it."""

    def __init__(self) -> None:
        self.state = State()
        self.leads = True
        self.quorum = True
        self.refuses = ""
        self.attempts = 0
        self.requests: list[str] = []
        self.voters = ["node1"]

    async def propose(self, command: bytes, *, request_id: str, timeout: float) -> tuple[int, bytes]:
        self.attempts += 1
        self.requests.append(request_id)
        await asyncio.sleep(0.002)
        if not self.quorum:
            raise NoQuorum("no quorum: 1 of 3 voters reachable")
        if self.refuses:
            return self.state.index, encode_result(Refused(self.refuses))
        self.state, result = apply(self.state, command, Entry(self.state.index + 1))
        self.state = msgspec.structs.replace(self.state, index=self.state.index + 1)
        return self.state.index, result

    index = property(lambda self: self.state.index)
    cluster: Cluster | None = property(lambda self: self.state.cluster)  # type: ignore[assignment]
    nodes = property(lambda self: self.state.nodes)
    events: tuple[Event, ...] = ()
    leader = property(lambda self: "node1" if self.leads else None)
    is_leader = property(lambda self: self.leads)
    formed = True

    def formation(self) -> Formation:
        raise NotImplementedError

    def report(self) -> RaftReport:
        return RaftReport(role="leader", leader="node1", voters=self.voters)


class Bench:
    """node1, as a control node, with everything that leaves it recorded."""

    def __init__(self, directory: Path, *, leading: bool = True, role: Role = Role.CONTROL) -> None:
        self.loop = asyncio.get_running_loop()
        self.log = Log()
        self.log.leads = leading
        self.sent: list[tuple[float, str, Heartbeat]] = []
        self.told: list[tuple[str, Heartbeat]] = []
        self.health = Health(1.0)
        self.leader_changes = 0
        me = Myself("node1", "10.0.0.1", 7443, role, "r1", {"zone": "a"}, level=2)
        self.incarnation = Incarnation(directory / "incarnation", lambda: 1000.0)
        self.leader = Leader(
            me="node1",
            formation=FORMATION,
            cluster=self.log,
            timing=TIMING,
            propose_timeout=1,
            request_prefix=lambda: f"node1-{self.incarnation.value}",
            clock=self.loop.time,
            on_hashes=lambda name, beat: self.told.append((name, beat)),
        )
        self.orchestration = Orchestration(
            me=me,
            incarnation=self.incarnation,
            pulse=Pulse(me, self.incarnation, lambda: self.health, self._send),
            cluster=self.log,
            control_nodes=lambda: ["node1", "node2", "node3"],
            timing=TIMING,
            leader=self.leader if role is Role.CONTROL else None,
            on_leader_change=self._leader_changed,
            clock=self.loop.time,
        )

    def _send(self, peer: str, kind: str, payload: bytes) -> bool:
        assert kind == "heartbeat"
        self.sent.append((self.loop.time(), peer, msgspec.msgpack.decode(payload, type=Heartbeat)))
        return True

    def _leader_changed(self) -> None:
        self.leader_changes += 1

    def hear(self, name: str, incarnation: int = 1, **changes: object) -> None:
        said: dict[str, object] = {"address": "10.0.0.2", "port": 7443, "role": Role.CONTROL, "release": "r1", "health_score": 1.0}
        beat = Heartbeat(incarnation=incarnation, **(said | changes))  # type: ignore[arg-type]
        self.orchestration.heard(name, msgspec.msgpack.encode(beat))

    def state_of(self, name: str) -> NodeState | None:
        node = self.log.state.nodes.get(name)
        return None if node is None else node.state


@pytest.fixture
def play(virtual, tmp_path) -> Callable[..., None]:
    """Runs a scenario against a bench whose orchestration layer runs."""

    def run(scenario: Callable[[Bench], Awaitable[None]], **kwargs: object) -> None:
        async def whole() -> None:
            bench = Bench(tmp_path, **kwargs)  # type: ignore[arg-type]
            await bench.orchestration.initialize()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(bench.orchestration.run())
                await scenario(bench)
                running.cancel()

        virtual(whole())

    return run


def test_heartbeats_reach_the_other_control_nodes_at_their_interval(play):
    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(5.1)
        to_node2 = [(at, beat) for at, peer, beat in bench.sent if peer == "node2"]
        assert {peer for _, peer, _ in bench.sent} == {"node2", "node3"}
        assert len(to_node2) == 11
        beat = to_node2[0][1]
        assert (beat.address, beat.role, beat.release, beat.labels, beat.leaving) == ("10.0.0.1", "control", "r1", {"zone": "a"}, False)
        assert beat.incarnation == 1_000_000_000

    play(scenario)


def test_a_heartbeat_that_is_nearly_due_rides_along_and_none_is_sent_twice(play):
    async def scenario(bench: Bench) -> None:
        for _ in range(100):  # other messages, five a second
            await asyncio.sleep(0.2)
            bench.orchestration.ride()
        times = [at for at, peer, _ in bench.sent if peer == "node2"]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(0.375 <= gap <= 0.501 for gap in gaps), gaps

    play(scenario)


def test_the_first_leader_forms_then_takes_everybody_in(play):
    async def scenario(bench: Bench) -> None:
        bench.hear("node2")
        await asyncio.sleep(0.1)
        assert bench.log.state.cluster == Cluster(id=FORMATION.id, bootstrap=FORMATION.bootstrap, feature_level=2)
        assert {name: node.state for name, node in bench.log.state.nodes.items()} == {"node1": "ready", "node2": "ready"}
        assert len(set(bench.log.requests)) == len(bench.log.requests)
        before = bench.log.attempts
        for _ in range(20):
            await asyncio.sleep(0.5)
            bench.hear("node2")
        assert bench.log.attempts == before, "liveness is not written"

    play(scenario)


def test_the_cluster_is_formed_at_the_level_that_all_voters_know(play):
    async def scenario(bench: Bench) -> None:
        bench.log.voters = ["node1", "node2", "node3"]
        bench.hear("node2", level=2)
        await asyncio.sleep(0.1)
        assert bench.log.state.cluster is None, "node3 has a moment to be heard"
        bench.hear("node3", level=1)
        await asyncio.sleep(0.1)
        assert bench.log.state.level == 1
        assert bench.leader.known() == Known(1, (), (("node1", 2), ("node2", 2), ("node3", 1)))

    play(scenario)


def test_a_voter_that_is_not_there_delays_the_formation_only_so_long_and_nobody_vouches_for_it(play):
    async def scenario(bench: Bench) -> None:
        bench.log.voters = ["node1", "node2", "node3"]
        for _ in range(9):
            bench.hear("node2", level=2)
            await asyncio.sleep(TIMING.suspect / 10)
        assert bench.log.state.cluster is None
        bench.hear("node2", level=2)
        await asyncio.sleep(TIMING.suspect / 10 + 0.05)
        assert bench.log.state.level == 1
        assert bench.leader.known().silent == ("node3",)

    play(scenario)


def test_hashes_of_the_state_wake_no_leader_and_are_handed_on(play):
    async def scenario(bench: Bench) -> None:
        bench.hear("node2")
        await asyncio.sleep(0.1)
        rounds: list[float] = []
        judge = bench.leader._round

        async def counted() -> float | None:
            rounds.append(bench.loop.time())
            return await judge()

        bench.leader._round = counted  # type: ignore[method-assign]
        for index in range(10, 20):
            bench.hear("node2", hashes=((index, "ab"),))
            await asyncio.sleep(0.1)
        assert rounds == []
        assert [beat.hashes for name, beat in bench.told if name == "node2"] == [(), *(((index, "ab"),) for index in range(10, 20))]

    play(scenario)


def test_silence_is_noticed_when_it_is_due_and_ends_with_the_next_heartbeat(play):
    async def scenario(bench: Bench) -> None:
        bench.hear("node2")
        await asyncio.sleep(1.9)
        assert bench.state_of("node2") is NodeState.READY
        await asyncio.sleep(0.2)
        assert bench.state_of("node2") is NodeState.SUSPECT
        await asyncio.sleep(2.0)
        assert bench.state_of("node2") is NodeState.DOWN
        bench.hear("node2")
        await asyncio.sleep(0.05)
        assert bench.state_of("node2") is NodeState.READY

    play(scenario)


def test_a_good_bye_is_down_at_once(play):
    async def scenario(bench: Bench) -> None:
        bench.hear("node2")
        await asyncio.sleep(0.1)
        bench.hear("node2", leaving=True)
        await asyncio.sleep(0.05)
        assert bench.log.state.nodes["node2"].state_reason == "stopped"

    play(scenario)


def test_who_does_not_lead_listens_and_acts_at_once_when_made_leader(play):
    async def scenario(bench: Bench) -> None:
        bench.log.state = State(cluster=Cluster(id="hm-abc123defg", bootstrap="b1"), nodes={"node3": node("node3")})
        for _ in range(16):
            bench.hear("node2")
            await asyncio.sleep(0.5)
        assert bench.log.attempts == 0
        bench.log.leads = True
        await asyncio.sleep(0.6)
        assert bench.state_of("node2") is NodeState.READY
        assert bench.state_of("node3") is NodeState.READY  # never heard: a full window from now on
        assert bench.leader_changes == 1
        for _ in range(9):
            bench.hear("node2")
            await asyncio.sleep(0.5)
        assert bench.state_of("node3") is NodeState.DOWN

    play(scenario, leading=False)


@pytest.mark.parametrize("how", ["no quorum", "refused"])
def test_what_is_not_accepted_is_tried_again_without_spinning_and_shows(play, how):
    async def scenario(bench: Bench) -> None:
        bench.log.quorum = how != "no quorum"
        bench.log.refuses = "started again since" if how == "refused" else ""
        await asyncio.sleep(10)
        assert 5 <= bench.log.attempts <= 25
        reason = await bench.orchestration.check()
        assert reason in ("no quorum: 1 of 3 voters reachable", "started again since")
        bench.log.quorum, bench.log.refuses = True, ""
        await asyncio.sleep(1)
        assert bench.state_of("node1") is NodeState.READY
        assert await bench.orchestration.check() is None

    play(scenario)


def test_who_leads_no_more_has_nothing_left_to_write(play):
    async def scenario(bench: Bench) -> None:
        bench.log.quorum = False
        await asyncio.sleep(5)
        assert await bench.orchestration.check() == "no quorum: 1 of 3 voters reachable"
        bench.log.leads = False
        await asyncio.sleep(3)
        assert await bench.orchestration.check() is None

    play(scenario)


def test_what_is_no_heartbeat_is_ignored_and_said_once(play, caplog):
    async def scenario(bench: Bench) -> None:
        for garbage in (b"", b"\xc1", b"\x00" * 100, msgspec.msgpack.encode({"address": 7}), b"\x91" * 5000):
            bench.orchestration.heard("node2", garbage)
        with nothing_is_opened(Path("/proc/self/hostile")):
            for hostile in everything(Path("/proc/self/hostile")).values():
                bench.orchestration.heard("node2", hostile)
                bench.orchestration.heard("node2", msgspec.msgpack.encode({"address": hostile}))
        await asyncio.sleep(0.1)
        assert bench.state_of("node2") is None

    play(scenario)
    assert sum("node2 sends what is no heartbeat" in record.getMessage() for record in caplog.records) == 1


def test_leaving_is_said_once_and_only_by_who_was_there(play):
    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(0.1)
        bench.orchestration.say_good_bye()
        bench.orchestration.say_good_bye()
        bench.orchestration.ride()
        await asyncio.sleep(3)
        last = [beat.leaving for _, peer, beat in bench.sent if peer == "node2"]
        assert last == [False, True]

    play(scenario)


def test_a_worker_sends_heartbeats_and_ignores_those_of_others(play):
    async def scenario(bench: Bench) -> None:
        bench.hear("node2")
        await asyncio.sleep(1)
        assert {peer for _, peer, _ in bench.sent} == {"node2", "node3"}
        assert bench.log.attempts == 0
        assert await bench.orchestration.check() is None

    play(scenario, role=Role.WORKER)


def node(name: str, incarnation: int = 1) -> Node:
    return Node(name=name, address="10.0.0.3", port=7443, role=Role.CONTROL, release="r1", incarnation=incarnation)


def test_every_start_counts_higher_even_when_the_clock_was_set_back(tmp_path):
    numbers = []
    for clock in (1000.0, 2000.0, 500.0, 500.0):
        incarnation = Incarnation(tmp_path / "incarnation", lambda clock=clock: clock)
        incarnation.begin()
        numbers.append(incarnation.value)
    assert numbers == [1_000_000_000, 2_000_000_000, 2_000_000_001, 2_000_000_002]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"twelve"])
def test_a_broken_count_is_no_reason_not_to_start(tmp_path, content):
    (tmp_path / "incarnation").write_bytes(content)
    incarnation = Incarnation(tmp_path / "incarnation", lambda: 1000.0)
    incarnation.begin()
    assert incarnation.value == 1_000_000_000


def test_a_node_outgrows_what_the_cluster_remembers_of_it(tmp_path):
    sent: list[Heartbeat] = []
    incarnation = Incarnation(tmp_path / "incarnation", lambda: 1.0)
    incarnation.begin()
    me = Myself("node1", "10.0.0.1", 7443, Role.CONTROL, "r1", {}, level=2)
    pulse = Pulse(me, incarnation, lambda: Health(1.0), lambda peer, kind, payload: True)
    sent.append(pulse.beat(["node2"], node("node1", incarnation=5_000_000)))
    assert sent[-1].incarnation == 5_000_001
    incarnation = Incarnation(tmp_path / "incarnation", lambda: 1.0)
    incarnation.begin()
    assert incarnation.value == 5_000_002


def test_a_full_disk_does_not_keep_the_heartbeats_from_going_out(tmp_path, caplog):
    incarnation = Incarnation(tmp_path / "missing" / "incarnation", lambda: 1000.0)
    incarnation.begin()
    assert incarnation.value == 1_000_000_000
    assert "cannot be written" in caplog.text
