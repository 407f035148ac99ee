"""The life of a component: the same eight states for all of them, one transition table, supervised restart.

`Managed` wraps a component. It brings it up, keeps it working, asks it regularly how it is, brings it back with growing pauses when it
fails, and takes it down. Errors in `FATAL` are not survived: they rise to the platform, which stops the whole agent.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hmcore.errors import CommittedConflict, HyperMeshError, LayerDown, LayerMissing, StorageDamaged, StorageFailed
from hmcore.records import ComponentReport
from hmcore.records import ComponentState as S
from node_agent.waiting import woken

log = logging.getLogger(__name__)

FATAL = (CommittedConflict, StorageDamaged, StorageFailed)  # going on would lose or invent data
STOP_TIMEOUT = 3.0  # seconds a component may take to stop; a hanging one must not keep the node from leaving

TRANSITIONS: Mapping[S, frozenset[S]] = {
    S.UNINITIALIZED: frozenset({S.INITIALIZING, S.STOPPED}),
    S.INITIALIZING: frozenset({S.READY, S.DEGRADED, S.ERROR, S.STOPPING}),
    S.READY: frozenset({S.RUNNING, S.DEGRADED, S.ERROR, S.STOPPING}),
    S.RUNNING: frozenset({S.READY, S.DEGRADED, S.ERROR, S.STOPPING}),
    S.DEGRADED: frozenset({S.READY, S.RUNNING, S.ERROR, S.STOPPING}),
    S.ERROR: frozenset({S.INITIALIZING, S.STOPPING}),
    S.STOPPING: frozenset({S.STOPPED, S.ERROR}),
    S.STOPPED: frozenset({S.INITIALIZING}),
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a component is degraded, in words for people, and the command on the node that mends it."""

    reason: str
    fix: str | None = None


class Component(Protocol):
    """A layer of the agent. `serving` is False while it works but has nothing to do yet: it is then `ready`, not `running`."""

    @property
    def name(self) -> str: ...
    @property
    def serving(self) -> bool: ...
    async def initialize(self) -> None:
        """Come up, also after a failure. Raises LayerMissing or LayerDown (optional layers), or any other error: it failed."""

    async def run(self) -> None:
        """Work until cancelled. To return or to raise is a failure; LayerDown only means waiting until the layer is back."""

    async def check(self) -> str | HyperMeshError | None:
        """Why the component is degraded, in words for people or as an error with its fix; None when it is well. Raises when it must be
        restarted."""

    async def stop(self) -> None:
        """Let go of everything, also what a failed `initialize` left behind. Called after `run` was cancelled, maybe twice."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses before restarts, in seconds: doubling from `first` to `ceiling`, forgotten after `forget` seconds of good work."""

    first: float = 0.5
    ceiling: float = 30.0
    forget: float = 60.0

    def pause(self, failures: int, chance: float) -> float:
        """The pause after the `failures`-th failure in a row. `chance` in 0..1 spreads it over its upper half."""
        whole = min(self.first * 2.0 ** min(failures - 1, 30), self.ceiling)
        return whole * (0.5 + chance / 2)


