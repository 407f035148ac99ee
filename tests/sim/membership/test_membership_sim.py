"""Many nodes, a simulated network and clock: whatever fails, the living are never called dead and the dead are found in time.

Control nodes listen all the time; one of them leads and decides exactly as controller.py does (on news, and at the announced time). Its
commands are applied by the real state machine. Between faults, `hypothesis` chooses what happens next.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcore.api import Heartbeat
from hmcore.config.settings import Membership
from hmcore.records import NodeState, Role
from node_agent.consensus.statemachine.machine import Entry, SetNodeState, State, apply, encode
from node_agent.orchestration.hearing import Hearing
from node_agent.orchestration.membership import decide, next_change

TIMING = Membership()
DELAY = 0.2  # seconds a heartbeat may take
ELECTION = 1.5


@dataclass
class Agent:
    """One node. `voice` counts its starts, so that timers of an earlier life die with it."""

    name: str
    control: bool
    voice: int = 0
    alive: bool = False
    cut: bool = False
    frozen_until: float = 0.0
    alive_since: float = 0.0
    troubled_until: float = 0.0  # the end of the last fault that kept its heartbeats from the others
    died_at: float | None = None
    ear: Hearing | None = None


@dataclass
class World:
    seed: int
    controls: int
    workers: int
    now: float = 0.0
    state: State = field(default_factory=State)
    agents: dict[str, Agent] = field(default_factory=dict)
    leader: str | None = None
    commands: int = 0
    alarm: float | None = None
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: count = field(default_factory=count)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        for number in range(self.controls):
            self.agents[f"c{number}"] = Agent(f"c{number}", control=True)
        for number in range(self.workers):
            self.agents[f"w{number}"] = Agent(f"w{number}", control=False)
        for name in self.agents:
            self.start(name)

    # -- time

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(when, self.now), next(self._order), action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = end

    # -- faults

    def start(self, name: str) -> None:
        agent = self.agents[name]
        if agent.alive:
            return
        agent.alive, agent.voice, agent.died_at = True, agent.voice + 1, None
        agent.alive_since = agent.troubled_until = self.now
        agent.ear = Hearing(name, self.now, heartbeat=TIMING.heartbeat, suspect=TIMING.suspect)
        self._beat(agent, agent.voice)

    def crash(self, name: str) -> None:
        agent = self.agents[name]
        if agent.alive:
            agent.alive, agent.died_at = False, self.now
        self._depose(name)

    def stop(self, name: str) -> None:
        agent = self.agents[name]
        if agent.alive:
            self._send(agent, leaving=True)
        self.crash(name)

    def cut(self, name: str) -> None:
        self.agents[name].cut = True
        self._depose(name)

    def heal(self, name: str) -> None:
        agent = self.agents[name]
        if agent.cut:
            agent.cut = False
            agent.troubled_until = max(self.now, agent.frozen_until)

    def freeze(self, name: str, seconds: float) -> None:
        """The machine stands still: nothing runs, and it does not know. A leader stays one only if its voters do not notice."""
        agent = self.agents[name]
        agent.frozen_until = agent.troubled_until = max(agent.frozen_until, self.now + seconds)
        if seconds > ELECTION and self.controls > 1:
            self._depose(name)

    def elect(self, name: str) -> None:
        """Lead from now on, if a majority of the control nodes is there to vote."""
        there = [a for a in self.agents.values() if a.control and a.alive and not a.cut and a.frozen_until <= self.now]
        agent = self.agents[name]
        if agent not in there or len(there) <= self.controls // 2 or self.leader == name:
            return
        self.leader = name
        assert agent.ear is not None
        agent.ear.lead(self.now)
        self._think(name)

    def _depose(self, name: str) -> None:
        there = [a for a in self.agents.values() if a.control and a.alive and not a.cut and a.frozen_until <= self.now]
        if self.leader == name or len(there) <= self.controls // 2:
            self.leader = None

    # -- what the nodes do

    def _beat(self, agent: Agent, voice: int) -> None:
        if not agent.alive or agent.voice != voice:
            return
        if agent.frozen_until > self.now:
            self.at(agent.frozen_until, lambda: self._beat(agent, voice))
            return
        assert agent.ear is not None
        agent.ear.clock(self.now)
        self._send(agent)
        self.at(self.now + TIMING.heartbeat, lambda: self._beat(agent, voice))

    def _send(self, agent: Agent, *, leaving: bool = False) -> None:
        role = Role.CONTROL if agent.control else Role.WORKER
        beat = Heartbeat(address="10.0.0.1", port=7443, role=role, release="r", incarnation=agent.voice, health_score=1.0, leaving=leaving)
        for other in self.agents.values():
            if other.control and not agent.cut:
                delay = 0.0 if other is agent else self.random.uniform(0, DELAY)
                self.at(self.now + delay, lambda other=other, voice=other.voice: self._arrive(other, voice, agent.name, beat))

    def _arrive(self, agent: Agent, voice: int, name: str, beat: Heartbeat) -> None:
        if not agent.alive or agent.voice != voice or (agent.cut and name != agent.name):
            return
        if agent.frozen_until > self.now:  # it waits in the socket
            self.at(agent.frozen_until + 0.001, lambda: self._arrive(agent, voice, name, beat))
            return
        assert agent.ear is not None
        if agent.ear.hear(name, beat, self.now):
            self._think(agent.name)

    def _think(self, name: str) -> None:
        """One round of the leader: decide, apply, and wake up again when something may have changed."""
        agent = self.agents[name]
        if self.leader != name or not agent.alive or agent.ear is None:
            return
        if agent.frozen_until > self.now:
            self.at(agent.frozen_until, lambda: self._think(name))
            return
        clock = agent.ear.clock(self.now)
        view = agent.ear.view()
        for command in decide(self.state.nodes, view, clock, TIMING):
            self.commands += 1
            self._must_be_true(command, agent)
            self.state, _ = apply(self.state, encode(command), Entry(self.state.index + 1))
        assert decide(self.state.nodes, view, clock, TIMING) == []
        alarm = next_change(self.state.nodes, view, clock, TIMING)
        self.alarm = None if alarm is None else self.now + max(alarm - clock, 0.01)
        if self.alarm is not None:
            self._ring(name, self.alarm)

    def _ring(self, name: str, alarm: float) -> None:
        self.at(alarm, lambda: self._think(name) if self.alarm == alarm else None)  # a newer round set a newer alarm

    # -- what must hold

    def _must_be_true(self, command: object, leader: Agent) -> None:
        """Accuracy: nobody is blamed who has been alive and connected long enough to be heard by now, nor for the leader's standstill."""
        match command:
            case SetNodeState(name=name, state=NodeState.SUSPECT | NodeState.DOWN, reason=reason) if reason != "stopped":
                agent = self.agents[name]
                well_for = self.now - max(agent.alive_since, agent.troubled_until)
                enough = TIMING.heartbeat + DELAY
                if self.now - leader.frozen_until < enough:  # what it slept through adds to what the node really missed
                    enough = TIMING.suspect
                assert not agent.alive or agent.cut or well_for < enough, f"{name} is well for {well_for} s: {reason}"

    def settled(self) -> None:
        """Completeness: after a quiet time under one leader, the records say what is."""
        for agent in self.agents.values():
            record = self.state.nodes.get(agent.name)
            reachable = agent.alive and not agent.cut
            if reachable:
                assert record is not None, f"{agent.name} never joined"
                assert (record.state, record.incarnation) == (NodeState.READY, agent.voice), (agent, record)
            elif record is not None:
                assert record.state is NodeState.DOWN, (agent, record)


