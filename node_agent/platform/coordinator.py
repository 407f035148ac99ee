"""Start-up in phases: each begins when those it needs are done, independent ones run side by side, and all share one deadline.

A required phase that fails ends the start-up: what has begun is undone in reverse order, and the reason rises. An optional one that
fails leaves the agent degraded, unless the configuration refuses to go without a layer that is *missing* (not installed; one that is
merely down can come back by itself). Going down is the same reverse order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from hmcore.errors import HyperMeshError, InitializationFailed, LayerMissing
from hmcore.records import PhaseReport
from node_agent.platform.lifecycle import describe, first_cause

log = logging.getLogger(__name__)


async def _nothing() -> None:
    """The undo of a phase that leaves nothing behind."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the start-up. `undo` may be called for a `start` that failed halfway, and must not raise."""

    name: str
    start: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]] = _nothing
    needs: tuple[str, ...] = ()
    optional: bool = False


class Coordinator:
    """Runs phases once. `timeline` tells what happened, for the report."""

    def __init__(
        self,
        phases: Sequence[Phase],
        *,
        timeout: float,
        refuse_missing: bool = False,
        on_ready: Callable[[], None] = lambda: None,
        age: float = 0.0,
    ) -> None:
        """`timeout` is for all phases together, `age` the agent's age now; both in seconds.

        `on_ready` is called once all required phases are done; with `refuse_missing`, once the optional ones had their say, too.
        Raises ValueError or graphlib.CycleError for phases that cannot be ordered.
        """
        names = {phase.name for phase in phases}
        for phase in phases:
            if unknown := set(phase.needs) - names:
                raise ValueError(f"phase {phase.name} needs {', '.join(sorted(unknown))}, which is no phase")
        TopologicalSorter({phase.name: phase.needs for phase in phases}).prepare()
        self.timeline: list[PhaseReport] = []
        self._phases = tuple(phases)
        self._timeout = timeout
        self._refuse_missing = refuse_missing
        self._on_ready = on_ready
        self._age = age
        self._awaited = {phase.name for phase in phases if refuse_missing or not phase.optional}
        self._done = {phase.name: asyncio.Event() for phase in phases}
        self._begun: list[Phase] = []

    async def bring_up(self) -> None:
        """Run all phases. Raises InitializationFailed, everything undone, when a required one fails."""
        loop = asyncio.get_running_loop()
        origin = loop.time() - self._age
        deadline = loop.time() + self._timeout
        try:
            async with asyncio.TaskGroup() as tasks:
                for phase in self._phases:
                    tasks.create_task(self._run(phase, origin, deadline), name=f"phase {phase.name}")
        except BaseExceptionGroup as group:
            await self.take_down()
            cause = first_cause(group)
            raise cause from cause.__cause__

    async def take_down(self) -> None:
        """Undo what has begun, the latest first."""
        while self._begun:
            await self._begun.pop().undo()

    async def _run(self, phase: Phase, origin: float, deadline: float) -> None:
        for need in phase.needs:
            await self._done[need].wait()
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._begun.append(phase)
        failure = await self._start(phase, deadline)
        fatal = failure is not None and (not phase.optional or (self._refuse_missing and isinstance(failure, LayerMissing)))
        self.timeline.append(
            PhaseReport(
                name=phase.name,
                began_seconds=round(began - origin, 4),
                seconds=round(loop.time() - began, 4),
                outcome="ok" if failure is None else "failed" if fatal else "degraded",
                error=None if failure is None else describe(failure),
            )
        )
        if failure is not None and fatal:
            fix = failure.fix if isinstance(failure, HyperMeshError) else None
            raise InitializationFailed(f"{phase.name} did not come up: {describe(failure)}", fix=fix) from failure
        self._done[phase.name].set()
        if phase.name in self._awaited:
            self._awaited.remove(phase.name)
            if not self._awaited:
                self._on_ready()

    async def _start(self, phase: Phase, deadline: float) -> Exception | None:
        """Start `phase`. Returns what went wrong; one that nobody expected is logged here, with its traceback."""
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                await phase.start()
        except HyperMeshError as error:
            return error
        except Exception as error:
            if limit.expired():
                return InitializationFailed(f"it was not done within {self._timeout:g} s")
            log.error("phase %s failed unexpectedly", phase.name, exc_info=error)
            return error
        return None
