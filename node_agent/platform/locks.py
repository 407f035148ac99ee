"""The cluster's locks as they are asked for: taken, renewed and released where the leader is, listed by any control node.

An operator may end any lock, a node only what it holds in its own name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping

from hmcore.api import ChangeReply
from hmcore.errors import InvalidRequest, NotLeader, PermissionDenied
from hmcore.locks import (
    AcquireReply,
    AcquireRequest,
    HeldLock,
    LocksReply,
    LocksRequest,
    ReleaseRequest,
    RenewReply,
    RenewRequest,
)
from hmcore.pki import Identity, Kind
from hmcore.records import Lock
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import AcquireLock, ReleaseLock
from node_agent.consensus.statemachine.effects.locks import LONGEST, MAX_NAME, SHORTEST
from node_agent.orchestration.lockkeeper import LockKeeper
from node_agent.platform.changes import Changes, checked_reason

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,255}")


class Locks:
    def __init__(
        self,
        me: str,
        changes: Changes,
        keeper: LockKeeper | None,
        *,
        locks: Callable[[], tuple[int, Mapping[str, Lock]] | None],
        leader: Callable[[], str | None],
        barrier: Callable[[], Awaitable[object]],
    ) -> None:
        """`keeper` and what `locks` gives (the table and its log index) are None on a worker, which knows of none. `barrier` returns once
        this node's state has all that was acknowledged before it was called."""
        self._me = me
        self._changes = changes
        self._keeper = keeper
        self._locks = locks
        self._leader = leader
        self._barrier = barrier

    async def acquire(self, request: AcquireRequest, author: Identity) -> AcquireReply:
        """Raises NotLeader, NoQuorum, InvalidRequest, PermissionDenied."""
        command = AcquireLock(
            name=_checked(request.name, "lock"),
            holder=_checked(request.holder, "holder"),
            ttl=_checked_ttl(request.ttl),
            note=checked_reason(request.note)[:MAX_NAME],
        )
        _own(request.holder, author)
        keeper, index, table = self._leading()
        if (unavailable := self._unavailable()) is not None:
            return AcquireReply(index=index, unavailable=unavailable)
        if (other := self._of_another(table, request)) is not None:  # without a word in the log: those who wait ask often
            return AcquireReply(index=index, held=other)
        try:
            index, token = await self._changes.acquire(command, request=request.id, author=author)
        except InvalidRequest:
            _, index, table = self._leading()
            if (other := self._of_another(table, request)) is None:
                raise
            return AcquireReply(index=index, held=other)
        if keeper.confirmed(request.name, token) is None:  # what was just committed says that we led after the request came
            return AcquireReply(index=index, token=token)
        _, index, table = self._leading()
        return AcquireReply(index=index, held=self._of_another(table, request))

    async def renew(self, request: RenewRequest, author: Identity) -> RenewReply:
        """Raises NotLeader, NoQuorum, PermissionDenied, InvalidRequest once the lock is no longer held so."""
        keeper, _, table = self._leading()
        self._may(table.get(request.name), request.token, author)
        await keeper.renew(request.name, request.token)
        return RenewReply(index=self._leading()[1])

    async def release(self, request: ReleaseRequest, author: Identity) -> ChangeReply:
        """Raises NotLeader, NoQuorum, PermissionDenied, InvalidRequest."""
        _, _, table = self._leading()
        self._may(table.get(request.name), request.token, author)
        command = ReleaseLock(name=request.name, token=request.token, reason=checked_reason(request.reason))
        return await self._changes.carry_out(command, request=request.id, author=author)

    async def list(self, request: LocksRequest) -> LocksReply:
        """Raises NotLeader on a worker, NoQuorum if it is to be consistent and cannot be."""
        if request.consistent:
            await self._barrier()
        found = self._locks()
        if found is None or self._keeper is None:
            raise NotLeader(f"{self._me} is a worker and knows of no locks", leader=self._leader())
        index, table = found
        chosen = [table[name] for name in sorted(table) if request.name in ("", name)]
        held = [self._held(lock) for lock in chosen]
        return LocksReply(index=index, locks=held, leader=self._leader() == self._me)

    def _leading(self) -> tuple[LockKeeper, int, Mapping[str, Lock]]:
        self._changes.leading()
        found = self._locks()
        assert found is not None  # only a control node leads
        assert self._keeper is not None
        return self._keeper, *found

    def _unavailable(self) -> str | None:
        cluster = self._changes.leading().cluster
        level = levels.BASE if cluster is None else cluster.feature_level
        if level >= levels.TRUSTED:
            return None
        return f"the cluster is at feature level {level}, and gives locks from level {levels.TRUSTED} on"

    def _of_another(self, table: Mapping[str, Lock], request: AcquireRequest) -> HeldLock | None:
        lock = table.get(request.name)
        return None if lock is None or lock.holder == request.holder else self._held(lock)

    def _held(self, lock: Lock) -> HeldLock:
        left = None if self._keeper is None else self._keeper.left(lock)
        return HeldLock(lock=lock, expires_in=None if left is None else round(left, 3))

    def _may(self, lock: Lock | None, token: int, author: Identity) -> None:
        if lock is not None and lock.token == token:
            _own(lock.holder, author)


def _own(holder: str, author: Identity) -> None:
    """Raises PermissionDenied where a node speaks for somebody else."""
    if author.kind is Kind.NODE and holder.partition("/")[0] != author.name:
        raise PermissionDenied(f"a node holds locks in its own name ({author.name}, {author.name}/...), not as {holder[:100]}")


def _checked(name: str, what: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(f"{name[:100]!r} is no {what}: 1 to {MAX_NAME} letters, digits and _ . : @ / -, a letter or digit in front")
    return name


def _checked_ttl(ttl: float) -> float:
    if not math.isfinite(ttl) or not SHORTEST <= ttl <= LONGEST:
        raise InvalidRequest(f"a lock is held for {SHORTEST:g} to {LONGEST:g} s at a time, not {ttl:g}")
    return ttl
