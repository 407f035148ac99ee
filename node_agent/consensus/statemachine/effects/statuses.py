"""How apps' replicas fare, and what nodes have for them, as the nodes tell it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from hmcore.apps.records import AllocationStatus, Machine, NodeStatuses, Phase, statuses_key
from node_agent.consensus.statemachine.appcommands import PutStatuses
from node_agent.consensus.statemachine.commands import Applied, Refused, Result
from node_agent.consensus.statemachine.state import Draft, Entry

MOST_EVENTS = 10  # that one command makes
_TELLING = {Phase.BACKOFF: "replica.ended", Phase.FAILED: "replica.failed", Phase.DONE: "replica.done"}


def put_statuses(draft: Draft, command: PutStatuses, entry: Entry) -> Result:
    if command.node not in draft.table("nodes"):
        return Refused(f"there is no node {command.node}")
    key = statuses_key(command.node)
    before: NodeStatuses | None = draft.table("statuses").get(key)
    if before is not None and command.incarnation < before.incarnation:
        return Refused(f"{command.node} has started again since")
    after = NodeStatuses(incarnation=command.incarnation, allocations=command.allocations, index=entry.index)
    changed = before is None or after != replace(before, index=entry.index)
    if changed:
        draft.put("statuses", key, after)
        _tell(draft, command.node, () if before is None else before.allocations, command.allocations, entry)
    if command.machine is not None:
        changed = _put_machine(draft, command.node, command.machine, entry) or changed
    return Applied(changed=changed)


def _put_machine(draft: Draft, node: str, machine: Machine, entry: Entry) -> bool:
    before: Machine | None = draft.table("machines").get(node)
    after = replace(machine, node=node, index=entry.index)
    if before is not None and after == replace(before, index=entry.index):
        return False
    draft.put("machines", node, after)
    return True


def _tell(draft: Draft, node: str, before: Iterable[AllocationStatus], after: Iterable[AllocationStatus], entry: Entry) -> None:
    """What people want to know of: ends that nobody wanted, not every step on the way. Many at once push nothing else out."""
    known = {status.id: status for status in before}
    told = [status for status in after if status.phase in _TELLING and _differs(known.get(status.id), status)]
    allocations = draft.table("allocations")
    news = [status for status in told if (found := allocations.get(f"{node}/{status.id}")) is not None and not found.stop]
    if len(news) > MOST_EVENTS:
        draft.record(entry, "replicas.ended", node, f"{len(news)} replicas ended or cannot be started")
        return
    for status in news:
        draft.record(entry, _TELLING[status.phase], status.id, f"on {node}: {_fate(status)}")


def _differs(before: AllocationStatus | None, after: AllocationStatus) -> bool:
    return before is None or (before.phase, before.restarts) != (after.phase, after.restarts)


def _fate(status: AllocationStatus) -> str:
    ended = "" if status.exit_code is None or status.error.startswith("it ended") else f"it ended with {status.exit_code}"
    return "; ".join(part for part in (ended, status.error) if part) or status.phase.value
