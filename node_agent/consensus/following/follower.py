"""Keeps a copy of some tables by watching control nodes: begins it, keeps it up, compares it with theirs, begins anew when it must."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from hmcore.watch import Change, TablesReply, TablesRequest, WatchReply, WatchRequest
from node_agent.consensus.following.copy import Copy

FOLLOWED = (
    "nodes",
    "registrations",
    "maintenance",
    "mutes",
    "generations",
    "subnets",
    "images",
)  # what a worker needs; the rest it may ask for
OWN = ("allocations", "statuses")  # of which it needs what begins with its name
COMPARED = 60.0  # seconds between two looks at whether our copy is what it should be
ATTEMPTS = 5  # at reading all tables of one log index, before it is somebody's trouble

log = logging.getLogger(__name__)

Watch = Callable[[WatchRequest, Sequence[str]], Awaitable[WatchReply]]
Tables = Callable[[TablesRequest, Sequence[str]], Awaitable[TablesReply]]


@dataclass(frozen=True, slots=True)
class Told:
    """Who leads, as the control node knows. `news`: the answer, or a copy that was begun, brought something. `held`: the question was held
    back until it did, or for a good while."""

    leader: str | None
    term: int
    news: bool
    held: bool


class Follower:
    """`copy` is None until the first one is whole; a copy that must be made anew is shown until that is done."""

    def __init__(
        self, watch: Watch, tables: Tables, *, clock: Callable[[], float], followed: tuple[str, ...] = FOLLOWED, prefix: str = ""
    ) -> None:
        """Both ask a control node that is fit, of those named if none is known to be; they raise HyperMeshError. `clock` in seconds.
        `followed`: the tables, and of their keys only those that begin with `prefix`."""
        self._followed = followed
        self._prefix = prefix
        self.copy: Copy | None = None
        self._watch = watch
        self._tables = tables
        self._clock = clock
        self._begins = True  # the tables are to be taken, anew or for the first time
        self._compare_at = float("-inf")

    def forget(self) -> None:
        """Our copy is behind what is known otherwise."""
        self._begins = True

    async def look(
        self, names: Sequence[str], *, wait: float = 0.0, reach: int = 0, leader: str | None = None, least: int = 0
    ) -> Told | None:
        """Ask once. `reach`: until the control node has come as far as that log index; `leader`: whom we know to lead; `least`: a copy
        that begins is to be of this log index at least. None: the control node lags behind that. May be called while another look is
        under way. Raises what asking raises, and FrameError.
        """
        begun = False
        if self._begins or self.copy is None:
            begun = await self._begin(names, least)
        copy = self.copy
        if copy is None or self._begins:
            return None
        if begun:
            wait = 0.0  # it is to be shown now
        since = copy.index
        compares = self._clock() >= self._compare_at
        request = WatchRequest(
            since=since, tables=self._followed, prefix=self._prefix, wait=wait, reach=reach, leader=leader, digests=compares
        )
        reply = await self._watch(request, names)
        if copy is not self.copy:  # it was begun anew meanwhile
            return Told(reply.leader, reply.term, news=True, held=True)
        step = copy.take(since, reply)
        if step.oldest is not None:
            log.info("what changed between log index %d and %d is not told any more: all is read anew", since, step.oldest)
            self._begins = True
        if reply.digests:
            self._compare_at = self._clock() + COMPARED
            self._compare(copy, reply)
        elected = leader is not None and (reply.leader or "") != leader
        news = begun or elected or self._begins or bool(step.entries)
        return Told(reply.leader, reply.term, news=news, held=news or reply.waited >= wait / 2)

    def _compare(self, copy: Copy, reply: WatchReply) -> None:
        if others := copy.differs(reply):
            log.warning("our copy of %s at log index %d is not what the control nodes have: it is read anew", ", ".join(others), copy.index)
            self._begins = True

    async def _begin(self, names: Sequence[str], least: int) -> bool:
        """Whether there is a copy of now."""
        for _ in range(ATTEMPTS):
            records: list[Change] = []
            reply = await self._tables(TablesRequest(tables=self._followed, prefix=self._prefix), names)
            index = reply.index
            if index < least or (self.copy is not None and index < self.copy.index):
                return False  # of one that lags behind those we asked before
            records += reply.records
            while reply.more and not reply.gone:
                further = TablesRequest(tables=self._followed, prefix=self._prefix, index=index, offset=len(records))
                reply = await self._tables(further, names)
                records += reply.records
            if not reply.gone and reply.index == index:
                self.copy = Copy(index, self._followed, records)
                self._begins = False
                return True
            log.info("the tables of log index %d are not kept any more: reading them anew", index)
        return False
