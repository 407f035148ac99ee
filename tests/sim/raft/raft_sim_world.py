"""Voters of the product (Member: transport, guard, journal, snapshots, codec, state machine) in virtual time, with everything going wrong.

`World(seed, Plan(...)).run()` raises Violation at the first broken promise. All randomness comes from the seed, so a run can be repeated;
what befalls the machines, when, and whom of them, can also be drawn by somebody else's `dice`.
"""

from __future__ import annotations

import heapq
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pysyncobj.syncobj
from linearizability import Outcome
from raft_sim_checks import Checks, Violation
from raft_sim_clients import Clients
from raft_sim_disk import SimDisk
from raft_sim_faults import Faults
from raft_sim_machine import Machine
from raft_sim_membership import Director
from raft_sim_network import Habits, Network
from raft_sim_reads import Readers

from hmcore.errors import HyperMeshError
from hmcore.records import Node, NodeState, Role
from node_agent.consensus.limits import Limits
from node_agent.consensus.member import Member
from node_agent.consensus.rules import ALL, Protections
from node_agent.consensus.statemachine import levels, machine
from node_agent.consensus.statemachine.machine import Proposal, Receipt


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


class World:
    def __init__(self, seed: int, plan: Plan, trace: Callable[[str], None] | None = None, dice: random.Random | None = None) -> None:
        self.plan = plan
        self.rnd = random.Random(seed)
        self._faults = Faults(self, seed, dice or self.rnd)
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
        self._faults.begin()
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
