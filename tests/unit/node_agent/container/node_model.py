"""A node's rounds in virtual time, against docker_model: what Rounds and Executor do, without threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from docker_model import CLUSTER, NODE, Docker

from hmcore.apps.records import AllocationStatus
from node_agent.container import info
from node_agent.container.actions import Action, Cancel, Pull
from node_agent.container.creation import Wanted
from node_agent.container.info import ContainerInfo
from node_agent.container.memory import Memory, begun, recalled, settled
from node_agent.container.reconcile import Health, Seen, Verdict, ends_asked, images_asked, reconcile


def no_fault(action: Action) -> str:
    return ""


@dataclass
class Node:
    """`under_way`: actions that Docker has not answered for. `fit`: allocations that the cluster knows as fit; None: nobody can tell."""

    docker: Docker
    wanted: dict[str, Wanted]
    now: float = 1000.0
    memory: Memory = field(default_factory=Memory)
    statuses: Mapping[str, AllocationStatus] = field(default_factory=dict)
    healths: dict[str, Health] = field(default_factory=dict)
    under_way: list[Action] = field(default_factory=list)
    wake: float = 0.0
    fit: set[str] | None = None

    def look(self) -> tuple[int, dict[str, ContainerInfo]]:
        return self.memory.settled, self.docker.look()

    def decide(self, looked: tuple[int, dict[str, ContainerInfo]] | None = None) -> Verdict:
        asked, containers = looked or self.look()
        here = images_asked(self.wanted, self.memory) & self.docker.images
        by_docker = self.docker.by_docker(ends_asked(self.wanted, containers, self.memory, NODE))
        seen = Seen(containers, asked, self.now, self.now, here, self.healths, self.fit, by_docker)
        verdict = reconcile(self.wanted, seen, self.memory, NODE)
        self.memory, self.statuses, self.wake = verdict.memory, verdict.statuses, verdict.wake
        for action in verdict.actions:
            self._may(action)
        return verdict

    def round(
        self,
        *,
        room: int = 8,
        fault: Callable[[Action], str] = no_fault,
        looked: tuple[int, dict[str, ContainerInfo]] | None = None,
        hang: Callable[[Action], bool] = lambda action: False,
    ) -> Verdict:
        """Look, decide, carry out; what hangs stays under way."""
        verdict = self.decide(looked)
        for action in verdict.actions[:room]:
            if isinstance(action, Cancel):
                self.cancel(action)
                continue
            self.memory = begun(self.memory, action)
            if hang(action):
                self.under_way.append(action)
            else:
                self._carry_out(action, fault(action))
        return verdict

    def answer(self, fault: str = "") -> None:
        """The first action that is under way is carried out now."""
        self._carry_out(self.under_way.pop(0), fault)

    def cancel(self, cancel: Cancel) -> None:
        found = next(action for action in self.under_way if action.allocation == cancel.allocation)
        assert isinstance(found, Pull)
        self.under_way.remove(found)
        self.memory = settled(self.memory, found, None, self.now)

    def restart_agent(self, *, told: bool) -> None:
        """All memory is lost, but for what the cluster was told, if anything; Docker still carries out what it was asked to."""
        for action in self.under_way:
            self.docker.perform(action)
        self.under_way = []
        self.memory = recalled(self.statuses.values()) if told else Memory()

    def settle(self, rounds: int = 60) -> int:
        """Rounds until nothing is left to do, nothing fails any more and time goes by."""
        while self.under_way:
            self.answer()
        for number in range(rounds):
            if not self.round().actions and self.wake == float("inf"):
                return number
            self.now = max(self.now + 0.1, self.wake if self.wake != float("inf") else 0.0)
        raise AssertionError(f"still not settled after {rounds} rounds: {self.statuses}")

    def _carry_out(self, action: Action, fault: str) -> None:
        self.memory = settled(self.memory, action, self.docker.perform(action, fault), self.now)

    def _may(self, action: Action) -> None:
        """What must never happen, whatever was before."""
        container = self.docker.containers.get(getattr(action, "container", ""))
        if container is None:
            return
        assert container.labels.get(info.CLUSTER) == CLUSTER, f"{action} is about somebody else's container"
        assert container.labels.get(info.ALLOCATION) == action.allocation
        want = self.wanted.get(action.allocation)
        if want is None or want.allocation.stop or container.state != "running":
            return
        rivals = [c for c in self.docker.containers.values() if c.labels.get(info.ALLOCATION) == action.allocation and c is not container]
        right = container.labels.get(info.REVISION) == want.allocation.revision
        assert not right or rivals, f"{action} is about a container that runs and is wanted"
