"""An app for tests of rollouts: what is decided is recorded at once, and replicas are as the test says."""

from __future__ import annotations

from msgspec.structs import replace

from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Phase, allocation_id
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.records import InstanceHealth, NodeState
from node_agent.orchestration.rollout import Decision, Observed, Situation, Terms, decide


def spec(image: str = "v1", replicas: int = 3, **more: object) -> ServiceSpec:
    return ServiceSpec(container=ContainerSpec(image=image), replicas=replicas, **more)  # type: ignore[arg-type]


class Scene:
    """Replicas of a slot live on the node of that number, until a test says otherwise."""

    def __init__(self, nodes: int = 3, **services: ServiceSpec) -> None:
        self.app = App(name="shop", generation=1, index=1)
        self.generations = {1: Generation(app="shop", number=1, spec=AppSpec(services=services), digest="1")}
        self.allocations: dict[str, Allocation] = {}
        self.statuses: dict[str, AllocationStatus] = {}
        self.nodes = {f"n{number}": NodeState.READY for number in range(1, nodes + 1)}
        self.heard: dict[str, float] = {}
        self.stopped: set[str] = set()  # nodes whose agents said good-bye
        self.closed: set[str] = set()  # nodes that run no apps
        self.dockerless: set[str] = set()
        self.pinned: set[str] = set()
        self.anchors: set[str] = set()
        self.asked: dict[str, float] = {}
        self.eligible = {"agent": tuple(self.nodes)}
        self.memory = Observed()
        self.terms = Terms(fence_after=10.0)
        self.now = 100.0
        self.homes: dict[int, str] = {}

    def deploy(self, origin: int = 0, **services: ServiceSpec) -> None:
        number = self.app.generation + 1
        self.generations[number] = Generation(app="shop", number=number, spec=AppSpec(services=services), digest=str(number), origin=origin)
        self.app = replace(self.app, generation=number)

    def look(self, after: float = 0.0) -> Decision:
        """`after` seconds. What is decided is recorded."""
        self.now += after
        decision = self.peek()
        self.memory = decision.observed
        for stop in decision.stops:
            self.allocations[stop.allocation] = replace(self.allocations[stop.allocation], stop=True, reason=stop.reason)
        for id in decision.done:
            self.allocations[id] = replace(self.allocations[id], done=True)
        for id in decision.forgets:
            del self.allocations[id]
        serial = self.app.serial
        for start in decision.starts:
            if start.after:  # there is always a place for it
                for stop in start.former:
                    self.allocations[stop.allocation] = replace(self.allocations[stop.allocation], stop=True, reason=stop.reason)
                continue
            serial += 1
            id = allocation_id("shop", start.service, start.slot, serial)
            node = start.node or self.homes.get(start.slot, f"n{(start.slot - 1) % len(self.nodes) + 1}")
            self.allocations[id] = Allocation(
                id=id,
                app="shop",
                service=start.service,
                slot=start.slot,
                node=node,
                generation=start.generation,
                revision=start.revision,
                reason=start.reason,
            )
        if decision.generation is not None:
            self.generations[decision.generation.number] = decision.generation
        self.app = replace(decision.app or self.app, serial=serial)
        return decision

    def peek(self) -> Decision:
        return decide(self.situation, self.memory, self.now, self.terms)

    @property
    def situation(self) -> Situation:
        return Situation(
            app=self.app,
            target=self.generations[self.app.generation],
            healthy=self.generations.get(self.app.healthy),
            allocations=self.allocations,
            statuses=self.statuses,
            nodes=self.nodes,
            eligible={name: tuple(node for node in nodes if node not in self.closed) for name, nodes in self.eligible.items()},
            heard=self.heard,
            stopped=self.stopped,
            closed=self.closed,
            dockerless=self.dockerless,
            pinned=self.pinned,
            anchors=self.anchors,
            asked=self.asked,
        )

    def tell(self, id: str, phase: Phase = Phase.RUNNING, health: InstanceHealth = InstanceHealth.HEALTHY, **more: object) -> None:
        self.statuses[id] = AllocationStatus(id=id, phase=phase, health=health, **more)  # type: ignore[arg-type]

    def obey(self) -> None:
        """Every node there does at once what it should: what shall run is fit, what shall not has ended."""
        for id, allocation in self.allocations.items():
            if self.nodes.get(allocation.node) is NodeState.DOWN or allocation.node in self.dockerless or allocation.done:
                continue
            if allocation.stop:
                self.tell(id, Phase.DONE, InstanceHealth.UNKNOWN)
            elif id not in self.statuses:
                self.tell(id)

    def settle(self, seconds: float = 120.0) -> Decision:
        """Go on until nothing is left to do."""
        end = self.now + seconds
        while True:
            self.obey()
            decision = self.look()
            if decision.changes:
                continue
            if decision.next is None:
                return decision
            assert decision.next < end, decision
            self.now = decision.next

    def elect(self) -> None:
        """Another leader: it remembers nothing, and has been told nothing yet."""
        self.memory = Observed()
        self.statuses = {}

    def live(self, service: str = "web") -> list[str]:
        return sorted(id for id, allocation in self.allocations.items() if allocation.service == service and not allocation.stop)

    def images(self, service: str = "web") -> list[str]:
        return [self.generations[self.allocations[id].generation].spec.services[service].container.image for id in self.live(service)]


def running(nodes: int = 3, **services: ServiceSpec) -> Scene:
    """Deployed, and healthy."""
    scene = Scene(nodes, **services)
    scene.settle()
    assert scene.app.healthy == 1
    return scene


def started(decision: Decision) -> list[tuple[str, int]]:
    return [(start.service, start.slot) for start in decision.starts]


def stopped(decision: Decision) -> list[str]:
    return [stop.allocation for stop in decision.stops]


def kinds(decision: Decision) -> list[str]:
    return [event.kind for event in decision.events]
