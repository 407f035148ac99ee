"""Keys and their values: bytes under a name, for whoever needs the cluster to remember something."""

from __future__ import annotations

from hmcore.records import KeyValue, Lock
from hmcore.store import MOST_KEY, MOST_VALUE
from node_agent.consensus.statemachine.commands import Applied, DeleteKey, Fence, PutKey, Refused, Result
from node_agent.consensus.statemachine.state import Draft

MAX_KEYS_SIZE = 64 << 20  # bytes of all keys and values: every control node holds them in memory


def put_key(draft: Draft, command: PutKey) -> Result:
    size = len(command.key.encode())
    if not command.key or size > MOST_KEY:
        return Refused(f"a key is 1 to {MOST_KEY} bytes, this one {size}")
    if len(command.value) > MOST_VALUE:
        return Refused(f"a value of {len(command.value)} bytes is too large; {MOST_VALUE} are allowed")
    before = draft.table("keys").get(command.key)
    if (refused := _forbidden(draft, command, before)) is not None:
        return refused
    if before is not None and before.value == command.value and command.expect is None:
        return Applied(changed=False, revision=before.changed)
    total = draft.state.keys_size + len(command.value) - (len(before.value) if before is not None else -size)
    if total > MAX_KEYS_SIZE:
        return Refused(f"all keys together may hold {MAX_KEYS_SIZE >> 20} MiB, and are full")
    revision = draft.state.revision + 1  # not the log index: two changes may share an entry, and `expect` must tell them apart
    created = revision if before is None else before.created
    draft.put("keys", command.key, KeyValue(value=command.value, created=created, changed=revision))
    draft.replace(keys_size=total, revision=revision)
    return Applied(revision=revision)


def delete_key(draft: Draft, command: DeleteKey) -> Result:
    before = draft.table("keys").get(command.key)
    if (refused := _forbidden(draft, command, before)) is not None:
        return refused
    if before is None:
        return Applied(changed=False)
    draft.remove("keys", command.key)
    revision = draft.state.revision + 1
    draft.replace(keys_size=draft.state.keys_size - len(before.value) - len(command.key.encode()), revision=revision)
    return Applied(revision=revision)


def _forbidden(draft: Draft, command: PutKey | DeleteKey, before: KeyValue | None) -> Refused | None:
    changed = 0 if before is None else before.changed
    if command.expect is not None and command.expect != changed:
        what = "does not exist" if before is None else f"was changed last by revision {changed}"
        return Refused(f"{command.key} {what}, expected was {command.expect or 'that it does not exist'}", revision=changed)
    return None if command.fence is None else fenced_off(draft, command.fence)


def fenced_off(draft: Draft, fence: Fence) -> Refused | None:
    """Why whoever holds, or held, a lock with this token may not act any more."""
    lock: Lock | None = draft.table("locks").get(fence.lock)
    if lock is not None and lock.token == fence.token:
        return None
    now = "nobody holds it" if lock is None else f"{lock.holder} holds it with token {lock.token}"
    return Refused(f"the lock {fence.lock} is no longer held with token {fence.token}: {now}")