class Managed:
    """One component under supervision. All times are the event loop's."""

    def __init__(
        self,
        component: Component,
        *,
        check_interval: float,
        check_timeout: float,
        backoff: Backoff | None = None,
        chance: Callable[[], float] = random.random,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.component = component
        self.name = component.name
        self.state = S.UNINITIALIZED
        self.error: str | None = None
        self.fix: str | None = None
        self.restarts = 0
        self.init_seconds = 0.0
        self._interval = check_interval
        self._timeout = check_timeout
        self._backoff = backoff or Backoff()
        self._chance = chance
        self._on_change = on_change
        self._failures = 0
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def report(self) -> ComponentReport:
        return ComponentReport(
            state=self.state, init_seconds=round(self.init_seconds, 4), error=self.error, restarts=self.restarts, fix=self.fix
        )

    def poke(self) -> None:
        """Something happened: check now instead of at the next interval."""
        self._poked.set()

    async def initialize(self) -> None:
        """Bring the component up for the first time. Raises what the component raised; its state and error tell of it."""
        self._move(S.INITIALIZING)
        await self._bring_up()

    def start(self, tasks: asyncio.TaskGroup, on_fatal: Callable[[HyperMeshError], None]) -> None:
        """Supervise the component in a task of `tasks`: also one that did not come up, which is tried again.

        `on_fatal` hears of an error in `FATAL`; nothing is tried again then.
        """
        self._task = tasks.create_task(self._supervise(on_fatal), name=f"supervise {self.name}")

    async def stop(self) -> None:
        """Take the component down. Never raises: what goes wrong is logged, and kept as the error."""
        if self.state is S.STOPPED:
            return
        if self.state is S.UNINITIALIZED:
            self._move(S.STOPPED)
            return
        self._move(S.STOPPING, Trouble(self.error, self.fix) if self.error else None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP_TIMEOUT)
        problem = await self._let_go()
        self._move(S.ERROR if problem else S.STOPPED, Trouble(problem) if problem else None)

    async def _supervise(self, on_fatal: Callable[[HyperMeshError], None]) -> None:
        try:
            await self._keep_working()
        except FATAL as error:
            self._fail(S.ERROR, error)
            on_fatal(error)

    async def _keep_working(self) -> None:
        if self.state is not S.READY:
            await self._recover()
        while True:
            began = _now()
            try:
                await self._work()
            except FATAL:
                raise
            except Exception as error:  # noqa: BLE001 -- the supervisor is where a component's failure ends
                if self.state is S.STOPPING:
                    return
                self._failures = 1 if _now() - began >= self._backoff.forget else self._failures + 1
                if isinstance(error, LayerMissing | LayerDown):
                    self._fail(S.DEGRADED, error)
                else:
                    self._fail(S.ERROR, error, cause=None if isinstance(error, HyperMeshError) else error)
            await self._recover()

    async def _work(self) -> None:
        """The component's `run` with its health checks beside it. Raises what either of them raised, and no group around it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(), name=f"check {self.name}")
                await self.component.run()
                raise RuntimeError(f"{self.name} ended by itself")
        except BaseExceptionGroup as group:
            raise first_cause(group) from group

    async def _watch(self) -> None:
        while True:
            self._poked.clear()
            try:
                async with asyncio.timeout(self._timeout):
                    reason = await self.component.check()
            except TimeoutError:
                reason = f"{self.name} did not answer its health check within {self._timeout:g} s"
            match reason:
                case None | "":
                    self._move(S.RUNNING if self.component.serving else S.READY)
                case HyperMeshError():
                    self._fail(S.DEGRADED, reason)
                case _:
                    self._move(S.DEGRADED, Trouble(reason))
            await self._pause(self._interval)

    async def _recover(self) -> None:
        """Try until the component is up again. A degraded one (an optional layer without what it needs) stays so meanwhile."""
        while True:
            pause = self._backoff.pause(max(self._failures, 1), self._chance())
            if self.state is S.DEGRADED:
                await self._pause(pause)
            else:
                await asyncio.sleep(pause)
            await self._let_go()
            if self.state is not S.DEGRADED:
                self._move(S.INITIALIZING)
                self.restarts += 1
            try:
                await self._bring_up()
            except FATAL:
                raise
            except HyperMeshError:
                continue  # said by the change of state
            except Exception:
                log.exception("%s cannot come up", self.name)
            else:
                return

    async def _bring_up(self) -> None:
        began = _now()
        try:
            await self.component.initialize()
        except (LayerMissing, LayerDown) as error:
            self._failures += 1
            self._fail(S.DEGRADED, error)
            raise
        except Exception as error:
            self._failures += 1
            self._fail(S.ERROR, error)
            raise
        finally:
            self.init_seconds = _now() - began
        self._move(S.READY)

    async def _let_go(self) -> str | None:
        """Stop the component. Returns what went wrong."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self.component.stop()
        except TimeoutError:
            problem = f"{self.name} did not stop within {STOP_TIMEOUT:g} s"
        except Exception as error:  # noqa: BLE001 -- what fails to stop must not keep the others from stopping
            problem = f"{self.name} did not stop cleanly: {describe(error)}"
        else:
            return None
        log.warning("%s", problem)
        return problem

    async def _pause(self, seconds: float) -> None:
        """Sleep, until poked at most."""
        if await woken(self._poked, seconds):
            self._poked.clear()

    def _fail(self, to: S, error: BaseException, cause: Exception | None = None) -> None:
        self._move(to, Trouble(describe(error), error.fix if isinstance(error, HyperMeshError) else None), cause)

    def _move(self, to: S, trouble: Trouble | None = None, cause: Exception | None = None) -> None:
        """The only place that changes the state. The log gets one line a change, and a traceback when the cause is none of our errors."""
        error, fix = (trouble.reason, trouble.fix) if trouble is not None else (None, None)
        if (to, error, fix) == (self.state, self.error, self.fix) and cause is None:
            return
        if to is not self.state and to not in TRANSITIONS[self.state]:
            raise RuntimeError(f"{self.name}: {self.state} may not become {to}")
        self.state, self.error, self.fix = to, error, fix
        level = logging.ERROR if to is S.ERROR else logging.WARNING if to is S.DEGRADED else logging.INFO
        log.log(level, "%s is %s%s", self.name, to, f": {error}" if error else "", exc_info=cause)
        self._on_change()


def describe(error: BaseException) -> str:
    """One line for people: our own errors speak for themselves, others need their type's name to mean anything."""
    if isinstance(error, HyperMeshError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def first_cause(error: BaseException) -> BaseException:
    """The first exception inside nested groups: a TaskGroup wraps even a single one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()
