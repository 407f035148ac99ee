"""Who votes, and how far each one's log is: hmctl raft ls, and what a change of the voters is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from hmcore import api
from hmcore.errors import HyperMeshError
from hmcore.records import Role
from hmcore.voters import RAFT, FollowerStatus, RaftStatus, may_fail
from hmctl.actions.agents import Agents
from hmctl.actions.change import nobody_answers
from hmctl.client import AgentClient

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.client import Access, Via


TAKING_PART = frozenset({"leader", "follower", "candidate"})  # what a voter says that is neither damaged nor re-seeding
SILENT = 5.0  # seconds: the leader hears from each several times a second
FRESH = 1.0  # seconds: so lately the leader must have heard one that does not answer us


class VoterView(msgspec.Struct, frozen=True, kw_only=True):
    """A control node, or whoever votes. `role`: voter | learner (catching up; its vote does not count) | removed | outsider (never was
    one). `state`: what it says it is; null when it does not answer us. `lag`: entries behind the leader; null when no leader told us.
    `answered`: seconds since the leader heard it. `trouble`: what it says is the matter, or why it does not answer."""

    name: str
    role: str
    leader: bool
    state: str | None
    last_index: int | None
    lag: int | None
    answered: float | None
    hash: str | None
    index: int | None
    trouble: str | None


class RaftView(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl raft ls`, as `told_by` has it: the leader if there is one. `configured`: log index of the entry that made these the voters; 0
    as they were formed; `committed`: whether that is decided. `may_fail`: voters that may fail while the others still decide, when all
    work; `working`: who of them does, and `may_fail_now`: how many of these may still fail, null where not even they could decide.
    `index`: the log index that this is from."""

    leader: str | None
    term: int
    level: int
    told_by: str
    configured: int
    committed: bool
    voters: list[str]
    learners: list[str]
    may_fail: int
    nodes: list[VoterView]
    working: list[str] = []
    may_fail_now: int | None = None
    index: int = 0


async def look(inventory: Inventory, access: Access, *, via: Via, timeout: float | None = None) -> RaftView:
    """By the leader's word, else by that of the node whose configuration is the latest. Raises HyperMeshError when nobody answers."""
    controls = [host for host in inventory.hosts if host.role is Role.CONTROL]
    async with Agents(controls, access, via=via, timeout=timeout) as agents:
        answers = await agents.ask_all(_status)
    said = {name: answer for name, answer in answers.items() if isinstance(answer, RaftStatus)}
    if not said:
        raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
    return view_of(said, {name: answer for name, answer in answers.items() if isinstance(answer, HyperMeshError)})


async def _status(agent: AgentClient) -> RaftStatus:
    return await agent.call(RAFT, api.Empty())


def view_of(said: Mapping[str, RaftStatus], silent: Mapping[str, HyperMeshError]) -> RaftView:
    """`said`: at least one. Pure."""
    teller = max(said.values(), key=lambda status: (status.role == "leader", status.term, status.configured, status.index, status.name))
    leads = teller.role == "leader"
    leader = teller.name if leads else _leader(said)
    followers = {follower.name: follower for follower in teller.followers}
    names = sorted({*said, *silent, *teller.voters, *teller.learners})
    nodes = [_node(name, teller, name == leader, said.get(name), silent.get(name), followers.get(name)) for name in names]
    working = [node.name for node in nodes if node.role == "voter" and works(node, led=leader is not None)]
    spare = len(working) - (len(teller.voters) // 2 + 1)
    return RaftView(
        leader=leader,
        term=max(status.term for status in said.values()),
        level=teller.level,
        told_by=teller.name,
        configured=teller.configured,
        committed=teller.committed,
        voters=teller.voters,
        learners=teller.learners,
        may_fail=may_fail(len(teller.voters)),
        nodes=nodes,
        working=working,
        may_fail_now=spare if spare >= 0 else None,
        index=teller.index,
    )


def works(node: VoterView, *, led: bool) -> bool:
    """Whether a voter takes part: by its own word, and where one leads, the leader hears it, too. Pure."""
    if node.state is not None and node.state not in TAKING_PART:
        return False
    if node.leader or not led:
        return node.state is not None
    return node.answered is not None and node.answered <= (FRESH if node.state is None else SILENT)


def _leader(said: Mapping[str, RaftStatus]) -> str | None:
    named = [(status.term, status.leader) for status in said.values() if status.leader is not None]
    return max(named)[1] if named else None


def _node(
    name: str, teller: RaftStatus, leader: bool, own: RaftStatus | None, silence: HyperMeshError | None, follower: FollowerStatus | None
) -> VoterView:
    known = follower is not None and follower.match > 0  # a new leader does not know how far one is that it has not heard
    last = teller.last_index if name == teller.name else follower.match if follower and known else own.last_index if own else None
    told = teller.role == "leader" and (follower is not None or leader)
    return VoterView(
        name=name,
        role=_role(name, teller, own),
        leader=leader,
        state=None if own is None else own.role,
        last_index=last,
        lag=teller.last_index - last if told and last is not None else None,
        answered=None if follower is None else follower.answered,
        hash=own.hash or None if own else None,
        index=own.index if own else None,
        trouble=(own.trouble or None) if own else silence.message if silence else None,
    )


def _role(name: str, teller: RaftStatus, own: RaftStatus | None) -> str:
    if name in teller.voters:
        return "voter"
    if name in teller.learners:
        return "learner"
    return "removed" if own is not None and own.removed else "outsider"
