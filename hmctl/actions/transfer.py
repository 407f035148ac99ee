"""Handing the leadership over on demand: who leads, who could, and asking it of the leader (docs/adr/0071)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from hmcore import api
from hmcore.errors import CallTimeout, ConnectionLost, HyperMeshError, NotLeader, UsageError
from hmcore.records import NodeReport, Role
from hmctl.actions.agents import Agents
from hmctl.actions.change import nobody_answers
from hmctl.actions.status import Expected, view_of
from hmctl.client import AgentClient

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.client import Access, Via

TIMEOUT = 15.0  # seconds for the leader's answer: it gives up by itself after an election timeout, which is shorter in every preset


class Leadership(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads, in which term, and who else votes: one of these could. `index`: the log index that this is from."""

    leader: str
    term: int
    others: list[str]
    index: int = 0


class Transferred(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl raft transfer`. `seconds`: how long nobody took writes, at most; None when nothing had to be changed."""

    before: str
    leader: str
    term: int
    changed: bool
    seconds: float | None
    index: int


async def leadership(inventory: Inventory, access: Access, *, via: Via) -> Leadership:
    """By the newest term's word. Raises HyperMeshError when nobody leads or answers."""
    controls = [host for host in inventory.hosts if host.role is Role.CONTROL]
    async with Agents(controls, access, via=via) as agents:
        answers = await agents.ask_all(_report)
    reports = [answer for answer in answers.values() if isinstance(answer, NodeReport)]
    if not reports:
        raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
    view = view_of([Expected(host.name, host.address, host.role) for host in controls], reports)
    if view.leader is None:
        raise HyperMeshError("nobody leads at present: there is nothing to hand over", fix="hmctl status")
    index = max(report.raft.applied_index for report in reports)
    return Leadership(leader=view.leader, term=view.term, others=sorted(set(view.voters) - {view.leader}), index=index)


async def _report(agent: AgentClient) -> NodeReport:
    return await agent.report(members=False)


def refuse(found: Leadership, to: str) -> None:
    """Raises UsageError where `to` (empty: anybody) could not lead."""
    if not found.others:
        raise UsageError(f"{found.leader} is the only voter: nobody else can lead", fix="a cluster of three control nodes can spare one")
    if to and to not in (found.leader, *found.others):
        raise UsageError(f"{to} is no voter: it cannot lead", fix=f"name {_either(found.others)}")


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def candidates(found: Leadership, to: str) -> str:
    """Who will lead, in words."""
    return to or f"{_either(found.others)}, whichever holds most of the log" if len(found.others) > 1 or to else found.others[0]


async def transfer(inventory: Inventory, access: Access, found: Leadership, to: str, *, via: Via) -> Transferred:
    """Have the leader hand over. Raises CallRefused (nobody took over: it goes on leading; or it leads no more, and says who does)."""
    host = next((host for host in inventory.hosts if host.name == found.leader), None)
    if host is None:
        message = f"the leader is {found.leader}, which is no control node of this inventory"
        raise HyperMeshError(message, host=found.leader, fix="use the inventory that lists it: hmctl -i FILE")
    async with Agents([host], access, via=via) as agents:
        try:
            reply = await agents.ask(host, lambda agent: agent.call(api.TRANSFER, api.TransferRequest(to=to), timeout=TIMEOUT))
        except NotLeader as error:
            message = f"the leadership has just changed: {error.leader or 'nobody is known to lead'}{' leads' if error.leader else ''}"
            raise HyperMeshError(message, host=host.name, fix="look at hmctl status, then run it again") from error
        except (CallTimeout, ConnectionLost) as error:
            message = f"whether it was handed over is not known: {error.message}"
            raise HyperMeshError(message, host=host.name, fix="hmctl status says who leads") from error
    seconds = round(reply.seconds, 3)
    return Transferred(before=found.leader, leader=reply.leader, term=reply.term, changed=True, seconds=seconds, index=reply.index)
