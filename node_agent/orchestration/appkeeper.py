"""The leader's part of apps: looks whenever something of theirs has changed, or is due, and records what comes next. appplan.py decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from hmcore.config.settings import Network
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import Command
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.appplan import Cluster, Step, steps
from node_agent.orchestration.candidates import candidates, homes
from node_agent.orchestration.proposing import Pen
from node_agent.orchestration.rollout import Observed, Terms
from node_agent.orchestration.subnetting import missing
from node_agent.waiting import woken

SETTLE = 0.01  # seconds in which several changes make one look
RETRY = 0.5  # seconds from a plan that could not be recorded to the next attempt
MANY = 500  # allocations from which on a look is worth a thread of its own: heartbeats go on meanwhile
_SHORTEST = 0.01  # seconds: a deadline that rounding has put a hair ahead must not make the loop spin
_TABLES = ("apps", "generations", "allocations", "statuses", "machines", "nodes", "subnets")

log = logging.getLogger(__name__)


class Log(Protocol):
    """The replicated log, on a control node."""

    @property
    def state(self) -> State: ...
    @property
    def leads_in(self) -> int | None:
        """The term in which this node leads; None while it does not."""

    @property
    def caught_up(self) -> bool:
        """Whether it leads and knows all that was decided before it did."""

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]: ...


class AppKeeper:
    """On every control node; it acts while that leads. `waits`: by `app/service`, what the leader waits for, for people."""

    def __init__(
        self,
        *,
        log: Log,
        heard: Callable[[], Mapping[str, float]],
        terms: Terms,
        propose_timeout: float,
        request_prefix: Callable[[], str],
        clock: Callable[[], float],
        network: Network,
        asked: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """`heard`: when each node was heard last, by `clock`, which stands still while this agent does; `asked`: when for its lease."""
        self._log = log
        self._heard = heard
        self._asked = asked
        self._terms = terms
        self._pen = Pen(log, prefix=lambda: f"{request_prefix()}-apps", timeout=propose_timeout)
        self._clock = clock
        self._network = network
        self._news = asyncio.Event()
        self._seen: tuple[object, ...] = ()
        self._term: int | None = None
        self._memories: dict[str, Observed] = {}
        self._steps: dict[str, Step] = {}
        self._failure: str | None = None

    @property
    def trouble(self) -> str | None:
        """What keeps the leader from writing down what apps need."""
        return self._failure if self._term is not None else None

    @property
    def waits(self) -> Mapping[str, str]:
        return {f"{app}/{service}": why for app, step in self._steps.items() for service, why in step.waits.items()}

    def state_changed(self) -> None:
        state = self._log.state
        tables = tuple(getattr(state, name) for name in _TABLES)
        if len(self._seen) != len(tables) or any(new is not old for new, old in zip(tables, self._seen, strict=True)):
            self._seen = tables
            self._news.set()

    def poke(self) -> None:
        """The cluster has another leader."""
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            pause = await self._round()
            if await woken(self._news, pause):
                await asyncio.sleep(SETTLE)

    async def _round(self) -> float | None:
        """Look, propose. Returns how long to sleep if nothing happens."""
        if (term := self._log.leads_in) != self._term:
            self._term = term
            self._memories, self._steps, self._failure = {}, {}, None
        state = self._log.state
        if term is None or not self._log.caught_up or state.level < levels.APPS or not state.apps:
            self._steps = {}
            return None
        now = self._clock()
        self._steps = await self._look(state, now)
        self._memories = {name: step.observed for name, step in self._steps.items()}
        commands: list[Command] = [step.command for step in self._steps.values() if step.command is not None]
        lacking = missing(self._network, state.nodes, state.subnets)
        commands += lacking.commands
        if commands:
            failure = await self._pen.write(commands)
            if failure is not None and failure != self._failure:
                log.warning("cannot record what apps need: %s", failure)
            self._failure = failure
            return _SHORTEST if failure is None else RETRY
        self._failure = lacking.lacking or None
        due = min((step.next for step in self._steps.values() if step.next is not None), default=None)
        return None if due is None else max(due - self._clock(), _SHORTEST)

    async def _look(self, state: State, now: float) -> dict[str, Step]:
        cluster = Cluster(candidates(state), self._heard(), homes(state), dict(self._asked()))
        memories = self._memories
        if len(state.allocations) < MANY:
            return steps(state, state.apps, cluster, memories, now, self._terms)
        return await asyncio.to_thread(steps, state, state.apps, cluster, memories, now, self._terms)
