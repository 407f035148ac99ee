"""One voter more or less, at an operator's word: what it means, why not, and following it until it is so (docs/adr/0069)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from hmcore import api
from hmcore.errors import ChangeUnfinished, HyperMeshError, UsageError
from hmcore.records import Role
from hmcore.voters import CONFIGURE, RAFT, ConfigureRequest
from hmctl.actions.agents import Agents
from hmctl.actions.change import request_id
from hmctl.actions.leading import LeaderCalls
from hmctl.actions.voters import TAKING_PART, RaftView, VoterView, look, works
from hmctl.phases.electorate import LEVEL, quorum
from hmctl.text import listed, plural

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.client import Access, Via
    from hmctl.phases.runner import Progress

WAIT = 2.0  # seconds of one call: after each it is shown how far it is
CALL = 15.0  # seconds for a leader to be found and to answer


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl raft add` and `rm`. `index`: of the entry that made these the voters. `may_fail`: of them, and the others still decide."""

    node: str
    action: str  # add | remove
    changed: bool
    before: list[str]
    voters: list[str]
    may_fail: int
    leader: str | None
    index: int
    seconds: float


def refuse(found: RaftView, inventory: Inventory, node: str, *, add: bool) -> None:
    """Raises UsageError, or HyperMeshError where it is for the cluster's state that `node` cannot be added or removed."""
    if found.leader is None:
        raise HyperMeshError("nobody leads at present: the voters cannot be changed", fix="hmctl status")
    if found.level < LEVEL:
        message = f"the voters can be changed from feature level {LEVEL} on; the cluster is at {found.level}"
        raise HyperMeshError(message, fix="hmctl deploy")
    if add:
        _refuse_addition(found, inventory, node)
    else:
        _refuse_removal(found, node)


def _refuse_addition(found: RaftView, inventory: Inventory, node: str) -> None:
    if node in found.voters:
        return
    host = next((host for host in inventory.hosts if host.name == node), None)
    if host is None:
        raise UsageError(f"no host of the inventory is called {node}", fix=f"add {node} to it with the role control, then: hmctl deploy")
    if host.role is not Role.CONTROL:
        raise UsageError(f"{node} is a worker: it keeps no log", fix="give it the role control in the inventory, then: hmctl deploy")
    seen = next((each for each in found.nodes if each.name == node), None)
    if seen is None or seen.state is None:
        why = f": {seen.trouble}" if seen is not None and seen.trouble else ""
        raise HyperMeshError(f"it does not answer, and could not catch up{why}", host=node, fix=f"hmctl deploy --limit {node}")


def _refuse_removal(found: RaftView, node: str) -> None:
    if node not in (*found.voters, *found.learners):
        if not any(seen.name == node for seen in found.nodes):
            raise UsageError(f"{node} is none of the voters ({listed(found.voters)})", fix="hmctl raft ls")
        return
    rest = [voter for voter in found.voters if voter != node]
    if not rest:
        raise UsageError(f"{node} is the last voter: without it there is no cluster", fix="hmctl reset")
    if node in found.voters:
        idle = [seen for seen in found.nodes if seen.name in rest and not works(seen, led=True)]
        needed = len(rest) // 2 + 1
        if len(rest) - len(idle) < needed:
            who = "; ".join(f"{seen.name} {_why_idle(seen)}" for seen in idle)
            message = f"without {node}, {needed} of {plural(len(rest), 'voter')} would be needed, and {who}"
            first = idle[0]
            mend = f"hmctl raft reseed {first.name}" if first.state == "damaged" else f"mend {first.name}"
            raise HyperMeshError(message, fix=f"{mend}, or remove it first: hmctl raft rm {first.name}")


def _why_idle(seen: VoterView) -> str:
    if seen.state is None:
        return "does not answer"
    return f"is {seen.state}" if seen.state not in TAKING_PART else "is not heard by the leader"


def done_already(found: RaftView, node: str, *, add: bool) -> bool:
    return node in found.voters if add else node not in (*found.voters, *found.learners)


def meaning(found: RaftView, node: str, *, add: bool) -> list[str]:
    """What will happen and what it means, a line each."""
    after = len(found.voters) + (1 if add else -(node in found.voters))
    lines = []
    if add:
        lines.append(f"{node} catches up as a learner, whose vote does not count, and votes from then on")
    elif node == found.leader:
        lines.append(f"{node} leads: it hands over to another voter first")
    if not add and node in found.learners:
        lines.append(f"{node} is no longer caught up; it has no vote yet")
    lines.append(f"now {quorum(len(found.voters))}; then {quorum(after)}")
    return lines


def warning(found: RaftView, node: str, *, add: bool) -> str | None:
    after = len(found.voters) + (1 if add else -(node in found.voters))
    if after % 2 or after == len(found.voters):
        return None
    return f"{after} voters tolerate no more failures than {after - 1}: 1, 3 or 5 are better"


async def configure(
    inventory: Inventory, access: Access, found: RaftView, node: str, *, add: bool, via: Via, timeout: float, progress: Progress
) -> Configured:
    """Have the leader, and whoever leads after it, carry it out within `timeout` seconds; what was begun goes on after that.

    Raises ChangeUnfinished, CallRefused, PeerUnreachable.
    """
    began = time.monotonic()
    controls = [host for host in inventory.hosts if host.role is Role.CONTROL]
    request = request_id()
    async with Agents(controls, access, via=via) as agents:
        calls = LeaderCalls(agents)
        while True:
            left = timeout - (time.monotonic() - began)
            wish = ConfigureRequest(id=request, add=node if add else "", remove="" if add else node, wait=max(0.1, min(WAIT, left)))
            at, detail = await _so_far(calls, node, add=add)
            progress.update(node, at, detail=detail)
            try:
                reply = await calls.call(CONFIGURE, wish, timeout=max(left, min(timeout, CALL)))
            except ChangeUnfinished as error:
                if time.monotonic() - began >= timeout:
                    error.message = f"after {timeout:g} s, {error.message}; it goes on"
                    raise
            else:
                break
    progress.finish(node, "votes" if add else "is no voter any more")
    after = await look(inventory, access, via=via)
    return Configured(
        node=node,
        action="add" if add else "remove",
        changed=True,
        before=found.voters,
        voters=after.voters,
        may_fail=after.may_fail,
        leader=after.leader,
        index=reply.index,
        seconds=round(time.monotonic() - began, 3),
    )


async def _so_far(calls: LeaderCalls, node: str, *, add: bool) -> tuple[str, str]:
    """What it is at, and how far, by the leader's word."""
    status = await calls.call(RAFT, api.Empty(), timeout=CALL)
    if not add:
        return ("handing over", "") if node == status.name else ("removing it from the voters", "")
    follower = next((each for each in status.followers if each.name == node), None)
    if node not in status.learners or follower is None:
        return "asking to be caught up", ""
    if not follower.connected:
        return "catching up as a learner", f"{status.name} has no connection to it"
    return "catching up as a learner", f"holds {follower.match} of {status.last_index} log entries"


def unchanged(found: RaftView, node: str, *, add: bool) -> Configured:
    return Configured(
        node=node,
        action="add" if add else "remove",
        changed=False,
        before=found.voters,
        voters=found.voters,
        may_fail=found.may_fail,
        leader=found.leader,
        index=found.configured,
        seconds=0.0,
    )
