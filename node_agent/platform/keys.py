"""Operators' keys: put and deleted where the leader is, read from any control node."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Mapping

from hmcore.api import ChangeReply
from hmcore.errors import InvalidRequest, NotLeader
from hmcore.pki import Identity
from hmcore.records import KeyValue
from hmcore.store import (
    MOST_BYTES,
    MOST_KEYS,
    DeleteKeyRequest,
    KeyEntry,
    KeyReply,
    KeyRequest,
    KeysReply,
    KeysRequest,
    PutKeyRequest,
    why_no_key,
)
from node_agent.consensus.statemachine.commands import DeleteKey, Fence, PutKey
from node_agent.platform.changes import Changes


class Keys:
    """What is read: the replicated keys as a control node holds them. `keys` is None on a worker, which does not."""

    def __init__(
        self,
        me: str,
        changes: Changes,
        *,
        keys: Callable[[], tuple[int, Mapping[str, KeyValue]] | None],
        leader: Callable[[], str | None],
        barrier: Callable[[], Awaitable[None]],
    ) -> None:
        """`barrier` returns once this node's state has all that was acknowledged before it was called."""
        self._me = me
        self._changes = changes
        self._keys = keys
        self._leader = leader
        self._barrier = barrier

    async def put(self, request: PutKeyRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        fence = _fence(request.lock, request.token)
        command = PutKey(key=_checked(request.key), value=request.value, expect=request.expect, fence=fence)
        return await self._changes.carry_out(command, request=request.id, author=author)

    async def delete(self, request: DeleteKeyRequest, author: Identity) -> ChangeReply:
        """Raises what Changes.carry_out raises."""
        command = DeleteKey(key=_checked(request.key), expect=request.expect, fence=_fence(request.lock, request.token))
        return await self._changes.carry_out(command, request=request.id, author=author)

    async def get(self, request: KeyRequest) -> KeyReply:
        """Raises NotLeader on a worker, NoQuorum if it is to be consistent and cannot be."""
        index, keys = await self._read(request.consistent)
        return KeyReply(index=index, item=keys.get(request.key))

    async def list(self, request: KeysRequest) -> KeysReply:
        """Raises what `get` raises, and InvalidRequest."""
        if not 0 < request.limit <= MOST_KEYS:
            raise InvalidRequest(f"{request.limit} keys at once: 1 to {MOST_KEYS}")
        index, keys = await self._read(request.consistent)
        wanted = (key for key in keys if key.startswith(request.prefix) and key > request.after)
        found = heapq.nsmallest(request.limit + 1, wanted)
        items: list[KeyEntry] = []
        size = 0
        for key in found[: request.limit]:
            entry = _entry(key, keys[key], values=request.values)
            size += len(entry.value)
            if items and size > MOST_BYTES:
                break
            items.append(entry)
        return KeysReply(index=index, items=items, more=len(items) < len(found))

    async def _read(self, consistent: bool) -> tuple[int, Mapping[str, KeyValue]]:
        if consistent:
            await self._barrier()
        found = self._keys()
        if found is None:
            raise NotLeader(f"{self._me} is a worker and holds no keys", leader=self._leader())
        return found


def _entry(key: str, item: KeyValue, *, values: bool) -> KeyEntry:
    return KeyEntry(key=key, created=item.created, changed=item.changed, size=len(item.value), value=item.value if values else b"")


def _checked(key: str) -> str:
    if (why := why_no_key(key)) is not None:
        raise InvalidRequest(why)
    return key


def _fence(lock: str, token: int) -> Fence | None:
    return Fence(lock=lock, token=token) if lock else None
