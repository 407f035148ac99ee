"""Apps as the control nodes know them: read once, or followed until something has come out; and changes of them, by the leader.

What is waited for is seen where the leader is: it alone knows what a service waits for. While there is none, whoever knows most is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from hmcore import api
from hmcore.apps.calls import APPS, AppsReply, AppsRequest
from hmcore.errors import CallRefused, HyperMeshError, InvalidRequest, NoQuorum, NotAsExpected, NotLeader
from hmcore.records import Role
from hmcore.watch import WATCH, WatchReply, WatchRequest
from hmctl.actions.agents import Agents
from hmctl.actions.apps.progress import End, Ending, Goal, ServiceProgress, ended, out_of_time
from hmctl.actions.apps.view import Seen
from hmctl.actions.change import change, newest_leader, nobody_answers, request_id
from hmctl.client import Via
from hmctl.compose.difference import Change, documents

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.client import AgentClient
    from hmctl.state import OperatorStore

Req = TypeVar("Req")

TABLES = ("apps", "allocations", "statuses")  # whose changes may bring an app further
HOLD = 3.0  # seconds that a node holds a question back: what the leader waits for is in no table, and may be another thing by then
ANSWER = 5.0  # seconds for an answer, beyond that
GAP = 0.1  # seconds between two looks: what changes in one go is looked at once
RETRY = 0.5  # seconds before the nodes are asked again of which none could tell

Tell = Callable[[HyperMeshError | str], None]


class AppChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of an app came to. `changed` is false if it was so already. `ending`: see apps_progress.Ending; `error`: why it is not
    as it was to be. `services`: how far they came, if that was waited for; `plan`: what the change means for them, if it was compared."""

    name: str
    changed: bool
    index: int
    generation: int
    ending: str
    error: str | None
    services: list[ServiceProgress]
    plan: list[dict[str, Any]] = []


def planned(name: str, index: int, generation: int, changes: tuple[Change, ...]) -> AppChange:
    """What a change would mean that nobody made, of an app as it was at log index `index`."""
    plan = documents(changes)
    return AppChange(
        name=name, changed=False, index=index, generation=generation, ending=Ending.PLANNED, error=None, services=[], plan=plan
    )


def new_request() -> str:
    return f"{request_id()}:1"  # a session of one request: it is told from all others as long as a retry may come


async def carry_out(
    inventory: Inventory,
    store: OperatorStore,
    method: api.Method[Req, api.ChangeReply],
    request: Req,
    *,
    via: Via,
    say: Callable[[str], None],
    name: str,
    leader: str | None = None,
) -> api.ChangeReply:
    """Have the leader change app `name`. Raises what hmctl.actions.change.change raises."""
    try:
        return await change(inventory, store, method, request, via=via, say=say, look=f"hmctl app history {name}", leader=leader)
    except NotAsExpected as error:  # the node that says so is not at fault
        raise NotAsExpected(error.message, fix="run it again, to see what it would change now") from error
    except InvalidRequest as error:
        raise type(error)(error.message, fix=error.fix or "hmctl app ls") from error


async def read(agents: Agents, name: str = "", *, capacity: bool = False) -> Seen:
    """All apps, or the one with its generations, by the leader; while there is none, by whoever has applied most. With `capacity`, what
    nodes have, too.

    Raises PeerUnreachable, CallRefused.
    """
    host, leader = await _whom(agents)
    return await _read(agents, host, leader, AppsRequest(name=name, capacity=capacity))


async def _whom(agents: Agents) -> tuple[Host, str | None]:
    """The control node to ask, and who leads as far as any of them knows."""
    controls = {host.name: host for host in agents.hosts if host.role is Role.CONTROL}
    answers = await agents.ask_all(lambda agent: agent.state(), list(controls.values()))
    said = {name: answer for name, answer in answers.items() if isinstance(answer, api.StateReply)}
    if not said:
        raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
    leader = newest_leader(said)
    newest = leader if leader in said else max(said, key=lambda name: (said[name].index, name))
    return controls[newest], leader


async def _read(agents: Agents, host: Host, leader: str | None, request: AppsRequest) -> Seen:
    async def question(agent: AgentClient) -> AppsReply:
        return await agent.call(APPS, request, timeout=ANSWER)

    return Seen(told_by=host.name, leader=host.name == leader, reply=await agents.ask(host, question))


class Looks:
    """Looks at one app, each as soon as something has changed since the one before; never at what is older than log index `since`."""

    def __init__(self, agents: Agents, name: str, *, since: int, tell: Tell) -> None:
        """`tell` hears of nodes that do not answer, once until one does."""
        self._agents = agents
        self._name = name
        self._known = since
        self._tell = tell
        self._at: tuple[Host, str | None] | None = None  # whom we ask, and who leads
        self._looked = False
        self.trouble: HyperMeshError | None = None  # what is in the way at this moment

    async def next(self) -> Seen:
        """Raises CallRefused where that can never be had."""
        while True:
            try:
                found = await self._next()
            except (NotLeader, NoQuorum) as error:
                self._failed(error)
            except CallRefused:
                raise
            except HyperMeshError as error:
                self._failed(error)
            else:
                if found is not None:
                    return found
                continue
            await asyncio.sleep(RETRY)

    async def _next(self) -> Seen | None:
        """None: whoever was asked has not come far enough, or leads no longer."""
        if self._at is None:
            self._at = await _whom(self._agents)
            self._looked = False
        host, leader = self._at
        if self._looked and not await self._changed(host, leader):
            self._at = None
            return None
        found = await _read(self._agents, host, leader, AppsRequest(name=self._name))
        self._looked = True
        if self.trouble is not None:
            self.trouble = None
            self._tell(f"{host.name} is followed now")
        if found.reply.index < self._known:
            return None
        self._known = found.reply.index
        return found

    async def _changed(self, host: Host, leader: str | None) -> bool:
        """Wait for a change, or as long as what we know may be counted on. Whether this node is still the one to ask."""
        await asyncio.sleep(GAP)
        request = WatchRequest(since=self._known, tables=TABLES, wait=HOLD, leader=leader or "")

        async def question(agent: AgentClient) -> WatchReply:
            return await agent.call(WATCH, request, timeout=HOLD + ANSWER)

        reply = await self._agents.ask(host, question)
        return reply.leader == leader

    def _failed(self, error: HyperMeshError) -> None:
        self._at = None
        if self.trouble is None:
            self._tell(error)
        self.trouble = error


async def wait(looks: Looks, goal: Goal, *, timeout: float, show: Callable[[Seen], None]) -> End:
    """Look until the goal is reached or cannot be, `timeout` seconds at most; `show` gets every look. How it came out.

    Raises CallRefused where nobody will ever tell.
    """
    last: Seen | None = None
    try:
        async with asyncio.timeout(timeout) as limit:
            while True:
                last = await looks.next()
                show(last)
                if (end := ended(last, goal)) is not None:
                    return end
    except TimeoutError:
        if not limit.expired():
            raise
    return out_of_time(last, goal, timeout, looks.trouble)
