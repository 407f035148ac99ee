"""Carry out a plan: every host goes through its phases at its own pace, a failure sets that host aside and the others go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from hmcore.errors import HyperMeshError
from hmctl.phases.base import Known, Phase, Step
from hmctl.remote.base import Remote

_UNDO_TIMEOUT = 30.0  # seconds: cleaning up must not keep an impatient operator


T = TypeVar("T", bound=Known)


class Progress(Protocol):
    """Who is busy with what. hmctl/live.py shows it."""

    def phase(self, title: str) -> None: ...
    def update(self, key: str, text: str, *, detail: str = "") -> None: ...
    def finish(self, key: str, text: str, *, outcome: Literal["ok", "warning", "failed", "skipped"] = "ok") -> None: ...


@dataclass(slots=True)
class Timings:
    """When each phase ran on each host: (phase, host or "", began, seconds), on the monotonic clock."""

    clock: Callable[[], float] = time.monotonic
    spans: list[tuple[str, str, float, float]] = field(default_factory=list)

    @contextmanager
    def span(self, phase: str, host: str = "") -> Iterator[None]:
        began = self.clock()
        try:
            yield
        finally:
            self.spans.append((phase, host, began, self.clock() - began))


@dataclass(slots=True)
class Outcome:
    """What became of one host. `error`: it was set aside, and why."""

    changes: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    error: HyperMeshError | None = None


def plan(phases: Sequence[Phase[T]], targets: Sequence[T]) -> list[Step]:
    """All steps, host by host in the order of the targets, and in the order of the phases. Pure."""
    return [Step(target.name, phase.title, change) for target in targets for phase in phases for change in phase.plan(target)]


async def run(
    phases: Sequence[Phase[T]],
    targets: Sequence[T],
    remotes: Mapping[str, Remote],
    progress: Progress,
    timings: Timings,
    *,
    at_once: int,
    done: str = "installed",
    turn: Callable[[T], AbstractAsyncContextManager[None]] = lambda target: nullcontext(),
    may: Callable[[], None] = lambda: None,
) -> dict[str, Outcome]:
    """Runs the phases that plan something; `done` is said of a host that went through all of them, `turn` is entered while it does, and
    may refuse; so may `may`, by an error, before each phase. When cancelled, takes back what is half done and goes."""
    gate = asyncio.Semaphore(at_once)
    outcomes = {target.name: Outcome() for target in targets}

    async def host(target: T) -> None:
        planned = [phase for phase in phases if phase.plan(target)]
        if not planned:
            return
        async with gate:
            try:
                async with turn(target):
                    for phase in planned:
                        may()
                        progress.update(target.name, phase.doing)
                        with timings.span(phase.title, target.name):
                            if not await _one(phase, target, remotes[target.name], progress, outcomes[target.name]):
                                return
            except HyperMeshError as error:  # it was not its turn, or no longer; what a phase raises is its outcome already
                outcomes[target.name].error = error
                progress.finish(target.name, error.message, outcome="failed")
                return
        progress.finish(target.name, done)

    async with asyncio.TaskGroup() as group:
        for target in targets:
            group.create_task(host(target), name=f"host {target.name}")
    return outcomes


async def _one(phase: Phase[T], target: T, remote: Remote, progress: Progress, outcome: Outcome) -> bool:
    """Runs a phase on a host. False: it failed, and what it left was taken back."""

    def say(detail: str) -> None:
        progress.update(target.name, phase.doing, detail=detail)

    try:
        warning = await phase.run(target, remote, say)
    except HyperMeshError as error:
        error.host = error.host or target.name
        outcome.error = error
        progress.finish(target.name, f"{phase.doing}: {error.message}", outcome="failed")
        await _undo(phase, target, remote)
        return False
    except asyncio.CancelledError:
        progress.finish(target.name, f"interrupted while {phase.doing}", outcome="skipped")
        await _undo(phase, target, remote)
        raise
    if warning:
        outcome.warnings.append(warning)
    outcome.changes += phase.plan(target)
    return True


async def _undo(phase: Phase[T], target: T, remote: Remote) -> None:
    """Best effort: whatever stays behind, the next run finds and replaces."""
    with suppress(HyperMeshError, TimeoutError):
        async with asyncio.timeout(_UNDO_TIMEOUT):
            await phase.undo(target, remote)
