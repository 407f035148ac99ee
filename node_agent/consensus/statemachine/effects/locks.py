"""Locks: held by one at a time, each time with a larger token. That a holder has gone silent is the leader's to notice (no clock here)."""

from __future__ import annotations

from hmcore.records import Lock
from node_agent.consensus.statemachine.commands import AcquireLock, Applied, ExpireLock, Refused, ReleaseLock, Result
from node_agent.consensus.statemachine.state import Draft, Entry

MAX_LOCKS = 10_000
MAX_NAME = 256  # characters, of a lock, a holder, a note
SHORTEST, LONGEST = 1.0, 3600.0  # seconds that a lock outlives its last renewal


def acquire_lock(draft: Draft, command: AcquireLock, entry: Entry) -> Result:
    if not command.name or not command.holder or max(map(len, (command.name, command.holder, command.note))) > MAX_NAME:
        return Refused(f"a lock, its holder and its note have names of up to {MAX_NAME} characters")
    if not SHORTEST <= command.ttl <= LONGEST:  # also false for what is no number
        return Refused(f"a lock is held for {SHORTEST:g} to {LONGEST:g} s at a time")
    held: Lock | None = draft.table("locks").get(command.name)
    if held is not None and held.holder != command.holder:
        return Refused(f"{command.name} is held by {held.holder}{f' ({held.note})' if held.note else ''}")
    # Whoever has it already is given a new token: a release or an end of the old one that is still on its way must not meet this one.
    if held is None and len(draft.table("locks")) >= MAX_LOCKS:
        return Refused(f"there are {MAX_LOCKS} locks already")
    token = draft.state.tokens + 1
    draft.replace(tokens=token)
    lock = Lock(
        name=command.name,
        holder=command.holder,
        token=token,
        ttl=command.ttl,
        note=command.note,
        author=entry.author,
        index=entry.index,
        unix_time=entry.unix_time,
    )
    draft.put("locks", command.name, lock)
    draft.record(entry, "lock.taken", command.name, f"{command.holder}{f': {command.note}' if command.note else ''}")
    return Applied(token=token)


def release_lock(draft: Draft, command: ReleaseLock | ExpireLock, entry: Entry) -> Result:
    held: Lock | None = draft.table("locks").get(command.name)
    if held is None or held.token > command.token:
        return Applied(changed=False)
    if held.token < command.token:
        return Refused(f"the lock {command.name} was never held with token {command.token}")
    draft.remove("locks", command.name)
    if isinstance(command, ExpireLock):
        draft.record(entry, "lock.expired", command.name, f"{held.holder} has not renewed it for {held.ttl:g} s")
    else:
        draft.record(entry, "lock.released", command.name, command.reason or held.holder)
    return Applied()
