"""Voters of the product (Member: transport, guard, journal, snapshots, codec, state machine) in virtual time, with everything going wrong.

`World(seed, Plan(...)).run()` raises Violation at the first broken promise. All randomness comes from the seed, so a run can be repeated.
"""

from __future__ import annotations

import heapq
import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import pysyncobj.syncobj
from linearizability import Outcome
from raft_sim_checks import Checks, Violation
from raft_sim_clients import Clients
from raft_sim_disk import Crash, SimDisk
from raft_sim_membership import Director
from raft_sim_network import Habits, Network
from raft_sim_reads import Readers

from hmcore.errors import HyperMeshError, StorageFailed, StorageFull
from hmcore.records import Node, NodeState, Role
from node_agent.consensus.leading.handover import Handed
from node_agent.consensus.limits import Limits
from node_agent.consensus.member import Member
from node_agent.consensus.rules import ALL, Protections
from node_agent.consensus.statemachine import levels, machine
from node_agent.consensus.statemachine.machine import Proposal, Receipt


@dataclass(frozen=True)
class Timing:
    heartbeat: float = 0.1
    election_min: float = 0.4
    election_max: float = 0.9


@dataclass(frozen=True)
class Plan:
    """How large the cluster is, and what happens to it. Seconds are virtual."""

    voters: int = 3
    seconds: float = 12.0
    faults: float = 2.0  # a second
    client_pauses: tuple[float, ...] = (0.005, 0.03, 0.08)
    limits: Limits = field(default_factory=lambda: Limits(compact_entries=12, journal_slack=2000, chunk=300))
    habits: Habits = field(default_factory=Habits)
    protections: Protections = ALL
    lying_disk: bool = False
    slow_disks: tuple[float, ...] = ()  # seconds that a sync may take, for a while, on one machine or all
    crash_in_write: float = 0.0004
    wipes: bool = True
    full_disks: bool = True
    power_losses: float = 0.6  # share of the crashes; the others end only the process, whose writes stay in memory
    level: int = levels.LATEST
    spares: int = 0  # machines beside the voters that may become some; with any, voters are added and removed all the time
    clients: int = 3  # whose history is checked; the others only write
    inside: bool = True  # False: nobody looks inside the members, only what clients were told is judged
    late: bool = False  # one of the voters is not there when the cluster is formed


