"""A cluster with one app, in virtual time: machines with containers, a record with check-and-set, and leaders that forget. Where
replicas go the product's scheduler says.

The leader looks only when something changed or when it was told to, so that a deadline left out shows as a rollout that stands still. What
it decides reaches the record some ticks later, also if it leads no more by then.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Phase, Stage, allocation_id, wanted_revision
from hmcore.apps.spec import AppSpec, ContainerSpec, Dependency, Placement, Port, Resources, ServiceSpec, Update
from hmcore.records import InstanceHealth, Node, NodeState, Role
from node_agent.orchestration import rollout
from node_agent.orchestration.appplan import key_of, place
from node_agent.orchestration.rollout import Decision, Observed, Situation, Start, Stop, Terms
from node_agent.orchestration.rollouts.yielding import begins_on, gives_way
from node_agent.orchestration.scheduling.model import Candidate, Placed, Request

TICK = 0.25
MOST_MEMORY = 5 << 30  # of a replica: no two fit on a machine
ROOMY = Resources(cpus=4000, memory=8 << 30)
LIMITS = {"": 0, "one": 1, "two": 2, "port": 1, "room": 1}  # how many of a service a machine takes; 0: any number
SUSPECT, DOWN, DOCKER = 2.0, 4.0, 5.0
LEASE = 6.0
RIGHT = 7.0
LATE = 6  # ends of a container before what it needs is there
TERMS = Terms(fence_after=LEASE + 2 * TICK, lost_after=DOWN, docker_within=DOCKER, right_after=RIGHT)
GOOD = ("good", "better")
STUCK = 3.0  # seconds of tries that failed, after which a node calls a replica stuck
STARTING = 0.5  # seconds from seeing an allocation to its container, and again until it is fit or shows what is wrong with it


@dataclass
class Container:
    """`image` says how it behaves. `until`: when its phase ends. `lacking`: since when it is tried in vain to get its image."""

    allocation: Allocation
    image: str
    exclusive: bool
    phase: Phase
    until: float
    restarts: int = 0
    health: InstanceHealth = InstanceHealth.UNKNOWN
    exit_code: int | None = None
    lacking: float | None = None
    stuck: bool = False

    @property
    def runs(self) -> bool:
        return self.phase in (Phase.RUNNING, Phase.STOPPING)


@dataclass
class Machine:
    """`cut`: leaders that it does not reach. `heard`: by leader, when that heard it last. `contact`: when a leader last vouched for it.
    `images`: those that it has; if it is `full`, it gets no others. `closed`: it runs no apps.
    `dockerless`: its Docker does nothing and answers nothing, while its containers run on."""

    name: str
    up: bool = True
    full: bool = False
    images: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    slow: float = 1.0
    draining: bool = False
    closed: bool = False
    dockerless: bool = False
    asked: dict[str, float] = field(default_factory=dict)  # by leader, when that was asked for a lease last
    member: bool = True
    contact: float = 0.0
    heard: dict[str, float] = field(default_factory=dict)
    state: NodeState = NodeState.READY
    containers: dict[str, Container] = field(default_factory=dict)
    ended: dict[str, AllocationStatus] = field(default_factory=dict)

    def gets(self, image: str) -> bool:
        return image != "lost" and (not self.full or image in self.images)

    def reaches(self, leader: str | None) -> bool:
        return self.up and leader is not None and leader not in self.cut


@dataclass(frozen=True)
class Plan:
    """A decision on its way into the record, good only for the app as it was: `starts` on their nodes, `stops` with what gives way."""

    at: float
    index: int
    decision: Decision
    starts: tuple[tuple[Start, str], ...]
    stops: tuple[Stop, ...]

    @property
    def changes(self) -> bool:
        """Whether anything but starts that found no place is in it."""
        return bool(self.starts or self.stops) or replace_starts(self.decision).changes


@dataclass
class World:
    seed: int
    nodes: int
    spec: AppSpec
    latency: int = 2  # ticks that a decision may take
    now: float = 0.0
    index: int = 1
    removed: bool = False
    check_and_set: bool = True

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.machines = {f"n{number}": Machine(f"n{number}") for number in range(self.nodes)}
        self.app = App(name="shop", generation=1, index=1)
        self.generations = {1: Generation(app="shop", number=1, spec=self.spec, digest="1")}
        self.allocations: dict[str, Allocation] = {}
        self.lost: set[str] = set()
        self.events: list[rollout.Happening] = []
        self.pending: list[Plan] = []
        self.refused = self.looks = self.applied = 0
        self.counts: dict[str, int] = {}
        self.leader: str | None = None
        self.elect("L0")

    # -- operators

    @property
    def target(self) -> AppSpec:
        return self.generations[self.app.generation].spec

    def target_of(self, generation: int) -> AppSpec:
        return self.generations[generation].spec

    def deploy(self, spec: AppSpec, origin: int = 0) -> None:
        number = self.app.generation + 1
        self.index += 1
        self.generations[number] = Generation(app="shop", number=number, spec=spec, digest=str(number), origin=origin)
        self.app = replace(self.app, generation=number, index=self.index)

    def restart(self, service: str) -> None:
        self.index += 1
        self.app = replace(self.app, restarts={**self.app.restarts, service: self.app.restarts.get(service, 0) + 1}, index=self.index)

    def remove(self) -> None:
        self.index += 1
        self.app = replace(self.app, stopping=True, index=self.index)

    # -- faults

    def elect(self, name: str) -> None:
        """It leads from now on, and remembers nothing."""
        self.leader = name
        self.memory, self.statuses, self.since = Observed(), {}, self.now
        self.alarm: float | None = self.now
        self.seen: object = None

    def crash(self, name: str) -> None:
        machine = self.machines[name]
        machine.up = False
        for container in machine.containers.values():
            container.lacking, container.stuck = None, False
            if container.phase not in (Phase.DONE, Phase.PULLING):  # what was given up is tried again: the agent forgets
                container.phase, container.until, container.health = Phase.BACKOFF, self.now, InstanceHealth.UNKNOWN
        for service in self.counts:  # nobody decided that
            self.counts[service] = max(self.counts[service], self._count(service))

    def kill(self, which: int) -> None:
        """A container that runs ends, and is started again."""
        running = [c for machine in self.machines.values() for c in machine.containers.values() if c.phase is Phase.RUNNING]
        if running:
            self._end(running[which % len(running)])

    def strike(self, name: str) -> None:
        """A node that is down is no member any more; it is one again if it comes back."""
        if self.machines[name].state is NodeState.DOWN:
            self.machines[name].member = False

    def heal(self) -> None:
        for machine in self.machines.values():
            machine.up, machine.slow, machine.draining, machine.full, machine.closed = True, 1.0, False, False, False
            machine.dockerless = False
            machine.cut.clear()

    # -- time

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.tick()

    def tick(self) -> None:
        self.now += TICK
        for pending in [p for p in self.pending if p.at <= self.now]:
            self.pending.remove(pending)
            self._apply(pending)
        for machine in self.machines.values():
            self._work(machine)
        self._membership()
        self._lead()
        self._check()

    def _membership(self) -> None:
        for machine in self.machines.values():
            for leader in ("L0", "L1", "L2"):
                if machine.reaches(leader):
                    machine.heard[leader] = self.now
            if self.leader is None:
                continue
            if machine.reaches(self.leader):
                machine.member = True
                if not self._forsaken(machine):
                    machine.contact = machine.asked[self.leader] = self.now
                machine.state = NodeState.DRAINING if machine.draining else NodeState.READY
            silence = self.now - machine.heard.get(self.leader, self.since)
            if silence >= DOWN:
                machine.state = NodeState.DOWN
            elif silence >= SUSPECT:
                machine.state = NodeState.SUSPECT

    def _forsaken(self, machine: Machine) -> bool:
        """It asks for no lease: nobody but the fence can end what is exclusive, and is to end."""
        exclusive = [each for each in self.allocations.values() if each.node == machine.name and self.spec_of(each).exclusive]
        return machine.dockerless and all(each.stop for each in exclusive)

    # -- the leader

    def situation(self) -> Situation:
        assert self.leader is not None
        return Situation(
            app=self.app,
            target=self.generations[self.app.generation],
            healthy=self.generations.get(self.app.healthy),
            allocations=dict(self.allocations),
            statuses=dict(self.statuses),
            nodes={machine.name: machine.state for machine in self.machines.values() if machine.member},
            eligible={
                name: tuple(m.name for m in self.machines.values() if not m.closed)
                for name, service in self.target.services.items()
                if service.mode == "global"
            },
            heard={machine.name: machine.heard[self.leader] for machine in self.machines.values() if self.leader in machine.heard},
            closed={machine.name for machine in self.machines.values() if machine.closed},
            dockerless={machine.name for machine in self.machines.values() if machine.dockerless},
            asked={machine.name: machine.asked[self.leader] for machine in self.machines.values() if self.leader in machine.asked},
        )

    def _lead(self) -> None:
        if self.leader is None or self.removed:
            return
        for machine in self.machines.values():
            if machine.reaches(self.leader):
                self.statuses = {id: s for id, s in self.statuses.items() if id in self.allocations} | self._said(machine)
        states = tuple((machine.state, machine.member, machine.closed, machine.dockerless) for machine in self.machines.values())
        seen = (self.index, tuple(sorted(self.statuses.items())), states)
        if seen == self.seen and (self.alarm is None or self.now < self.alarm):
            return
        self.seen = seen
        situation = self.situation()
        decision = rollout.decide(situation, self.memory, self.now, TERMS)
        self.looks += 1
        self.memory, self.alarm = decision.observed, decision.next
        assert self.alarm is None or self.alarm > self.now
        again = rollout.decide(situation, self.memory, self.now, TERMS)
        assert replace_observed(again) == replace_observed(decision), "to look twice is to decide the same"
        if decision.changes and (plan := self._plan(decision)).changes:
            self.pending.append(plan)

    def _said(self, machine: Machine) -> dict[str, AllocationStatus]:
        said = {id: status for id, status in machine.ended.items() if id in self.allocations}
        for id, container in machine.containers.items():
            said[id] = AllocationStatus(
                id=id,
                phase=container.phase,
                health=InstanceHealth.UNKNOWN if machine.dockerless else container.health,
                restarts=container.restarts,
                exit_code=container.exit_code,
                stuck=container.stuck and not machine.dockerless,
            )
        return said

    def _plan(self, decision: Decision) -> Plan:
        at = self.now + TICK * self.random.randint(0, self.latency)
        placed: list[tuple[Start, str]] = []
        stops = list(decision.stops)
        there = [Placed(allocation=each, spec=self.spec_of(each)) for each in self.allocations.values()]
        asked = [(start, self._request(start)) for start in decision.starts]
        outcomes = place(asked, self._candidates(), there, {})
        for start, request in asked:
            outcome = outcomes[key_of(request)]
            if node := begins_on(start, outcome):
                placed.append((start, node))
            stops += gives_way(start, outcome)
        return Plan(at, self.app.index, decision, tuple(placed), tuple(stops))

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(
                node=Node(name=each.name, address="198.18.0.9", port=7443, role=Role.CONTROL, release="r1", state=each.state),
                capacity=ROOMY,
                apps=not each.closed,
                engine=not each.dockerless,
            )
            for each in self.machines.values()
            if each.member
        ]

    def _request(self, start: Start) -> Request:
        return Request(
            app="shop",
            service=start.service,
            slot=start.slot,
            spec=self.generations[start.generation].spec.services[start.service],
            node=start.node,
            instead_of=tuple(stop.allocation for stop in start.former),
            shunned=start.shunned,
        )

    def places(self, spec: ServiceSpec) -> int:
        """How many of a service all machines take."""
        limited = spec.ports or spec.reservations.memory
        most = 1 if limited else spec.placement.max_per_node
        return most * len(self.machines) if most else 1000

    def spec_of(self, allocation: Allocation) -> ServiceSpec:
        return self.generations[allocation.generation].spec.services[allocation.service]

    def _apply(self, pending: Plan) -> None:
        decision = pending.decision
        if self.removed or (self.check_and_set and pending.index != self.app.index):
            self.refused += 1
            return
        self._check_paused(pending.stops)
        self.applied += 1
        self.index += 1
        serial = self.app.serial
        for stop in pending.stops:
            if stop.allocation in self.allocations:
                self.allocations[stop.allocation] = replace(
                    self.allocations[stop.allocation], stop=True, reason=stop.reason, index=self.index
                )
        for id in self.allocations.keys() & set(decision.done):
            self.allocations[id] = replace(self.allocations[id], done=True, index=self.index)
        for id in decision.forgets:
            self.allocations.pop(id, None)
        for start, home in pending.starts:
            serial += 1
            id = allocation_id("shop", start.service, start.slot, serial)
            self.allocations[id] = Allocation(
                id=id,
                app="shop",
                service=start.service,
                slot=start.slot,
                node=home,
                generation=start.generation,
                revision=start.revision,
                reason=start.reason,
                index=self.index,
            )
            there = sum((each.node, each.service) == (home, start.service) for each in self.allocations.values())
            most = 0 if start.node else self.spec_of(self.allocations[id]).placement.max_per_node
            assert not most or there <= most, f"{there} of {start.service} on {home} at {self.now}"
        if decision.generation is not None:
            self.generations[decision.generation.number] = decision.generation
        self.app = replace(decision.app or self.app, serial=serial, index=self.index)
        self.events += decision.events
        self.removed = decision.gone

    # -- a node's agent and its containers

    def _work(self, machine: Machine) -> None:
        if not machine.up:
            return
        for id, container in list(machine.containers.items()):
            if container.exclusive and self.now > machine.contact + LEASE and container.phase not in (Phase.DONE, Phase.FAILED):
                container.lacking, container.stuck = None, False
                if container.phase is Phase.PULLING:
                    continue  # it waits for its lease
                container.phase, container.until, container.health = Phase.BACKOFF, self.now, InstanceHealth.UNKNOWN
            elif self.now >= container.until and not machine.dockerless:
                self._advance(machine, id, container)
        if machine.reaches(self.leader) and not machine.dockerless:
            self._follow(machine)

    def _follow(self, machine: Machine) -> None:
        for id, container in list(machine.containers.items()):
            allocation = self.allocations.get(id)
            if allocation is not None and not allocation.stop:
                continue
            if container.phase is not Phase.RUNNING and container.phase is not Phase.STOPPING:
                self._remove(machine, id)
            elif container.phase is Phase.RUNNING:
                container.phase, container.until = Phase.STOPPING, self.now + STARTING * machine.slow
                container.health = InstanceHealth.UNKNOWN
        for id, allocation in self.allocations.items():
            if allocation.node != machine.name or id in machine.containers:
                continue
            if allocation.stop:
                machine.ended.setdefault(id, AllocationStatus(id=id, phase=Phase.DONE))
            elif id not in machine.ended:
                spec = self.spec_of(allocation)
                image = spec.container.image
                phase = Phase.STARTING if machine.gets(image) else Phase.PULLING
                machine.containers[id] = Container(allocation, image, spec.exclusive, phase, self.now + STARTING * machine.slow)

    def _remove(self, machine: Machine, id: str) -> None:
        del machine.containers[id]
        machine.ended[id] = AllocationStatus(id=id, phase=Phase.DONE, exit_code=143)

    def _advance(self, machine: Machine, id: str, container: Container) -> None:
        match container.phase:
            case Phase.STOPPING:
                self._remove(machine, id)
            case Phase.PULLING:
                self._pull(machine, container)
            case Phase.STARTING:
                machine.images.add(container.image)
                container.phase, container.until = Phase.RUNNING, self.now + STARTING * machine.slow
            case Phase.BACKOFF:
                container.phase, container.until = Phase.STARTING, self.now + STARTING * machine.slow
                container.restarts += 1
            case Phase.RUNNING if container.health is InstanceHealth.UNKNOWN:
                self._show(container)
            case _:
                pass

    def _pull(self, machine: Machine, container: Container) -> None:
        container.until = self.now + STARTING * machine.slow
        if machine.gets(container.image):
            container.phase, container.lacking, container.stuck = Phase.STARTING, None, False
            return
        container.lacking = self.now if container.lacking is None else container.lacking
        container.stuck = self.now - container.lacking >= STUCK

    def _show(self, container: Container) -> None:
        match container.image:
            case "crash":
                self._end(container)
            case "late" if container.restarts < LATE:
                self._end(container)
            case "sick":
                container.health = InstanceHealth.UNHEALTHY
            case "fail":
                container.phase, container.exit_code = Phase.FAILED, 1
            case "job":
                container.phase, container.exit_code = Phase.DONE, 0
            case _:
                container.health = InstanceHealth.HEALTHY

    def _end(self, container: Container) -> None:
        container.phase, container.until = Phase.BACKOFF, self.now + STARTING
        container.health, container.exit_code = InstanceHealth.UNKNOWN, 1

    # -- what must hold

    def take_as_given(self) -> None:
        """However many there are of a service: it is not the leaders' doing."""
        self.counts = {name: self._count(name) for name in self.target.services}

    def _check(self) -> None:
        given_up = {machine.name for machine in self.machines.values() if machine.state is NodeState.DOWN or not machine.member}
        self.lost |= {
            id for id, allocation in self.allocations.items() if allocation.node in given_up or allocation.reason.startswith("lost")
        }
        for name, service in self.target.services.items():
            if service.exclusive:
                there = self._containers(name)
                running = [container for machine, container in there if machine.up and container.runs and container.exclusive]
                assert len(running) < 2, f"two of an exclusive service run at {self.now}: {there}"
            self._check_bound(name, service)
        self._check_limits()

    def _containers(self, service: str) -> list[tuple[Machine, Container]]:
        return [
            (machine, container)
            for machine in self.machines.values()
            for container in machine.containers.values()
            if container.allocation.service == service
        ]

    def _count(self, service: str) -> int:
        """What is placed, and was stopped but still is there."""
        containers = {container.allocation.id: container for _, container in self._containers(service)}
        ended = {id for machine in self.machines.values() for id in machine.ended}
        count = 0
        for allocation in self.allocations.values():
            if allocation.service != service or allocation.id in self.lost:
                continue
            container = containers.get(allocation.id)
            over = allocation.stop or allocation.id in ended if container is None else container.phase in (Phase.DONE, Phase.FAILED)
            count += not over
        return count

    def _check_bound(self, name: str, service: ServiceSpec) -> None:
        """It may be above the bound only if it was so before."""
        if service.mode == "global":
            return
        count = self._count(name)
        how = self._how(service)
        extra = (how.parallelism or service.replicas) if how.order == "start-first" and not service.exclusive else 0
        bound = max(service.replicas + extra, self.counts.get(name, 0))
        assert count <= bound, f"{count} of {name} at {self.now}, at most {bound}: {self.allocations}"
        self.counts[name] = count

    def _how(self, service: ServiceSpec) -> Update:
        return service.rollback if self.generations[self.app.generation].origin else service.update

    def _check_limits(self) -> None:
        """Who has a port has it whatever shall become of it."""
        ports: Counter[tuple[str, int]] = Counter()
        for each in self.allocations.values():
            ports.update((each.node, port.published) for port in self.spec_of(each).ports)
        assert not ports or max(ports.values()) == 1, f"a port is had twice at {self.now}: {ports}"

    def _check_paused(self, stops: Iterable[Stop]) -> None:
        paused = {name for name, of in self.app.rollouts.items() if of.stage is Stage.PAUSED and of.generation == self.app.generation}
        for stop in stops:
            allocation = self.allocations.get(stop.allocation)
            if allocation is not None and allocation.service in paused and not self.app.stopping:
                revision = wanted_revision(self.app, self.target, allocation.service)
                if self.app.rollouts[allocation.service].revision == revision:
                    machine = self.machines[allocation.node]
                    leaves = machine.draining or machine.state in (NodeState.DRAINING, NodeState.DOWN) or stop.reason.startswith("lost")
                    elsewhere = any(word in stop.reason for word in ("empty", "no apps", "cannot be started"))
                    assert leaves or elsewhere, f"{stop} while paused"

    def fit(self, service: str) -> int:
        return sum(
            container.phase is Phase.RUNNING and container.health is InstanceHealth.HEALTHY
            for machine in self.machines.values()
            if machine.up
            for container in machine.containers.values()
            if container.allocation.service == service
        )

    def live(self, service: str) -> list[Allocation]:
        return [allocation for allocation in self.allocations.values() if allocation.service == service and not allocation.stop]

    def quiet(self, limit: float = 400.0, calm: float = 20.0) -> None:
        """Until nothing has been recorded for `calm` seconds."""
        end, applied, since = self.now + limit, self.applied, self.now
        while self.now - since < calm:
            assert self.now < end, f"no end of it: {self.app}, {self.allocations}, {self.events[-10:]}"
            self.tick()
            if self.applied != applied:
                applied, since = self.applied, self.now


