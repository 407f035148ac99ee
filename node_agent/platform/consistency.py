"""Linearizable answers, whichever node is asked (docs/adr/0070): the leader says up to which log index the state must go (it asks the
voters whether it still leads), and this node answers once its own copy goes as far."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from hmcore.errors import CallRefused, HyperMeshError, NoQuorum, NotLeader, TransportError
from node_agent.consensus.leading.handover import Handed
from node_agent.orchestration.cluster import ClusterView
from node_agent.security.journal import Waiters

READERS = 1024  # that may wait at this node for its copy to catch up
HAND_OVER = 0.9  # seconds for another to take over the leadership of a node that stops

log = logging.getLogger(__name__)


class Voice(Protocol):
    """A control node's voice in the log."""

    @property
    def is_leader(self) -> bool: ...
    async def barrier(self, timeout: float) -> int: ...
    async def transfer(self, to: str | None, timeout: float) -> Handed: ...


class Consistency:
    def __init__(
        self,
        me: str,
        view: ClusterView,
        voice: Voice | None,
        ask: Callable[[str, float], Awaitable[int]],
        *,
        timeout: float,
        reach: Callable[[int, float], Awaitable[None]] | None = None,
    ) -> None:
        """`voice` is None on a worker. `ask` another node for its barrier, within so many seconds. `timeout` (seconds) bounds each call.
        `reach`: on a worker, has it told how things are at a log index: what does not concern it would be told seconds later."""
        self._me = me
        self._view = view
        self._voice = voice
        self._ask = ask
        self._timeout = timeout
        self._reach = reach
        self._waiting = Waiters(READERS, timeout)

    def state_changed(self) -> None:
        """Our copy has gone on."""
        self._waiting.wake()

    async def barrier(self) -> int:
        """The leader's own word, which holds every write acknowledged before the call. Raises NotLeader, NoQuorum."""
        return await self._leading().barrier(self._timeout)

    async def transfer(self, to: str) -> Handed:
        """Hand over the leadership. Raises NotLeader, InvalidRequest, NoQuorum, TransferFailed."""
        return await self._leading().transfer(to or None, self._timeout)

    async def hand_over(self) -> None:
        """Before a planned stop: somebody else shall lead, so that nobody waits for an election. Takes HAND_OVER seconds at most."""
        if self._voice is None or not self._voice.is_leader:
            return
        try:
            handed = await self._voice.transfer(None, HAND_OVER)
        except HyperMeshError as error:
            log.warning("stopping though nobody has taken over: %s", error.message)
        else:
            log.info("%s leads now, in term %d; handed over in %.2f s", handed.leader, handed.term, handed.seconds)

    def _leading(self) -> Voice:
        if self._voice is not None:
            return self._voice
        raise NotLeader(f"{self._me} is a worker: it never leads", leader=self._view.leader)

    async def wait(self) -> None:
        """Returns once this node's copy holds every write acknowledged before the call. Raises NoQuorum when nobody can say how far that
        is, CallRefused when our copy does not catch up in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        index = await self._index(deadline)
        if self._view.index < index and self._reach is not None:
            await self._reach(index, deadline - loop.time())
        while self._view.index < index:
            left = deadline - loop.time()
            if left <= 0 or not await self._waiting.until(lambda: self._view.index >= index, left):
                raise CallRefused(f"{self._me} has the log up to {self._view.index} only; what is true now needs {index}", host=self._me)

    async def _index(self, deadline: float) -> int:
        """The leader's barrier. Whoever is asked and does not lead (any more) may name another, who is asked then; once."""
        loop = asyncio.get_running_loop()
        leader = self._view.leader
        for last in (False, True):
            if leader is None:
                break
            try:
                if leader == self._me:
                    return await self._leading().barrier(deadline - loop.time())
                return await self._ask(leader, deadline - loop.time())
            except NotLeader as error:
                log.info("asked what is true now, %s says: %s", leader, error.message)
                leader = error.leader if error.leader != leader else self._view.leader
                if last:
                    break
            except TransportError as error:
                raise NoQuorum(f"{leader}, who led last, does not answer: {error.message}", host=self._me) from error
        raise self._view.no_quorum or NoQuorum("no leader at the moment: nobody can say what is true now", host=self._me)
