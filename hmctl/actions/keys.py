"""Reading the cluster's keys, and what is shown of them. Changes of them go through change.py."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from hmcore.errors import FrameError, HyperMeshError, NoQuorum, NotLeader
from hmcore.records import KeyValue, Role
from hmcore.store import GET_KEY, LIST_KEYS, KeyEntry, KeyReply, KeyRequest, KeysReply, KeysRequest
from hmcore.watch import WATCH, Change, Entry, Position, WatchRequest
from hmctl.actions.agents import Agents
from hmctl.actions.change import nobody_answers
from hmctl.actions.watching import Anew

if TYPE_CHECKING:
    from hmctl.client import AgentClient

T = TypeVar("T")
KEYS = ("keys",)
ATTEMPTS = 5  # at listing keys that change faster than they can be told

_value: msgspec.msgpack.Decoder[KeyValue] = msgspec.msgpack.Decoder(KeyValue)


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl kv get`. `value` is null when it is no UTF-8 text; `base64` is what it is then. `created`, `changed`: revisions."""

    key: str
    index: int
    created: int
    changed: int
    size: int
    value: str | None
    base64: str | None


class ListedKey(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    created: int
    changed: int
    size: int


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl kv ls`: as of log index `index`."""

    index: int
    keys: list[ListedKey]


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl kv put` and `rm`. `revision`: of the key's latest change."""

    key: str
    changed: bool
    index: int
    revision: int


class KeyEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `hmctl kv watch`. `kind`: `put`, `deleted`, `resync` (changes up to `index` are lost: forget what you know; what there is
    follows), `present`."""

    kind: str
    index: int
    key: str | None = None
    changed: int | None = None
    size: int | None = None
    value: str | None = None
    base64: str | None = None


def text_or_base64(value: bytes) -> tuple[str | None, str | None]:
    try:
        return value.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(value).decode()


def view_of(key: str, index: int, item: KeyValue) -> KeyView:
    text, coded = text_or_base64(item.value)
    return KeyView(key=key, index=index, created=item.created, changed=item.changed, size=len(item.value), value=text, base64=coded)


def events_of(news: Entry | Anew) -> list[KeyEvent]:
    """Raises FrameError for a record that is none."""
    if isinstance(news, Entry):
        return [_event("put", news.index, change) for change in news.changes]
    present = sorted(news.records, key=lambda change: change.key)
    return [KeyEvent(kind="resync", index=news.index), *(_event("present", news.index, change) for change in present)]


def _event(kind: str, index: int, change: Change) -> KeyEvent:
    if change.record is None:
        return KeyEvent(kind="deleted", index=index, key=change.key)
    item = _decoded(change)
    text, coded = text_or_base64(item.value)
    return KeyEvent(kind=kind, index=index, key=change.key, changed=item.changed, size=len(item.value), value=text, base64=coded)


def _decoded(change: Change) -> KeyValue:
    try:
        return _value.decode(change.record or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"{change.key!r} cannot be read: {error}") from error


async def get(agents: Agents, key: str, *, consistent: bool) -> KeyReply:
    """As the control node that knows most has it; `consistent`: as it is now. Raises PeerUnreachable, CallRefused, NoQuorum."""
    request = KeyRequest(key=key, consistent=consistent)
    return await _newest(agents, lambda agent: agent.call(GET_KEY, request), lambda reply: reply.index)


async def ls(agents: Agents, prefix: str, *, consistent: bool) -> KeyList:
    """The keys that begin with `prefix`, all as of one log index. Raises PeerUnreachable, CallRefused, HyperMeshError."""
    return await _newest(agents, lambda agent: _list(agent, prefix, consistent=consistent), lambda listing: listing.index)


async def _newest(agents: Agents, question: Callable[[AgentClient], Awaitable[T]], index: Callable[[T], int]) -> T:
    answers = await agents.ask_all(question, [host for host in agents.hosts if host.role is Role.CONTROL])
    said = [answer for answer in answers.values() if not isinstance(answer, HyperMeshError)]
    if not said:
        failures = [answer for answer in answers.values() if isinstance(answer, HyperMeshError)]
        unsure = [error for error in failures if isinstance(error, NoQuorum)]
        if unsure:  # only what is to be consistent needs one
            raise NoQuorum(
                f"no majority can confirm it: {unsure[0].message}",
                fix="hmctl status says who is missing; without --consistent you get what a control node knew last",
            )
        raise nobody_answers([error for error in failures if not isinstance(error, NotLeader)] or failures)
    return max(said, key=index)


async def _list(agent: AgentClient, prefix: str, *, consistent: bool) -> KeyList:
    """In portions, which are of different log indexes while keys are written; what changed behind the first one is put on top."""
    for _ in range(ATTEMPTS):
        first = reply = await agent.call(LIST_KEYS, KeysRequest(prefix=prefix, consistent=consistent))
        found = {item.key: item for item in reply.items}
        while reply.more:
            reply = await agent.call(LIST_KEYS, KeysRequest(prefix=prefix, after=reply.items[-1].key))
            found |= {item.key: item for item in reply.items}
        index = await _brought_to(agent, prefix, first, reply, found)
        if index is not None:
            keys = [ListedKey(key=key, created=each.created, changed=each.changed, size=each.size) for key, each in sorted(found.items())]
            return KeyList(index=index, keys=keys)
    raise HyperMeshError(f"keys that begin with {prefix!r} change faster than they can be listed", host=agent.name)


async def _brought_to(agent: AgentClient, prefix: str, first: KeysReply, last: KeysReply, found: dict[str, KeyEntry]) -> int | None:
    """`found`, of portions between the `first` and the `last`, as of the log index that is returned; None: that is not known any more."""
    position = Position(first.index)
    while position.index < last.index:
        since = position.index
        step = position.take(since, await agent.call(WATCH, WatchRequest(since=since, tables=KEYS, prefix=prefix)))
        if step.oldest is not None or step.behind:
            return None
        put_on_top(found, step.entries)
    return position.index


def put_on_top(found: dict[str, KeyEntry], entries: Sequence[Entry]) -> None:
    """Change `found` as the entries did. What it knows of them already does not matter."""
    for change in (change for entry in entries for change in entry.changes):
        if change.record is None:
            found.pop(change.key, None)
        else:
            item = _decoded(change)
            found[change.key] = KeyEntry(key=change.key, created=item.created, changed=item.changed, size=len(item.value))
