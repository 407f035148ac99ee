"""One exclusive replica in a cluster where all goes wrong, in virtual time: leaders that are replaced, agents that stand still or die,
clocks that run apart, a Docker that starts late, messages that take their time, plans that are written when nobody believes in them.

What decides is the product's: chain.py on nodes, rollout.py on leaders, `latest` of granting.py. The rest is a model of what is round it.
`without` names a protection that this world leaves out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from hmcore.apps.calls import LeaseReply
from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Phase, allocation_id
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.records import InstanceHealth, NodeState
from node_agent.container.fencing.chain import RENEW, Chain, answered, permit
from node_agent.orchestration import rollout
from node_agent.orchestration.rollout import Decision, Observed, Situation, Terms
from node_agent.platform.granting import latest

TICK = 0.1
LEASE, AFTER, DOWN = 2.5, 3.5, 1.5  # seconds; the least that conflicts.py lets pass
DRIFT = 0.01
ROUND = 0.25  # of the fence
LEADERS = ("L0", "L1", "L2")
FAR = 10**9


class Two(Exception):
    """Of an exclusive replica."""


@dataclass
class Start:
    """What Docker was asked for. `steps`: when it is in its cgroup, has its mounts, and runs."""

    allocation: str
    steps: list[float]
    inside: bool = False


@dataclass
class Node:
    name: str
    rate: float
    up: bool = True
    asleep: bool = False
    cut: set[str] = field(default_factory=set)
    muted: bool = False  # its heartbeats get lost, its calls do not
    blind: bool = False  # it hears no news of the log
    believes: str = "L0"  # who leads
    state: dict[str, Allocation] = field(default_factory=dict)
    known: int = 0
    chain: Chain | None = None
    life: int = 0
    asking: float = -1.0  # until when an answer is waited for
    due: float = 0.0
    until: float = -1.0  # the file
    looked: float = 0.0
    gates: set[str] = field(default_factory=set)
    entering: dict[str, tuple[float, float, int]] = field(default_factory=dict)  # when a gate is opened, and entered, under what lease
    starts: list[Start] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    @property
    def acts(self) -> bool:
        return self.up and not self.asleep


@dataclass
class Proposal:
    at: float
    term: int
    apply: Callable[[], None]
    starts: bool = False


class World:
    def __init__(self, seed: int, without: str = "", nodes: int = 3, down: float = DOWN) -> None:
        self.random = random.Random(seed)
        self.without = without
        self.down = down
        self.lag = 0.0  # of the leader's answers
        self.dither = 0.0  # between a plan and the log
        self.now = 100.0
        self.term, self.index = 1, 1
        self.leader = "L0"
        self.rates = {name: self._rate() for name in LEADERS}
        self.nodes = {f"n{number}": Node(f"n{number}", self._rate()) for number in range(nodes)}
        spec = AppSpec(services={"db": ServiceSpec(container=ContainerSpec(image="db"), replicas=1, exclusive=True)})
        self.generation = Generation(app="shop", number=1, spec=spec, digest="1")
        self.app = App(name="shop", generation=1, index=1)
        self.allocations: dict[str, Allocation] = {}
        self.history: list[dict[str, Allocation]] = [{}, {}]  # by index
        self.statuses: dict[str, AllocationStatus] = {}
        self.heard: dict[str, dict[str, float]] = {name: {} for name in LEADERS}
        self.asked: dict[str, dict[str, float]] = {name: {} for name in LEADERS}
        self.log: list[Proposal] = []
        self.mail: list[tuple[float, Callable[[], None]]] = []
        self.memory = Observed()
        self.ticks = 0
        self.placed = self.killed = self.admitted = self.refused = 0

    def _rate(self) -> float:
        return self.random.choice([1 - DRIFT, 1.0, 1 + DRIFT])

    def _soon(self, most: float = 0.4) -> float:
        """Mostly at once, now and then late."""
        return self.now + (self.random.random() * most if self.random.random() < 0.3 else TICK)

    def clock(self, who: str) -> float:
        return self.now * (self.rates[who] if who in self.rates else self.nodes[who].rate)

    # -- faults

    def elect(self, name: str) -> None:
        """What was in the old leader's log is carried over, or lost."""
        self.term += 1
        before, self.log = self.log, []
        for proposal in before:
            if self.random.random() < 0.5:
                proposal.apply()
        self.leader, self.memory = name, Observed()

    def crash(self, name: str) -> None:
        """The agent; containers, gates and the fence stay. What it comes back with may be old."""
        node = self.nodes[name]
        node.up, node.asleep, node.chain, node.asking, node.due = False, False, None, -1.0, 0.0
        node.life += 1
        node.entering.clear()
        node.known = self.random.randint(max(0, self.index - 6), self.index)
        node.state = dict(self.history[node.known])

    # -- time

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.tick()

    def tick(self) -> None:
        self.now += TICK
        due = [act for at, act in self.mail if at <= self.now]
        self.mail = [letter for letter in self.mail if letter[0] > self.now]
        for act in due:
            act()
        for proposal in [p for p in self.log if p.at <= self.now]:
            self.log.remove(proposal)
            if proposal.term == self.term:
                proposal.apply()
        for node in self.random.sample(list(self.nodes.values()), len(self.nodes)):
            self._docker(node)
            self._check()
            self._fence(node)
            if node.acts:
                self._agent(node)
        self.ticks += 1
        if self.ticks % 3 == 0:
            self._lead()
        self._check()

    def _check(self) -> None:
        there = [node.name for node in self.nodes.values() for _ in node.running]
        if len(there) > 1:
            raise Two(f"at {self.now:.2f} on {there}")

    # -- a node

    def _fence(self, node: Node) -> None:
        now = self.clock(node.name)
        if now < min(node.looked + ROUND, node.until if node.until > node.looked else FAR):
            return
        node.looked = now
        if now >= node.until:
            node.gates.clear()
            self.killed += len(node.running)
            node.running.clear()
            node.starts = [start for start in node.starts if not start.inside]

    def _docker(self, node: Node) -> None:
        for start in list(node.starts):
            while start.steps and start.steps[0] <= self.now:
                start.steps.pop(0)
                if len(start.steps) == 2:
                    start.inside = True
                elif len(start.steps) == 1 and start.allocation not in node.gates and self.without != "gates":
                    start.steps, start.allocation = [], ""
            if not start.steps:
                node.starts.remove(start)
                if start.allocation:
                    node.running.add(start.allocation)

    def _agent(self, node: Node) -> None:
        now = self.clock(node.name)
        linked = self.leader not in node.cut
        if linked:
            node.believes = self.leader
        if linked and not node.blind and self.random.random() < 0.7:
            node.known, node.state = self.index, dict(self.allocations)
        if now >= node.due and now >= node.asking:
            self._ask(node, now)
        self._reconcile(node, now)
        if linked:
            self._tell(node)

    def _permit(self, node: Node, now: float) -> tuple[bool, str, int]:
        known = FAR if self.without == "index" else node.known
        found = permit(node.chain, known=known, watched=True, lease=LEASE, now=now)
        return bool(found.barred), found.barred or found.held, found.lease

    def _reconcile(self, node: Node, now: float) -> None:
        barred, held, lease = self._permit(node, now)
        for id in list(node.running):
            wanted = node.state.get(id)
            if barred or wanted is None or wanted.stop:
                node.running.discard(id)
        under_way = {start.allocation for start in node.starts} | node.running | node.entering.keys()
        for id, wanted in node.state.items():
            if wanted.node == node.name and not wanted.stop and not held and id not in under_way:
                opened = self._soon(0.5)
                node.entering[id] = (opened, opened + self._soon(0.5) - self.now, lease)
        for id, (opened, entered, under) in list(node.entering.items()):
            if opened <= self.now:
                node.gates.add(id)  # though it stood still since it decided to
            if entered > self.now:
                continue
            del node.entering[id]
            _, held, lease = self._permit(node, now)
            if self.without == "looking again" or (not held and lease == under and id in node.gates):
                late = self.random.random() * (8.0 if self.random.random() < 0.4 else 0.3)
                steps = [self.now + late, self.now + late + 0.1 * self.random.random(), self.now + late + 0.2]
                node.starts.append(Start(id, steps))

    def _tell(self, node: Node) -> None:
        said = {}
        for id, wanted in node.state.items():
            if wanted.node == node.name:
                busy = id in node.running or id in node.entering or any(start.allocation == id for start in node.starts)
                phase = Phase.RUNNING if id in node.running else Phase.STARTING
                health = InstanceHealth.HEALTHY if phase is Phase.RUNNING else InstanceHealth.UNKNOWN
                ended = wanted.stop and not busy
                said[id] = AllocationStatus(id=id, phase=Phase.DONE if ended else phase, health=health)
        if any(self.statuses.get(id) != status for id, status in said.items()):
            self.log.append(Proposal(self._soon(), self.term, lambda: self.statuses.update(said)))

    # -- the lease

    def _ask(self, node: Node, sent: float) -> None:
        anew = node.chain is None or not node.chain.lasts(sent)
        leader, life = node.believes, node.life
        node.asking = sent + LEASE / 3
        if leader not in node.cut:
            self.mail.append((self._soon(1.0), lambda: self._grant(node, leader, life, anew=anew, sent=sent)))

    def _grant(self, node: Node, leader: str, life: int, *, anew: bool, sent: float) -> None:
        if self.without != "noting":
            self.asked[leader][node.name] = self.clock(leader)
        term = self.term

        def answer(index: int) -> None:
            at = self._soon(1.0) + self.lag
            self.mail.append((at, lambda: self._answered(node, life, LeaseReply(index=index, seconds=LEASE), anew=anew, sent=sent)))

        def admit() -> None:
            self.admitted += 1
            self._append(lambda: None, bump=self.without != "admission")
            if self.term == term:
                answer(self.index)

        if leader != self.leader and self.without != "majority":
            return
        if anew and leader == self.leader:
            self.log.append(Proposal(self._soon(), self.term, admit))
        elif not anew or self.without == "majority":
            confirmed = self._soon(0.3)
            self.mail.append((confirmed, lambda: answer(self.index) if self.term == term or self.without == "majority" else None))

    def _answered(self, node: Node, life: int, reply: LeaseReply, *, anew: bool, sent: float) -> None:
        if node.asleep:
            self.mail.append((self._soon(), lambda: self._answered(node, life, reply, anew=anew, sent=sent)))
            return
        if life != node.life or not node.up:
            return
        now = self.clock(node.name)
        began = now if self.without == "sending" else sent
        node.chain = answered(node.chain, reply, anew=anew, sent=began, longest=LEASE, now=now)
        node.asking, node.due = -1.0, sent + RENEW * LEASE
        if node.chain is not None:
            node.until = node.chain.until

    # -- the leader

    def _append(self, apply: Callable[[], None], *, bump: bool = True) -> None:
        self.index += 1
        if bump:
            self.app = replace(self.app, index=self.index)
        apply()
        self.history.append(dict(self.allocations))

    def _beat(self) -> None:
        for node in self.nodes.values():
            for name in LEADERS:
                if node.acts and name not in node.cut and not node.muted:
                    self.heard[name][node.name] = self.clock(name)

    def _lead(self) -> None:
        self._beat()
        leader = self.leader
        now = self.clock(leader)
        heard = latest(self.heard[leader], self.asked[leader])
        began = now if self.memory.began is None else self.memory.began
        silent = {name: now - max(self.heard[leader].get(name, 0.0), began) >= self.down for name in self.nodes}
        situation = Situation(
            app=self.app,
            target=self.generation,
            healthy=None,
            allocations=dict(self.allocations),
            statuses={id: status for id, status in self.statuses.items() if id in self.allocations},
            nodes={name: NodeState.DOWN if silent[name] else NodeState.READY for name in self.nodes},
            heard=heard,
        )
        memory = Observed(0.0, self.memory.replicas, self.memory.away) if self.without == "its beginning" else self.memory
        after = DOWN if self.without == "waiting" else AFTER
        decision = rollout.decide(situation, memory, now, Terms(fence_after=after, lost_after=self.down))
        self.memory = decision.observed
        if decision.changes and not self.log_is_full():
            ready = [name for name in sorted(self.nodes) if not silent[name]]
            homes = [self.random.choice(ready) if ready else "" for _ in decision.starts]
            basis = self.app.index
            at = self._soon(1.5) + self.dither
            self.log.append(Proposal(at, self.term, lambda: self._plan(decision, homes, basis), bool(homes)))

    def log_is_full(self) -> bool:
        """A look a second is enough: each may take that long to be written."""
        return len(self.log) > 6

    def _plan(self, decision: Decision, homes: list[str], basis: int) -> None:
        if basis != self.app.index:
            self.refused += 1
            return

        def apply() -> None:
            serial = self.app.serial
            for stop in decision.stops:
                self.allocations[stop.allocation] = replace(self.allocations[stop.allocation], stop=True)
            for id in decision.forgets:
                del self.allocations[id]
            for start, home in zip(decision.starts, homes, strict=True):
                if home:
                    serial += 1
                    self.placed += 1
                    id = allocation_id("shop", "db", start.slot, serial)
                    self.allocations[id] = Allocation(
                        id=id, app="shop", service="db", slot=start.slot, node=home, generation=1, revision=start.revision
                    )
            self.app = replace(decision.app or self.app, serial=serial, index=self.index)

        self._append(apply)
