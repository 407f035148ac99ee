"""The cluster's locks: to be held by a program of the operator's, looked at, and ended when their holder cannot.

async with lock(inventory, store, "nightly", note="backup") as lease:
    ...                     # renewed in the background, whoever leads
    lease.check()           # raises LeaseLost once it is not ours any more; `lease.lost` can be waited for
    lease.token             # for what must refuse a holder that does not know yet that it lost it
"""

from __future__ import annotations

import getpass
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from hmcore import lease, locks
from hmcore.errors import HyperMeshError
from hmcore.records import Role
from hmctl.actions.agents import Agents
from hmctl.actions.change import nobody_answers
from hmctl.actions.leading import LeaderCalls
from hmctl.client import Access, Via

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.client import AgentClient
    from hmctl.state import OperatorStore


class LockView(msgspec.Struct, frozen=True, kw_only=True):
    """A lock that is held. `since`: unix time by the clock of the node that led then. `expires_in`: seconds it has unless it is renewed;
    null when no leader told us."""

    name: str
    holder: str
    token: int
    since: float
    ttl: float
    expires_in: float | None
    note: str
    author: str
    index: int


class LockList(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl lock status`. `leader`: whether `told_by` leads, so that nothing newer is known."""

    told_by: str
    leader: bool
    index: int
    locks: list[LockView]


class LockRelease(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl lock release`. `changed` is false when it was free already, or another's by now."""

    name: str
    holder: str
    token: int
    changed: bool
    index: int


def holder() -> str:
    """A name that no other process has: USER@HOST-RANDOM."""
    who = re.sub(r"[^A-Za-z0-9_.@-]", "-", f"{getpass.getuser()}@{socket.gethostname()}")
    return f"{who[:200].lstrip('_.@-') or 'operator'}-{secrets.token_hex(3)}"


@asynccontextmanager
async def lock(
    inventory: Inventory,
    store: OperatorStore,
    name: str,
    *,
    note: str = "",
    ttl: float = lease.TTL,
    wait: float = 0.0,
    patience: float = lease.PATIENCE,
    via: Via = Via.AUTO,
    waiting: Callable[[locks.HeldLock], None] = lambda other: None,
) -> AsyncIterator[lease.Lease]:
    """Hold the cluster's lock `name` while the block runs, in the name of `holder()`. Raises what hmcore.lease.held raises."""
    async with (
        _asking(inventory, Access.of(store, via), via) as agents,
        lease.held(LeaderCalls(agents), name, holder=holder(), ttl=ttl, note=note, wait=wait, patience=patience, waiting=waiting) as held,
    ):
        yield held


def _asking(inventory: Inventory, access: Access, via: Via, timeout: float | None = None) -> Agents:
    return Agents([host for host in inventory.hosts if host.role is Role.CONTROL], access, via=via, timeout=timeout)


async def status(inventory: Inventory, access: Access, *, name: str = "", via: Via = Via.AUTO, timeout: float | None = None) -> LockList:
    """All locks, or the one, as the leader knows them; without one, as whoever has applied most. Raises PeerUnreachable, CallRefused."""

    async def ask(agent: AgentClient) -> locks.LocksReply:
        return await agent.call(locks.LOCKS, locks.LocksRequest(name=name))

    async with _asking(inventory, access, via, timeout) as agents:
        answers = await agents.ask_all(ask)
    said = {node: answer for node, answer in answers.items() if isinstance(answer, locks.LocksReply)}
    if not said:
        raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
    told_by = max(said, key=lambda node: (said[node].index, said[node].leader, node))  # one that was cut off may think it leads
    reply = said[told_by]
    return LockList(told_by=told_by, leader=reply.leader, index=reply.index, locks=[view(held) for held in reply.locks])


def view(held: locks.HeldLock) -> LockView:
    kept = held.lock
    return LockView(
        name=kept.name,
        holder=kept.holder,
        token=kept.token,
        since=kept.unix_time,
        ttl=kept.ttl,
        expires_in=held.expires_in,
        note=kept.note,
        author=kept.author,
        index=kept.index,
    )