def replace_starts(decision: Decision) -> Decision:
    return dataclasses.replace(decision, starts=())


def replace_observed(decision: Decision) -> tuple[object, ...]:
    return decision.app, decision.generation, decision.starts, decision.stops, decision.done, decision.forgets, decision.events


def service(
    image: str = "good",
    replicas: int = 3,
    *,
    update: Update | None = None,
    rollback: Update | None = None,
    mode: str = "replicated",
    exclusive: bool = False,
    needs: Iterable[str] = (),
    required: bool = True,
    limits: str = "",
) -> ServiceSpec:
    """`limits`: what keeps a second one off a node (LIMITS), and how many at most there may be."""
    return ServiceSpec(
        container=ContainerSpec(image=image),
        replicas=replicas,
        mode="global" if mode == "global" else "replicated",
        update=update or Update(monitor=1.0),
        rollback=rollback or Update(monitor=1.0),
        exclusive=exclusive,
        placement=Placement(max_per_node={"one": 1, "two": 2}.get(limits, 0)),
        ports=(Port(target=80, published=8000 if mode == "global" else 8080, mode="host"),) if limits == "port" else (),
        reservations=Resources(memory=MOST_MEMORY) if limits == "room" else Resources(),
        depends_on={name: Dependency(condition="healthy", required=required) for name in needs},
    )