@dataclass
class Machine:
    """A host: its disk outlives its voter."""

    world: World
    name: str
    disk: SimDisk
    member: Member | None = None
    incarnation: int = 0
    connections: dict[str, int] = field(default_factory=dict)
    paused_until: float = 0.0
    permitted: bool = False
    ticking_at: float = float("inf")
    kicked: bool = False
    latest: int = levels.LATEST  # the highest feature level that its release knows

    @property
    def alive(self) -> bool:
        return self.member is not None

    @property
    def responsive(self) -> bool:
        return self.paused_until <= self.world.now

    @property
    def leads(self) -> bool:
        return self.member is not None and self.member.is_leader

    @property
    def sound(self) -> bool:
        """Whether it takes part with all that it ever knew."""
        return self.member is not None and self.member.formation().permitted

    # --- the network's calls

    def send(self, peer: str, payload: bytes) -> bool:
        return not self.disk.dead and self.world.network.send(self.name, peer, payload, self.disk.waited)

    def peer_up(self, peer: str) -> None:
        self.step(lambda member: member.peer_up(peer))

    def peer_down(self, peer: str) -> None:
        self.step(lambda member: member.peer_down(peer))

    def receive(self, peer: str, payload: bytes) -> None:
        self.step(lambda member: member.receive(peer, payload))

    # --- life

    def start(self) -> None:
        plan = self.world.plan
        self.incarnation += 1
        self.connections = {}
        self.ticking_at = float("inf")
        self.kicked = False
        self.disk.crashy = 0.0
        member = Member(
            name=self.name,
            voters=self.world.listed(self),
            disk=self.disk,
            timing=Timing(),
            links=self,
            clock=self.world.clock,
            rng=self.world.rnd,
            wake=self.kick,
            on_applied=lambda state: None,
            wall_clock=self.world.clock,
            limits=plan.limits,
            protections=plan.protections,
            latest=self.latest,
        )
        self.member = member

        def begin(member: Member) -> None:
            member.open()
            if self.permitted and not member.formation().permitted:
                with suppress(StorageFull):  # it is tried again when there is room
                    member.permit("b1")

        self.step(begin)
        self.disk.crashy = plan.crash_in_write if self.world.faulty else 0.0

    def kick(self) -> None:
        if not self.kicked:
            self.kicked = True
            incarnation = self.incarnation
            self.world.after(0.0005, lambda: self._tick(incarnation))

    def _tick(self, incarnation: int) -> None:
        if incarnation != self.incarnation:
            return
        self.kicked = False
        self.ticking_at = float("inf")
        if not self.responsive:
            self.world.after(self.paused_until - self.world.now, lambda: self._tick(incarnation))
        else:
            self.step(lambda member: member.tick())

    def step(self, work: Callable[[Member], None]) -> None:
        member = self.member
        if member is None:
            return
        before, self.world.busy = self.world.busy, self
        self.disk.waited = 0.0
        try:
            self._step(member, work)
        finally:
            if self.disk.waited:  # what comes meanwhile waits: a sync holds the whole agent up
                self.world.seen["waited for the disk"] += 1
                self.paused_until = max(self.paused_until, self.world.now + self.disk.waited)
                self.disk.waited = 0.0
            self.world.busy = before

    def _step(self, member: Member, work: Callable[[Member], None]) -> None:
        try:
            work(member)
        except Crash:
            self.disk.dead = True
        except (StorageFailed, StorageFull) as error:  # it cannot even open: the agent ends, and is started anew
            self.world.seen[f"{type(error).__name__} at start"] += 1
            self.disk.dead = True
        except HyperMeshError as error:
            if not self.disk.dead:
                raise Violation(f"a voter cannot go on: {type(error).__name__}") from error
        if isinstance(member.failure, StorageFailed):
            self.world.seen["stopped"] += 1
            self.disk.dead = True
        inside = self.world.plan.inside
        if self.disk.dead:  # also when pysyncobj's bare excepts swallowed the Crash
            if inside:
                self.world.checks.last_words(self.name, self.incarnation, member)
            self.world.crash(self)
            return
        if inside and (broken := self.world.outcry or self.world.readers.broken) is not None:
            raise Violation(broken)
        if inside:
            self.world.checks.after_step(self.name, self.incarnation, member)
            self.world.director.after_step(self, member)
        self.world.see(self, member)
        wanted = member.next_tick() + 0.001
        if wanted < self.ticking_at:
            self.ticking_at = wanted
            incarnation = self.incarnation
            self.world.after(max(0.0, wanted - self.world.now), lambda: self._due(incarnation, wanted))

    def _due(self, incarnation: int, wanted: float) -> None:
        if incarnation == self.incarnation and self.ticking_at == wanted:
            self._tick(incarnation)