def quiet(world: World) -> None:
    """Let the dust settle under a leader, if a majority allows one."""
    world.run(ELECTION)
    if world.leader is None:
        for name in world.agents:
            if world.leader is None:
                world.elect(name)
    if world.leader is not None:
        world.run(TIMING.down + TIMING.heartbeat + DELAY + 0.1)
        world.settled()
        before = world.commands
        world.run(20)
        assert world.commands == before, "an unchanging cluster writes nothing"


faults = st.lists(
    st.tuples(
        st.sampled_from(["crash", "stop", "start", "cut", "heal", "freeze", "elect"]),
        st.integers(0, 30),
        st.sampled_from([0.0, 0.1, 0.6, 1.9, 2.1, 3.0, 4.1, 7.0]),
        st.sampled_from([0.5, 1.4, 2.2, 5.0]),
    ),
    max_size=14,
)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1000), controls=st.sampled_from([1, 3, 5]), workers=st.integers(0, 4), script=faults)
def test_the_living_are_not_blamed_and_the_dead_are_found(seed, controls, workers, script):
    world = World(seed, controls, workers)
    world.run(0.3)
    world.elect("c0")
    names = list(world.agents)
    for action, which, pause, seconds in script:
        name = names[which % len(names)]
        if action == "freeze":
            world.freeze(name, seconds)
        else:
            getattr(world, action)(name)
        world.run(pause)
    world.run(5.0)  # the longest freeze
    quiet(world)


def found_after(world: World, name: str) -> float:
    """Seconds until the records call the node down."""
    began = world.now
    while world.state.nodes[name].state is not NodeState.DOWN:
        assert world.now - began < 20
        world.run(0.01)
    return world.now - began


def test_a_crash_is_found_after_the_down_time_and_a_stop_at_once():
    world = World(seed=1, controls=3, workers=2)
    world.elect("c0")
    world.run(10)
    world.crash("w0")
    assert TIMING.down - TIMING.heartbeat <= found_after(world, "w0") <= TIMING.down + DELAY
    world.stop("w1")
    assert found_after(world, "w1") <= DELAY + 0.01


def test_a_dead_leader_is_found_without_waiting_a_new_window():
    world = World(seed=1, controls=3, workers=0)
    world.elect("c0")
    world.run(10)
    world.crash("c0")
    world.run(ELECTION)
    world.elect("c1")
    assert ELECTION + found_after(world, "c0") <= TIMING.down + DELAY


def test_one_hundred_nodes_write_only_transitions():
    world = World(seed=1, controls=3, workers=97)
    world.elect("c0")
    world.run(3)
    assert world.commands == 100
    world.run(20)
    assert world.commands == 100
    for number in range(10):
        world.crash(f"w{number}")
    world.run(6)
    assert world.commands == 100 + 2 * 10  # suspect, down
    world.settled()


@given(seed=st.integers(0, 1000), isolated=st.floats(0.5, 10), election=st.floats(0, 1))
def test_a_leader_back_from_isolation_blames_nobody(seed, isolated, election):
    world = World(seed, controls=3, workers=2)
    world.elect("c0")
    world.run(5)
    world.cut("c1")
    world.run(isolated)
    world.heal("c1")
    world.run(election)
    world.elect("c1")
    quiet(world)
