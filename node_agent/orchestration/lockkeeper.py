"""The leader's part of the cluster's locks: ends those that nobody renews. A thin loop; leases.py decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from hmcore.errors import InvalidRequest, NotLeader
from hmcore.records import Lock
from node_agent.orchestration.leases import Leases
from node_agent.orchestration.proposing import Pen
from node_agent.waiting import woken

RETRY = 0.5  # seconds from an end that could not be recorded to the next attempt
_SHORTEST = 0.01  # seconds: a deadline that rounding has put a hair ahead must not make the loop spin

log = logging.getLogger(__name__)


class Log(Protocol):
    """The replicated log, on a control node."""

    @property
    def locks(self) -> Mapping[str, Lock]: ...
    @property
    def leads_in(self) -> int | None:
        """The term in which this node leads; None while it does not."""

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]: ...


class LockKeeper:
    """On every control node; it acts while that leads."""

    def __init__(
        self,
        *,
        log: Log,
        barrier: Callable[[], Awaitable[object]],
        propose_timeout: float,
        request_prefix: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        """`barrier` returns once a majority has confirmed, after it was called, that this node leads. `clock` stands still while this
        agent does."""
        self._log = log
        self._barrier = barrier
        self._pen = Pen(log, prefix=lambda: f"{request_prefix()}-locks", timeout=propose_timeout)
        self._clock = clock
        self._leases = Leases()
        self._news = asyncio.Event()
        self._seen: Mapping[str, Lock] | None = None
        self._failure: str | None = None

    def state_changed(self) -> None:
        if self._log.locks is not self._seen:
            self._seen = self._log.locks
            self._news.set()

    def poke(self) -> None:
        """The cluster has another leader."""
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            pause = await self._round()
            await woken(self._news, pause)

    async def _round(self) -> float | None:
        """Look, propose. Returns how long to sleep if nothing happens."""
        term = self._log.leads_in
        if term is None:
            return None
        self._leases.lead(term)
        now = self._clock()
        due = self._leases.due(self._log.locks, now)
        if not due.ended:
            return None if due.next is None else max(due.next - now, _SHORTEST)
        failure = await self._pen.write(due.ended)
        if failure is not None and failure != self._failure:
            log.warning("cannot record that a lock has ended: %s", failure)
        self._failure = failure
        return _SHORTEST if failure is None else RETRY

    async def renew(self, name: str, token: int) -> None:
        """A holder's word, which has just come. Raises NotLeader, NoQuorum; InvalidRequest if the lock is no longer held with `token`."""
        await self._barrier()
        if (reason := self.confirmed(name, token)) is not None:
            raise InvalidRequest(f"the lock {name} is no longer held with token {token}: {reason}")

    def confirmed(self, name: str, token: int) -> str | None:
        """The same once a majority has confirmed, since the word came, that we lead. Returns why the lock cannot be renewed, if so."""
        term = self._log.leads_in
        if term is None:
            raise NotLeader("the leadership changed")
        self._leases.lead(term)
        return self._leases.renew(self._log.locks, name, token, self._clock())

    def left(self, lock: Lock) -> float | None:
        """Seconds that a lock has if nobody renews it; None unless we lead."""
        term = self._log.leads_in
        if term is None:
            return None
        self._leases.lead(term)
        return self._leases.left(lock, self._clock())
