"""Hundreds of nodes that run apps, in virtual time: the replicated state, the leader's plan and each node's reconcile are the product's;
Docker, heartbeats and the log are models.

A plan reaches the log a tick after it was made, like everything else of that tick in one entry, and is refused if its app has changed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from docker_model import Docker
from msgspec.structs import replace
from node_model import Node as Rounds

from hmcore.apps.records import Allocation, AllocationStatus, Machine, Phase, Stage, statuses_key
from hmcore.apps.spec import AppSpec, ServiceSpec
from hmcore.records import Node, NodeState, Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import AdmitNode, PlanApp, PutStatuses
from node_agent.consensus.statemachine.commands import Command, FormCluster, PutNode, Refused, SetNodeState, decode_result, encode
from node_agent.consensus.statemachine.machine import Proposal, apply_batch, encode_batch
from node_agent.consensus.statemachine.state import State
from node_agent.container.actions import Action
from node_agent.container.creation import Wanted
from node_agent.container.fencing.chain import Permit
from node_agent.container.info import EXCLUSIVE
from node_agent.container.reconcile import unanswered
from node_agent.container.wanted import permitted, wanted_of
from node_agent.orchestration.appplan import Cluster, Step, steps
from node_agent.orchestration.candidates import candidates, homes
from node_agent.orchestration.rollout import Terms
from node_agent.orchestration.rollouts.memory import is_fit

TICK = 0.5  # seconds
SUSPECT, DOWN, DOCKER = 2.0, 4.0, 5.0
LEASE = 6.0
TERMS = Terms(fence_after=LEASE + 2 * TICK, lost_after=DOWN, docker_within=DOCKER)
CPUS, MEMORY = 4000, 8 << 30
BAD = "bad:1"  # an image whose containers end at once
IMAGES = {"good:1", "good:2", "good:3", BAD}


class Here(Rounds):
    """What a node's agent does. Of what is barred, also what runs and is wanted is killed."""

    def _may(self, action: Action) -> None:
        want = self.wanted.get(action.allocation)
        if want is None or not want.barred:
            super()._may(action)


@dataclass
class Member:
    """`up`: the machine runs. `cut`: its agent reaches nobody. `dockerless`: its Docker does
    nothing, while its containers run on. `lease`: the log index that it began with; 0: it has none, `asks`: for one.
    `own`: allocations as it knows them. `busy`: it is to look at once. `staying`: None while it runs apps; else what it had when it
    was told to run none, and may have until that has left."""

    name: str
    here: Here
    up: bool = True
    cut: bool = False
    dockerless: bool = False
    contact: float = 0.0
    lease: int = 0
    asks: bool = False
    incarnation: int = 1
    own: Mapping[str, Allocation] = field(default_factory=dict)
    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    fares: tuple[AllocationStatus, ...] = ()  # without times, as what was told
    told: tuple[AllocationStatus, ...] = ()
    telling: tuple[AllocationStatus, ...] | None = None
    busy: bool = True
    staying: frozenset[str] | None = None

    @property
    def reached(self) -> bool:
        return self.up and not self.cut


