"""Connections to many hosts, of which never more than so many are open at once: whoever needs another one closes the one that was idle
the longest, or waits. What a connection is, and how one is opened, is its user's business (hmctl/remote/ssh.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    def is_closed(self) -> bool: ...


C = TypeVar("C", bound=Closable)


@dataclass(slots=True)
class _Entry(Generic[C]):
    """A connection to one host, while it is opened and after. `users`: how many are at work on it."""

    users: int = 1
    connection: C | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # opened, or failed to


class Pool(Generic[C]):
    """`limit` None: as many as there are hosts. Entries are kept in the order of their last use."""

    def __init__(self, limit: int | None, close: Callable[[C], Awaitable[None]]) -> None:
        self._limit = limit
        self._close = close
        self._entries: dict[str, _Entry[C]] = {}
        self._reserved = 0
        self._turn = asyncio.Lock()  # first come, first served
        self._changed = asyncio.Event()

    async def take(self, key: str, open_: Callable[[], Awaitable[C]]) -> C:
        """The connection to `key`, opened if need be, until it is given back. Raises what `open_` raises."""
        while True:
            entry = self._entries.get(key)
            if entry is None:
                async with self._turn:
                    if key in self._entries:
                        continue
                    await self._room()
                    entry = self._entries[key] = _Entry()
                return await self._open(key, entry, open_)
            await entry.settled.wait()
            if self._entries.get(key) is not entry or entry.connection is None:
                continue
            if entry.connection.is_closed():  # whoever still holds it (a lock does, for as long as we work) has lost it, too
                del self._entries[key]
                self._changed.set()  # giving it back will say nothing: nobody counts it any more
                continue
            entry.users += 1
            self._entries[key] = self._entries.pop(key)
            return entry.connection

    def give_back(self, key: str, connection: C) -> None:
        entry = self._entries.get(key)
        if entry is not None and entry.connection is connection:
            entry.users -= 1
            self._entries[key] = self._entries.pop(key)
            self._changed.set()

    async def reserve(self) -> None:
        """Room for one that stays open for good. The last room is never given away: with a limit of 1 there is one more, then."""
        async with self._turn:
            if self._limit is not None and self._reserved + 1 < self._limit:
                await self._room()
            self._reserved += 1

    def forget(self) -> list[C]:
        """All that are open, to be closed by the caller: the end."""
        found = [entry.connection for entry in self._entries.values() if entry.connection is not None]
        self._entries.clear()
        return found

    async def _open(self, key: str, entry: _Entry[C], open_: Callable[[], Awaitable[C]]) -> C:
        try:
            entry.connection = await open_()
        except BaseException:
            self._entries.pop(key, None)
            self._changed.set()
            raise
        finally:
            entry.settled.set()
        return entry.connection

    async def _room(self) -> None:
        """Back when one more may be opened. For whoever has the turn alone: while one is closed, nobody else can take its place."""
        if self._limit is None:
            return
        while len(self._entries) >= max(1, self._limit - self._reserved):
            idle = next((key for key, entry in self._entries.items() if entry.users == 0), None)
            if idle is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            connection = self._entries.pop(idle).connection
            if connection is not None:
                await self._close(connection)
