"""Answers whoever follows the replicated state: from this node's history, and with its tables when that does not reach back far enough.

Nothing is kept for a follower but its question while that is held back. What it must have missed, it is told; how it catches up is its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from hmcore.errors import InvalidRequest, NotLeader
from hmcore.watch import LONGEST_WATCH, PORTION, Change, TablesReply, TablesRequest, WatchReply, WatchRequest
from node_agent.consensus.statemachine.digests import TableDigest
from node_agent.consensus.statemachine.history import History, Lost
from node_agent.consensus.statemachine.state import PERSISTENT, PRIVATE, TABLES, State, encode

FOLLOWERS = 1024  # whose questions are held back at one node; more are answered at once, and ask every few seconds
HELD = 4  # states that are kept for those who read them in portions
HOLD = 10.0  # seconds between two portions for which a state is kept


@dataclass(slots=True, eq=False)
class _Waiting:
    request: WatchRequest
    tables: tuple[str, ...]
    since: int  # nothing that was asked for has changed up to here; -1: it begins now
    woken: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Held:
    """A state that is being read in portions."""

    records: list[tuple[str, str]]  # table and key, in the order of telling
    state: State
    used: float
    whole: TablesReply | None = None  # when one answer holds all


class Watches:
    def __init__(
        self,
        me: str,
        *,
        state: Callable[[], tuple[State, History] | None],
        leader: Callable[[], tuple[str | None, int]],
        clock: Callable[[], float] = time.monotonic,
        portion: int = PORTION,
    ) -> None:
        """`state` is None on a worker. `leader`: who leads, and in which term. `portion`: bytes of records in one answer."""
        self._me = me
        self._state = state
        self._leader = leader
        self._clock = clock
        self._portion = portion
        self._waiting: dict[str, set[_Waiting]] = {table: set() for table in TABLES}
        self._count = 0
        self._impatient: set[_Waiting] = set()  # who wait for this node to come as far as they are
        self._woken: tuple[History | None, int] = (None, 0)
        self._digests: dict[str, TableDigest] = {table: TableDigest(table) for table in TABLES if table not in PERSISTENT}
        self._held: dict[tuple[int, tuple[str, ...], str], _Held] = {}

    def __len__(self) -> int:
        return self._count

    # --- what happens

    def applied(self) -> None:
        """The state has changed. Costs nothing to those who wait for changes of other tables."""
        found = self._state()
        if found is None or not self._count:
            return
        _, history = found
        same, before = self._woken
        self._woken = (history, history.index)
        touched = [table for table in TABLES if same is not history or history.last((table,)) > before]
        for waiting in self._impatient.union(*(self._waiting[table] for table in touched)):
            self._wake(waiting)

    def leader_changed(self) -> None:
        for waiting in set[_Waiting]().union(*self._waiting.values()):
            self._wake(waiting)

    def _wake(self, waiting: _Waiting) -> None:
        if self._ready(waiting):
            waiting.woken.set()

    # --- what is answered

    async def watch(self, request: WatchRequest) -> WatchReply:
        """Raises NotLeader on a worker, InvalidRequest."""
        tables = _tables(request.tables)
        _, history = self._known()
        began = self._clock()
        waiting = _Waiting(request, tables, history.index if request.since < 0 else request.since)
        if request.since >= 0 and request.wait > 0 and not self._ready(waiting) and self._count < FOLLOWERS:
            await self._wait(waiting)
        return self._answer(waiting, self._clock() - began)

    async def tables(self, request: TablesRequest) -> TablesReply:
        """Raises NotLeader on a worker, InvalidRequest."""
        tables = _tables(request.tables)
        state, _ = self._known()
        if request.offset < 0:
            raise InvalidRequest(f"{request.offset} records cannot have come already")
        key = (state.index if request.index < 0 else request.index, tables, request.prefix)
        self._forget()
        held = self._held.pop(key, None)
        if held is None and (request.index >= 0 or request.offset):
            return TablesReply(index=request.index, gone=True)
        if held is None:
            records = [(table, name) for table in tables for name in getattr(state, table) if name.startswith(request.prefix)]
            held = _Held(records, state, 0.0)
        held.used = self._clock()
        self._held[key] = held
        while len(self._held) > HELD:
            del self._held[next(iter(self._held))]  # the one that was used longest ago
        asyncio.get_running_loop().call_later(HOLD, self._forget)
        return self._page(held, request.offset)

    def _page(self, held: _Held, offset: int) -> TablesReply:
        if held.whole is not None and offset == 0:
            return held.whole
        found: list[Change] = []
        size = 0
        for table, name in islice(held.records, offset, None):
            record = encode(getattr(held.state, table)[name])
            size += len(record) + len(name)
            if found and size > self._portion:
                return TablesReply(index=held.state.index, records=found, more=True)
            found.append(Change(table, name, record))
        reply = TablesReply(index=held.state.index, records=found)
        if offset == 0:
            held.whole = reply  # hundreds of workers that begin at the same time get the same
        return reply

    def _forget(self) -> None:
        old = self._clock() - HOLD
        for key in [key for key, held in self._held.items() if held.used <= old]:
            del self._held[key]

    def _known(self) -> tuple[State, History]:
        found = self._state()
        if found is None:
            raise NotLeader(f"{self._me} is a worker and keeps no history", leader=self._leader()[0])
        return found

    async def _wait(self, waiting: _Waiting) -> None:
        request, (_, history) = waiting.request, self._known()
        impatient = max(request.reach, waiting.since) > history.index
        groups = [self._waiting[table] for table in waiting.tables] + ([self._impatient] if impatient else [])
        for group in groups:
            group.add(waiting)
        self._count += 1
        try:
            async with asyncio.timeout(min(request.wait, LONGEST_WATCH)):
                await waiting.woken.wait()
        except TimeoutError:
            return  # what there is then is the answer
        finally:
            self._count -= 1
            for group in groups:
                group.discard(waiting)

    def _ready(self, waiting: _Waiting) -> bool:
        """Whether there is something to tell. What was looked at in vain is not looked at again."""
        request, (_, history) = waiting.request, self._known()
        if request.leader is not None and request.leader != (self._leader()[0] or ""):
            return True
        if history.index < max(waiting.since, request.reach):
            return False
        if request.reach > request.since:
            return True
        if history.last(waiting.tables) <= waiting.since:
            return False
        found = history.since(waiting.since, waiting.tables, request.prefix, size=0)
        if isinstance(found, Lost) or found.entries:
            return True
        waiting.since = found.index
        return False

    def _answer(self, waiting: _Waiting, waited: float) -> WatchReply:
        state, history = self._known()
        leader, term = self._leader()
        found = history.since(waiting.since, waiting.tables, waiting.request.prefix, size=self._portion)
        if isinstance(found, Lost):
            return WatchReply(index=history.index, oldest=found.oldest, leader=leader, term=term, waited=waited)
        digests: dict[str, bytes] = {}
        if waiting.request.digests and not waiting.request.prefix and found.index == state.index:
            digests = {table: self._digests[table].of(getattr(state, table)) for table in waiting.tables if table in self._digests}
        entries = list(found.entries)
        return WatchReply(index=found.index, entries=entries, leader=leader, term=term, digests=digests, waited=waited)


def _tables(asked: tuple[str, ...]) -> tuple[str, ...]:
    """In their own order, each once; all when none is named. Raises InvalidRequest."""
    told = tuple(table for table in TABLES if table not in PRIVATE)
    for table in asked:
        if table not in told:
            raise InvalidRequest(f"there is no table {table[:100]!r}: {', '.join(told)}")
    return tuple(table for table in told if table in asked) if asked else told