class World:
    def __init__(self, seed: int, nodes: int, closed: int = 0) -> None:
        """`closed`: how many run no apps, from the first."""
        self.random = random.Random(seed)
        self.now = 0.0
        self.state = State()
        self.refused = self.looks = self.plans = 0
        self.members = {name: Member(name, Here(Docker(images=set(IMAGES)), {})) for name in (f"n{number:03}" for number in range(nodes))}
        self.leader = True
        self.since = 0.0
        self.heard: dict[str, float] = {}
        self.asked: dict[str, float] = {}
        self.made: dict[str, Step] = {}
        self.pending: list[Command] = []
        self.seen: tuple[object, ...] = ()
        self._indexed: object = None
        self._by_node: dict[str, dict[str, Allocation]] = {}
        self._checked: tuple[object, ...] = ()
        self._counts: Counter[tuple[str, str]] = Counter()
        self.apply([FormCluster(id="hm-a", bootstrap="b1", level=levels.LATEST)])
        self.apply([PutNode(node=_node(name, number)) for number, name in enumerate(self.members)])
        for name in self.random.sample(sorted(self.members), closed):
            self.members[name].staying = frozenset()
        self.apply([self._tells_all(member) for member in self.members.values()])

    # -- the log

    def apply(self, commands: list[Command]) -> list[bool]:
        """In one entry. Which were not refused."""
        if not commands:
            return []
        index = self.state.index + 1
        batch = encode_batch([Proposal(f"r{index}-{number}", encode(command)) for number, command in enumerate(commands)])
        self.state, receipts, _ = apply_batch(self.state, batch, index)
        return [not isinstance(decode_result(receipt.result), Refused) for receipt in receipts]

    def do(self, command: Command) -> None:
        """By an operator."""
        assert self.apply([command]) == [True], command

    # -- faults

    def elect(self, *, headless: bool = False) -> None:
        """Another leads, or for a while nobody; what was under way may be lost."""
        self.leader, self.since = not headless, self.now
        self.heard, self.asked, self.made, self.seen = {}, {}, {}, ()
        if self.random.random() < 0.5:
            self.pending = []

    def die(self, name: str) -> None:
        """The whole machine."""
        member = self.members[name]
        member.up = False
        member.here.docker.restart()

    def restart_agent(self, name: str) -> None:
        member = self.members[name]
        member.here.restart_agent(told=True)
        member.incarnation += 1
        member.lease, member.telling, member.busy, member.told = 0, None, True, ()

    def back(self, name: str) -> None:
        member = self.members[name]
        member.cut = False
        if not member.up:
            member.up = True
            self.restart_agent(name)

    def hang_docker(self, name: str) -> None:
        """Or end that."""
        member = self.members[name]
        member.dockerless, member.busy = not member.dockerless, True
        self.do(self._tells_all(member))

    def configure(self, name: str, *, apps: bool) -> None:
        """Whether it runs apps, by its file; its agent starts anew. A plan that is on its way to the log knows nothing of it."""
        member = self.members[name]
        self.restart_agent(name)
        coming = {start.key for plan in self.pending if isinstance(plan, PlanApp) for start in plan.starts if start.node == name}
        member.staying = None if apps else frozenset(coming.union(each.key for each in self.own(name).values()))
        self.do(self._tells_all(member))

    def _tells_all(self, member: Member) -> PutStatuses:
        machine = Machine(node=member.name, cpus=CPUS, memory=MEMORY, engine=not member.dockerless, apps=member.staying is None)
        return PutStatuses(node=member.name, incarnation=member.incarnation, allocations=member.fares, machine=machine)

    # -- time

    def tick(self) -> None:
        self.now += TICK
        self._take()
        tells = [command for member in self.members.values() if (command := self._work(member)) is not None]
        if self.leader:
            self._lead(self._membership())
            self.pending += tells
        else:
            self._untold()
        self._check()

    def _take(self) -> None:
        """What was proposed at the last tick. Without a leader, nothing is taken."""
        commands, self.pending = self.pending, []
        if not self.leader:
            self._untold()
            return
        for command, taken in zip(commands, self.apply(commands), strict=True):
            match command:
                case PutStatuses(node=name) if taken and (telling := self.members[name].telling) is not None:
                    self.members[name].told, self.members[name].telling = telling, None
                case AdmitNode(node=name) if taken and self.members[name].reached:
                    self.members[name].lease, self.members[name].busy = self.state.index, True
                case PlanApp():
                    self.plans += 1
                    self.refused += not taken
        self._untold()

    def _untold(self) -> None:
        for member in self.members.values():
            member.telling = None

    # -- nodes

    def _work(self, member: Member) -> PutStatuses | None:
        if not member.up:
            return None
        here = member.here
        if member.reached:
            self._follow(member)
        exclusive = any(want.exclusive for want in member.wanted.values())
        if exclusive:
            self._lease(member)
        if not (member.busy or self.now >= here.wake):
            return None
        recorded = self.state.statuses.get(statuses_key(member.name)) if self.leader and member.reached else None
        here.fit = None if recorded is None else {each.id for each in recorded.allocations if is_fit(each)}
        here.now = self.now
        if member.dockerless:
            return self._tells(member, unanswered(here.statuses))
        acted = bool(here.round().actions)
        member.busy = self._end_bad(member) or acted or any(each.phase is Phase.STOPPING for each in here.statuses.values())
        return self._tells(member, here.statuses)

    def _tells(self, member: Member, statuses: Mapping[str, AllocationStatus]) -> PutStatuses | None:
        member.fares = tuple(replace(statuses[id], since=0.0) for id in sorted(statuses))
        if not (member.reached and self.leader) or member.fares == member.told:
            return None
        member.telling = member.fares
        return PutStatuses(node=member.name, incarnation=member.incarnation, allocations=member.fares)

    def _follow(self, member: Member) -> None:
        exclusive = [want for want in member.wanted.values() if want.exclusive]
        if self.leader and not (member.dockerless and all(want.allocation.stop for want in exclusive)):
            member.contact = self.asked[member.name] = self.now
        own = self.own(member.name)
        if own != member.own:
            member.own, member.busy = own, True
            member.wanted = member.here.wanted = wanted_of(own, self.state.generations)
        if member.fares != member.told:
            member.busy = True

    def _lease(self, member: Member) -> None:
        if member.lease and self.now >= member.contact + LEASE:
            member.lease, member.busy = 0, True
        if member.dockerless and not member.lease:
            self._fence(member)
            return
        if not member.lease and member.reached and self.leader:
            self.pending.append(AdmitNode(node=member.name))
        permit = Permit(lease=member.lease) if member.lease else Permit("no lease", "no lease")
        member.here.wanted = permitted(member.wanted, permit)

    def _fence(self, member: Member) -> None:
        """It needs no Docker."""
        for container in member.here.docker.containers.values():
            if container.state == "running" and container.labels.get(EXCLUSIVE) == "1":
                member.here.docker.end(container.id, 137)

    def _end_bad(self, member: Member) -> bool:
        ended = False
        for container in member.here.docker.containers.values():
            want = member.wanted.get(container.labels.get("hypermesh.allocation", ""))
            if container.state == "running" and want is not None and want.service is not None and want.service.container.image == BAD:
                member.here.docker.end(container.id, 1)
                ended = True
        return ended

    def own(self, node: str) -> dict[str, Allocation]:
        if self.state.allocations is not self._indexed:
            self._indexed = self.state.allocations
            self._by_node = {}
            for each in self.state.allocations.values():
                self._by_node.setdefault(each.node, {})[each.id] = each
        return self._by_node.get(node, {})

    # -- the leader

    def _membership(self) -> list[Command]:
        found: list[Command] = []
        for name, member in self.members.items():
            if member.reached:
                self.heard[name] = self.now
            silence = self.now - self.heard.get(name, self.since)
            state = NodeState.DOWN if silence >= DOWN else NodeState.SUSPECT if silence >= SUSPECT else NodeState.READY
            if self.state.nodes[name].state is not state and (member.reached or state is not NodeState.READY):
                found.append(SetNodeState(name=name, state=state))
        return found

    def _lead(self, found: list[Command]) -> None:
        """It looks when something has changed, or is due; what members are is in the log before."""
        self.apply(found)
        state = self.state
        seen = (state.apps, state.allocations, state.statuses, state.nodes, state.machines)
        due = min((each.next for each in self.made.values() if each.next is not None), default=None)
        unchanged = len(self.seen) == len(seen) and all(new is old for new, old in zip(seen, self.seen, strict=True))
        if unchanged and (due is None or self.now < due):
            return
        self.seen = seen
        self.looks += 1
        cluster = Cluster(candidates(state), dict(self.heard), homes(state), dict(self.asked))
        self.made = steps(state, state.apps, cluster, {name: each.observed for name, each in self.made.items()}, self.now, TERMS)
        self.pending += [each.command for each in self.made.values() if each.command is not None]

    # -- what must hold

    def _check(self) -> None:
        self._check_exclusive()
        now = (self.state.allocations, self.state.nodes)
        if self._checked and all(new is old for new, old in zip(now, self._checked, strict=True)):
            return
        self._checked = now
        counts: Counter[tuple[str, str]] = Counter()
        memory: Counter[str] = Counter()
        there: Counter[tuple[str, str, str]] = Counter()
        for each in self.state.allocations.values():
            service = self.spec(each)
            memory[each.node] += service.reservations.memory
            staying = self.members[each.node].staying
            assert staying is None or each.key in staying, f"{each.id} was placed on {each.node}, which runs no apps"
            if not each.stop:
                there[each.app, each.service, each.node] += 1
                counts[each.app, each.service] += self.state.nodes[each.node].state is not NodeState.DOWN
        over = {node: reserved for node, reserved in memory.items() if reserved > MEMORY}
        assert not over, f"more is reserved than there is at {self.now}: {over}"
        for (app, name, node), count in there.items():
            most = self.wanted(app).services[name].placement.max_per_node if name in self.wanted(app).services else 0
            assert not most or count <= most, f"{count} of {app}/{name} on {node} at {self.now}"
        for (app, name), count in counts.items():
            bound = max(self._bound(app, name), self._counts[app, name])
            assert count <= bound, f"{count} of {app}/{name} at {self.now}, at most {bound}"
        self._counts = counts

    def _check_exclusive(self) -> None:
        """Wherever a container runs: on machines that are cut off, too."""
        running: Counter[str] = Counter()
        for member in self.members.values():
            for container in member.here.docker.containers.values() if member.up else ():
                if container.state == "running" and container.labels.get(EXCLUSIVE) == "1":  # also of apps that are no more
                    running[container.labels["hypermesh.allocation"].rsplit(".", 2)[0]] += 1
        twice = {service: count for service, count in running.items() if count > 1}
        assert not twice, f"exclusive services run more than once at {self.now}: {twice}"

    def spec(self, allocation: Allocation) -> ServiceSpec:
        return self.state.generations[f"{allocation.app}@{allocation.generation}"].spec.services[allocation.service]

    def wanted(self, app: str) -> AppSpec:
        return self.state.generations[f"{app}@{self.state.apps[app].generation}"].spec

    def _bound(self, app: str, name: str) -> int:
        service = self.wanted(app).services.get(name)
        if service is None:
            return 0
        how = service.rollback if self.state.generations[f"{app}@{self.state.apps[app].generation}"].origin else service.update
        return service.replicas + ((how.parallelism or service.replicas) if how.order == "start-first" and not service.exclusive else 0)

    # -- what comes of it

    def quiet(self, limit: float, calm: float = 8.0) -> float:
        """Until nothing was planned or told for `calm` seconds. Returns how many that took."""
        began = since = self.now
        while self.now - since < calm:
            assert self.now - began < limit, f"no end of it: {self.left()}"
            before = self.state.index
            self.tick()
            if self.state.index != before or self.pending:
                since = self.now
        return since - began

    def left(self) -> dict[str, object]:
        """What is not as it shall be, by app."""
        found: dict[str, object] = {}
        for name, app in self.state.apps.items():
            stages = {service: rollout.stage for service, rollout in app.rollouts.items()}
            waits = dict(self.made[name].waits) if name in self.made else {}
            if set(stages.values()) - {Stage.STEADY} or waits:
                found[name] = (app.generation, app.healthy, stages, waits)
        return found

    def running(self) -> set[str]:
        """Ids of the allocations of all containers that run, on machines that do."""
        return {
            container.labels["hypermesh.allocation"]
            for member in self.members.values()
            if member.up
            for container in member.here.docker.containers.values()
            if container.state == "running"
        }


def _node(name: str, number: int) -> Node:
    labels = {"zone": "abc"[number % 3]}
    return Node(name=name, address="198.18.0.9", port=7443, role=Role.CONTROL if number < 5 else Role.WORKER, release="r1", labels=labels)
