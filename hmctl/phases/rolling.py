"""Restart agents that run with what has changed since: control nodes one after the other, each healthy again before the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hmcore.errors import CallTimeout, HyperMeshError, NoQuorum, NotLeader, PeerUnreachable
from hmcore.records import Role
from hmctl.phases.agents import Agents
from hmctl.phases.base import Known, Step, Target
from hmctl.phases.healthy import PATIENCE, POLL, judge, wait_steady
from hmctl.phases.runner import Outcome, Progress, Timings
from hmctl.phases.start import restart, stale
from hmctl.remote.base import Remote
from hmctl.text import listed

if TYPE_CHECKING:
    from hmcore.config.inventory import Host

T = TypeVar("T", bound=Known)
TITLE = "Restart agents"


def plan(targets: Sequence[Target]) -> list[Step]:
    """Only hosts whose running agent no longer matches its files. Pure."""
    return [
        Step(target.name, TITLE, f"restart the agent: its {listed(reasons)} changed") for target in targets if (reasons := stale(target))
    ]


def batches(targets: Sequence[Target], leader: str | None, workers_at_once: int) -> list[list[Target]]:
    """The order: control nodes singly, the leader last (so that leadership moves once), then workers by batches. Pure."""
    control, workers = in_order([target for target in targets if stale(target)], leader, workers_at_once)
    return control + workers


def in_order(due: Sequence[T], leader: str | None, workers_at_once: int) -> tuple[list[list[T]], list[list[T]]]:
    """Control nodes singly, the leader last; workers by batches. Pure."""
    control = sorted((t for t in due if t.host.role is Role.CONTROL), key=lambda target: target.name == leader)
    workers = [target for target in due if target.host.role is not Role.CONTROL]
    size = max(1, workers_at_once)
    return [[target] for target in control], [workers[start : start + size] for start in range(0, len(workers), size)]


@dataclass(frozen=True, slots=True)
class RollingRestart:
    """`limit`: how long one agent may take to start, `patience`: how long the cluster may take to be healthy again, `soak`: how long it
    must then stay so before the next batch (seconds). `turn` is entered while a host is at work, and may refuse it; at most `at_once`
    hosts are."""

    limit: float
    patience: float
    soak: float = 0.0
    at_once: int = 32
    turn: Callable[[Target], AbstractAsyncContextManager[None]] = lambda target: nullcontext()

    async def run(
        self,
        targets: Sequence[Target],
        remotes: Mapping[str, Remote],
        agents: Agents,
        progress: Progress,
        outcomes: Mapping[str, Outcome],
        timings: Timings,
        workers_at_once: int,
    ) -> None:
        """Stops at the first batch after which the cluster does not get healthy again: the rest keeps running as it was."""
        hosts = [target.host for target in targets]
        before = judge([host.name for host in hosts], await agents.reports(hosts, timeout=PATIENCE))
        # Whoever is well now must be so again before the next batch. Without a leader there is nothing to protect.
        guarded = [host for host in hosts if host.name not in before.waiting] if before.leader else []
        order = batches(targets, before.leader, workers_at_once)
        gate = asyncio.Semaphore(self.at_once)
        for index, batch in enumerate(order):
            with timings.span(TITLE, listed([target.name for target in batch])):
                async with asyncio.TaskGroup() as group:
                    for target in batch:
                        group.create_task(self._one(gate, target, remotes[target.name], progress, outcomes[target.name]), name=target.name)
                if guarded and index + 1 < len(order):
                    for target in batch:
                        progress.update(target.name, "waiting until the cluster is healthy again")
                    if waiting := await self._unsafe(guarded, agents):
                        _stop(order[index + 1 :], waiting, outcomes, progress)
                        return
            for target in batch:
                if outcomes[target.name].error is None:
                    progress.finish(target.name, "restarted")

    async def _unsafe(self, guarded: Sequence[Host], agents: Agents) -> Mapping[str, str]:
        """Why the next batch must not begin, by host; nothing if it may. That the leader's word is no old one, a majority has to confirm:
        all may answer us, and yet not each other."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.patience
        while True:
            verdict = await wait_steady(guarded, agents, timeout=max(0.0, until - loop.time()), soak=self.soak)
            leader = next((host for host in guarded if host.name == verdict.leader), None)
            if verdict.waiting or leader is None:
                return verdict.waiting
            said = await agents.barrier(leader, timeout=PATIENCE)
            if not isinstance(said, NotLeader | NoQuorum | PeerUnreachable | CallTimeout):  # a release before has no such call
                return {}
            if loop.time() >= until:
                return {leader.name: said.message}
            await asyncio.sleep(POLL)

    async def _one(self, gate: asyncio.Semaphore, target: Target, remote: Remote, progress: Progress, outcome: Outcome) -> None:
        try:
            async with gate, self.turn(target):
                progress.update(target.name, "restarting the agent")
                await restart(target, remote, self.limit)
        except HyperMeshError as error:
            outcome.error = error
            progress.finish(target.name, error.message, outcome="failed")
        else:
            outcome.changes += tuple(step.change for step in plan([target]))


def _stop(rest: Sequence[Sequence[Target]], waiting: Mapping[str, str], outcomes: Mapping[str, Outcome], progress: Progress) -> None:
    why = "; ".join(f"{name}: {reason}" for name, reason in waiting.items())
    for batch in rest:
        for target in batch:
            outcomes[target.name].error = HyperMeshError(
                f"not restarted: the cluster is not healthy ({why})", host=target.name, fix="hmctl status"
            )
            progress.finish(target.name, "not restarted", outcome="skipped")