class World:
    def __init__(self, seed: int, plan: Plan, trace: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.rnd = random.Random(seed)
        self.now = 0.0
        self.faulty = True
        self.checks = Checks()
        self.seen: Counter[str] = Counter()
        self.proposed = 0
        self.outcry: str | None = None  # what pysyncobj itself calls critical
        self._trace = trace
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._retries: list[Proposal] = []
        self.busy: Machine | None = None  # whose step it is
        self.readers = Readers(self.seen)
        self.network = Network(self, self.rnd, plan.habits)
        names = [f"n{number}" for number in range(plan.voters + plan.spares)]
        self.founders = names[: plan.voters]
        self.machines = {name: Machine(self, name, SimDisk(self.rnd, lying=plan.lying_disk)) for name in names}
        self.director = Director(self)
        self.network.hosts.update(self.machines)
        self._random = random.Random(seed + 1)
        self.clients = Clients(self, seed + 2, plan.clients)
        self.epilogue: list[Callable[[], None]] = []  # once all agree

    # --- time

    def clock(self) -> float:
        self.now += 2e-5  # pysyncobj's loops wait for time to pass
        return self.now + (self.busy.disk.waited if self.busy is not None else 0.0)

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay, self._count, action))

    def until(self, time: float) -> None:
        while self._queue and self._queue[0][0] <= time:
            due, _, action = heapq.heappop(self._queue)
            self.now = max(self.now, due)
            action()
        self.now = max(self.now, time)

    def log(self, *words: object) -> None:
        if self._trace is not None:
            self._trace(f"{self.now:9.4f} " + " ".join(map(str, words)))

    # --- the run

    def run(self) -> World:
        syncobj = pysyncobj.syncobj
        saved = syncobj.monotonicTime, syncobj.random
        syncobj.monotonicTime, syncobj.random = self.clock, self._random
        handler = _Listener(self)
        syncobj.logger.addHandler(handler)
        try:
            self._run()
        finally:
            syncobj.logger.removeHandler(handler)
            syncobj.monotonicTime, syncobj.random = saved
        return self

    def _run(self) -> None:
        latecomer = self.rnd.choice(self.founders) if self.plan.late and len(self.founders) > 2 else None  # a majority must form
        for name, machine_ in self.machines.items():
            if name not in self.founders:
                self.after(self.rnd.uniform(0.0, 4.0), lambda machine_=machine_: self._restart(machine_))  # type: ignore[misc]
            elif name != latecomer:
                machine_.permitted = True
                self.after(self.rnd.random() * 0.3, machine_.start)
        if self.plan.spares:
            self.director.begin()
        self.after(0.0, self.network.connect)
        self.after(0.5, self._client)
        self.clients.start()
        if latecomer is not None:
            self.after(3.0, self.machines[latecomer].start)
        self.after(1.0, self._fault)
        if self.plan.slow_disks:
            self.after(1.5, self._slow)
        self.until(self.plan.seconds)
        self._heal()
        self._settle()
        for act in self.epilogue:
            act()
        verdict = self.clients.verdict()
        if verdict.outcome is not Outcome.OK:
            self.log(verdict.explain())
            raise Violation(f"the history is {verdict.outcome.value}")

    def listed(self, machine_: Machine) -> list[str]:
        """The voters of its agent.yaml: all that may ever be some; on a machine of the first hour maybe still those of then, as long as it
        need not look there for a cluster that it has forgotten."""
        first_hour = self.plan.spares and machine_.permitted and (machine_.incarnation == 1 or self.rnd.random() < 0.5)
        return self.founders if first_hour else list(self.machines)

    def _heal(self) -> None:
        self.log("--- healing")
        self.faulty = False
        self.network.blocked.clear()
        self.network.habits = replace(self.network.habits, disorder=False)
        for machine_ in self.machines.values():
            machine_.paused_until = 0.0
            machine_.disk.crashy = 0.0
            machine_.disk.full = machine_.disk.failing = False
            machine_.disk.latency = 0.0
            if not machine_.alive:
                machine_.start()

    def _settle(self) -> None:
        """Without faults everything must come to agree, and soon."""
        end = self.now + 25
        probe: str | None = None
        while self.now < end:
            self.until(self.now + 0.5)
            leaders = [machine_ for machine_ in self.machines.values() if machine_.leads]
            if leaders and (probe is None or probe not in self.checks.acknowledged or self.director.untold()):
                probe = f"probe{self.now}"
                self.propose(leaders[-1], Proposal(probe, machine.encode(machine.Noop())))
                continue
            members = self.director.members()
            states = [machine_.member.replica.state for machine_ in members if machine_.member and machine_.sound]
            agreed = members and len(states) == len(members) and len({state.index for state in states}) == 1
            learners = any(machine_.member and machine_.member.journal.configuration.learners for machine_ in members)
            if probe in self.checks.acknowledged and agreed and not learners and not self.director.untold():
                self.clients.read_all(states[0])
                if self.plan.inside:
                    self.checks.in_the_end(states)
                return
        raise Violation(self._stuck(probe))

    def _stuck(self, probe: str | None) -> str:
        for machine_ in self.machines.values():
            if machine_.member is not None:
                journal = machine_.member.journal
                self.log(machine_.name, machine_.member.outlook, journal.standing, journal.configuration)
        if not any(machine_.leads for machine_ in self.machines.values()):
            return "no progress after healing: no leader"
        if probe not in self.checks.acknowledged:
            return "no progress after healing: nothing is acknowledged"
        if untold := self.director.untold():
            self.log("untold:", untold)
            return "no progress after healing: one that was removed is never told"
        if not all(machine_.sound for machine_ in self.director.members()):
            return "no progress after healing: a voter is never re-seeded"
        return "no progress after healing: a member never catches up"

    def see(self, machine_: Machine, member: Member) -> None:
        """What a controller would do: the leader of a cluster without a record forms it."""
        if member.is_leader and member.replica.state.cluster is None and self.rnd.random() < 0.2:
            form = machine.FormCluster(id="hm-sim", bootstrap="b1", level=self.plan.level)
            self.propose(machine_, Proposal(f"form{self._count}", machine.encode(form)))

    # --- clients

    def _client(self) -> None:
        if not self.faulty:
            return
        live = [machine_ for machine_ in self.machines.values() if machine_.alive and machine_.responsive]
        leaders = [machine_ for machine_ in live if machine_.leads]
        if live:
            target = self.rnd.choice(leaders) if leaders and self.rnd.random() < 0.9 else self.rnd.choice(live)
            if self.rnd.random() < 0.3:
                timeout = self.rnd.choice((0.05, 0.5, 2.0))
                target.step(lambda member: self.readers.ask(member, timeout))
            elif self._retries and self.rnd.random() < 0.5:
                self.seen["retried"] += 1
                self.propose(target, self._retries.pop())
            else:
                for _ in range(self.rnd.choice((1, 1, 1, 4))):
                    self.proposed += 1
                    self.propose(target, Proposal(f"c{self.proposed}", machine.encode(self._command())))
        self.after(self.rnd.choice(self.plan.client_pauses), self._client)

    def _command(self) -> machine.Command:
        name = f"w{self.rnd.randint(0, 3)}"
        match self.rnd.randint(0, 5):
            case 4:
                return machine.PutKey(key=name, value=b"%d" % self.proposed)
            case 5:
                return machine.DeleteKey(key=name)
            case 0:
                node = Node(name=name, address="198.18.0.9", port=7443, role=Role.WORKER, release=f"r{self.proposed}")
                return machine.PutNode(node=node)
            case 1:
                return machine.SetNodeState(name=name, state=self.rnd.choice((NodeState.READY, NodeState.DOWN)), reason=f"{self.proposed}")
            case 2:
                return machine.RemoveNode(name=name)
            case _:
                return machine.Noop()

    def propose(self, machine_: Machine, proposal: Proposal) -> None:
        def done(outcome: Receipt | HyperMeshError) -> None:
            if isinstance(outcome, Receipt):
                self.checks.acknowledge(proposal.id, outcome)
                self.readers.acknowledged(outcome.index)
            else:
                self.seen[type(outcome).__name__] += 1
                self._retries = [*self._retries, proposal][-5:]

        machine_.step(lambda member: member.propose(proposal, done))

    # --- faults

    def crash(self, machine_: Machine) -> None:
        self.log("CRASH", machine_.name)
        self.seen["crash"] += 1
        machine_.member = None
        if self.rnd.random() < self.plan.power_losses:
            machine_.disk.crash()
        else:
            self.seen["kill"] += 1
            machine_.disk.kill()
        machine_.connections = {}
        for other in self.machines:
            if other != machine_.name:
                self.network.sever(machine_.name, other, self.rnd.choice((0.01, 1.5)))
        self.after(self.rnd.choice((0.05, 0.5, 2.0)), lambda: self._restart(machine_))

    def _restart(self, machine_: Machine) -> None:
        if not machine_.alive:
            self.log("START", machine_.name)
            machine_.start()

    def _pick(self, live: list[Machine]) -> Machine:
        leaders = [machine_ for machine_ in live if machine_.leads]
        return self.rnd.choice(leaders) if leaders and self.rnd.random() < 0.5 else self.rnd.choice(live)

    def _fault(self) -> None:
        if not self.faulty:
            return
        live = [machine_ for machine_ in self.machines.values() if machine_.alive]
        if len(live) > 1:
            kind = self.rnd.random()
            if kind < 0.16:
                self.crash(self._pick(live))
            elif kind < 0.20:
                for machine_ in live:
                    self.crash(machine_)
            elif kind < 0.38:
                one, other = self.rnd.sample(live, 2)
                self.log("BREAK", one.name, other.name)
                self.network.sever(one.name, other.name)
            elif kind < 0.68:
                self._partition(live)
            elif kind < 0.80:
                paused = self._pick(live)
                self.log("PAUSE", paused.name)
                paused.paused_until = self.now + self.rnd.choice((0.1, 0.5, 1.2))
            elif kind < 0.88:
                self._transfer(live)
            elif kind < 0.92:
                self._fill(self._pick(live))
            elif kind < 0.94:
                self._fail(self._pick(live))
            else:
                self._wipe(self._pick(live))
        if self.plan.lying_disk and self.rnd.random() < 0.3:
            for machine_ in live:
                machine_.disk.settle()
        self.after(self.rnd.expovariate(self.plan.faults), self._fault)

    def _partition(self, live: list[Machine]) -> None:
        names, kind = list(self.machines), self.rnd.random()
        if kind < 0.5:
            inside = {self._pick(live).name}
            cut = {(a, b) for a in names for b in names if (a in inside) != (b in inside)}
        elif kind < 0.67:
            inside = {machine_.name for machine_ in self.rnd.sample(live, len(live) // 2)}
            cut = {(a, b) for a in names for b in names if (a in inside) != (b in inside)}
        else:
            one, inward = self._pick(live).name, self.rnd.random() < 0.5
            cut = {(a, one) if inward else (one, a) for a in names if a != one}
            if self.rnd.random() < 0.4:
                cut = set(self.rnd.sample(sorted(cut), max(1, len(cut) // 2)))
        seconds = self.rnd.choice((0.2, 0.8, 2.0, 4.0))
        self.log("CUT", sorted(cut), seconds)
        self.network.block(cut, seconds)
        if seconds > 1 and self.rnd.random() < 0.7:  # the connections' own time-out
            for a, b in sorted(cut):
                self.after(self.rnd.uniform(0.8, 1.6), partial(self._time_out, a, b))

    def _time_out(self, a: str, b: str) -> None:
        if (a, b) in self.network.blocked:
            self.network.sever(a, b)

    def _transfer(self, live: list[Machine]) -> None:
        for machine_ in live:
            if machine_.leads and machine_.responsive:
                to = self.rnd.choice((None, *self.machines))
                self.log("TRANSFER", machine_.name, to)
                machine_.step(lambda member, to=to: member.transfer(to, self._transferred, timeout=1.0))  # type: ignore[misc]

    def _transferred(self, outcome: Handed | HyperMeshError) -> None:
        self.log("TRANSFERRED", outcome)
        self.seen[f"transfer: {type(outcome).__name__}"] += 1

    def _fill(self, machine_: Machine) -> None:
        if self.plan.full_disks:
            self.log("FULL", machine_.name)
            self.seen["full"] += 1
            machine_.disk.full = True
            self.after(self.rnd.choice((0.3, 1.5, 3.0)), lambda: setattr(machine_.disk, "full", False))

    def _slow(self) -> None:
        if not self.faulty:
            return
        latency = self.rnd.choice(self.plan.slow_disks)
        machines = list(self.machines.values())
        for machine_ in machines if self.rnd.random() < 0.2 else [self._pick(machines)]:
            self.log("SLOW", machine_.name, latency)
            machine_.disk.latency = latency
            self.after(self.rnd.choice((0.5, 2.0, 4.0)), partial(setattr, machine_.disk, "latency", 0.0))
        self.after(self.rnd.uniform(0.5, 2.0), self._slow)

    def _fail(self, machine_: Machine) -> None:
        self.log("FAIL", machine_.name)
        machine_.disk.failing = True

    def _wipe(self, machine_: Machine) -> None:
        """Only if the others are a quorum, all with what they ever knew: or the entries that they share would be gone for good."""
        formed = machine_.member is not None and machine_.member.formation().formed
        if self.plan.wipes and formed and len(self.machines) > 2 and self.director.spares(machine_):
            self.log("WIPE", machine_.name)
            self.seen["wipe"] += 1
            machine_.permitted = False
            self.director.rest(2.0)
            self.crash(machine_)
            machine_.disk.wipe()


class _Listener(logging.Handler):
    """pysyncobj says some things only to its log."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.log("pysyncobj:", record.getMessage())
        if record.levelno >= logging.CRITICAL:
            self._world.outcry = "an applied entry was truncated"
        self._world.seen[f"log {record.levelname.lower()}: {record.getMessage()[:30]}"] += 1
