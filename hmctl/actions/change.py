"""A change of the cluster's state: find the leader, ask it, and ask again under the same id while leadership moves.

Only the leader carries changes out. Whoever is asked instead names it; while there is none, or it has just died, we look again until
the deadline; or until all that answer are sure that there will be none, for want of voters. A change that was carried out but whose
answer was lost is not carried out twice: the request's id tells.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from hmcore import api
from hmcore.errors import CallRefused, CallTimeout, ConnectionLost, HyperMeshError, NoQuorum, NotLeader, PeerUnreachable, Undecided
from hmcore.records import Mute, Role
from hmctl.client import SSH_TIMEOUT, Access, Via, ask_all, connect

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.remote.ssh import Connector
    from hmctl.state import OperatorStore

Req = TypeVar("Req")
Res = TypeVar("Res")

DEADLINE = 15.0  # seconds in all: a leader's death and an election fit in
ASKING = 2.0  # seconds that a control node has to say who leads
PATIENCE = 0.7  # and when most have said so
PAUSE = 0.2  # seconds between two looks for a leader
SILENCE = 2.0  # seconds of waiting without a word


def request_id() -> str:
    """An id for a request, the same for all its retries."""
    return uuid.uuid4().hex


async def change(
    inventory: Inventory,
    store: OperatorStore,
    method: api.Method[Req, Res],
    request: Req,
    *,
    via: Via = Via.AUTO,
    timeout: float = DEADLINE,
    say: Callable[[str], None] = lambda words: None,
    look: str = "hmctl status",
    leader: str | None = None,
) -> Res:
    """Have the leader carry out `request`, which must hold an id (`request_id()`). `say` is told what is waited for, if that takes long.
    `look`: the command that shows whether it was carried out, for when we cannot tell. `leader`: who led a moment ago, and is asked first.

    Raises CallRefused (invalid, not permitted), Undecided when it was sent and nobody answered for it; otherwise NoQuorum, PeerUnreachable
    when no control node answers, HyperMeshError when none leads: nothing was changed then.
    """
    sent: set[str] = set()
    try:
        return await at_leader(inventory, store, method, request, via=via, timeout=timeout, say=say, sent=sent, leader=leader)
    except HyperMeshError as error:
        if isinstance(error, CallRefused) and not isinstance(error, NoQuorum):
            raise
        if sent:
            raise Undecided(f"whether it is changed is undecided: it may be already, or be later; {error}", fix=look) from error
        if isinstance(error, NoQuorum):
            raise NoQuorum(f"{error.message}; nothing was changed", host=error.host, fix=error.fix) from error
        raise


async def at_leader(
    inventory: Inventory,
    store: OperatorStore,
    method: api.Method[Req, Res],
    request: Req,
    *,
    via: Via = Via.AUTO,
    timeout: float = DEADLINE,
    say: Callable[[str], None] = lambda words: None,
    sent: set[str] | None = None,
    leader: str | None = None,
) -> Res:
    """What the leader answers to `request`, which must be harmless when it is repeated. `sent` gets the names of those that it was sent to.
    `leader`: who led a moment ago: if that is so still, nobody else is asked.

    Raises CallRefused, PeerUnreachable when no control node answers, HyperMeshError when none leads.
    """
    sent = set() if sent is None else sent
    access = Access.of(store, via)
    controls = [host for host in inventory.hosts if host.role is Role.CONTROL]
    if via is not Via.SSH:
        try:
            return await _Change(controls, access, Via.QUIC, timeout, None, say, sent).carry_out(method, request, leader)
        except _NobodyAnswers:
            if via is Via.QUIC:
                raise
    from hmctl.remote.ssh import Connector

    connector = Connector(access.known_hosts)
    try:
        return await _Change(controls, access, Via.SSH, timeout, connector, say, sent).carry_out(method, request, leader)
    finally:
        await connector.close()


class _NobodyAnswers(PeerUnreachable):
    """Not one control node, by this way."""


class _Change:
    def __init__(
        self,
        controls: Sequence[Host],
        access: Access,
        via: Via,
        timeout: float,
        connector: Connector | None,
        say: Callable[[str], None],
        sent: set[str],
    ) -> None:
        self._hosts = {host.name: host for host in controls}
        self._access = access
        self._via = via
        self._timeout = timeout
        self._connector = connector
        self._say = say
        self._sent = sent
        self._wait: str | None = None  # what for; None: it is not known yet
        self._timer: asyncio.TimerHandle | None = None

    async def carry_out(self, method: api.Method[Req, Res], request: Req, leader: str | None = None) -> Res:
        self._speak_after(SILENCE)
        try:
            return await self._carry_out(method, request, leader if leader in self._hosts else None)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _speak_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._speak)

    def _speak(self) -> None:
        if self._wait is None:
            self._speak_after(PAUSE)
        else:
            self._say(self._wait)

    async def _carry_out(self, method: api.Method[Req, Res], request: Req, named: str | None) -> Res:
        """`named`: by the last that was asked and does not lead."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        trouble: HyperMeshError | None = None
        at_most = f"{self._timeout:g} s at most; less if it gets clear before that nobody can decide"
        while True:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise trouble or HyperMeshError(
                    f"the cluster has no leader, for {self._timeout:g} s: nothing can be changed", fix="hmctl status"
                )
            leader = named or await self._find()
            named = None
            self._wait = f"no leader; waiting for one, {at_most}"
            if leader is not None:
                self._wait = f"{leader} leads; waiting for its answer, {at_most}"
                try:
                    return await self._ask(self._host(leader), method, request, left)
                except NotLeader as error:
                    named, trouble = error.leader if error.leader != leader else None, None
                except (PeerUnreachable, ConnectionLost, CallTimeout, NoQuorum) as error:  # without a quorum: unless there is one again
                    trouble = error
                    self._wait = None  # until it has been looked who leads now
            await asyncio.sleep(PAUSE if named is None else 0)

    def _host(self, name: str) -> Host:
        host = self._hosts.get(name)
        if host is None:
            raise HyperMeshError(
                f"the leader is {name}, which is no control node of this inventory",
                host=name,
                fix="use the inventory that lists it: hmctl -i FILE",
            )
        return host

    async def _find(self) -> str | None:
        """Who leads, by the latest term that the control nodes know of; None while nobody does. Raises when none of them answers, and
        NoQuorum when nobody will."""
        answers = await ask_all(
            list(self._hosts.values()),
            self._state,
            timeout=ASKING if self._connector is None else SSH_TIMEOUT,
            patience=PATIENCE if self._connector is None else None,
            enough=lambda found: is_sure_who_leads(found, len(self._hosts)),
        )
        said = {name: answer for name, answer in answers.items() if isinstance(answer, api.StateReply)}
        if not said:
            failures = [answer for answer in answers.values() if isinstance(answer, HyperMeshError)]
            raise nobody_answers(failures)
        if (lasting := lasting_no_quorum(said)) is not None:
            raise lasting
        return newest_leader(said)

    async def _state(self, host: Host) -> api.StateReply:
        async with await connect(host, self._access, via=self._via, timeout=ASKING, connector=self._connector) as agent:
            return await agent.state()

    async def _ask(self, host: Host, method: api.Method[Req, Res], request: Req, left: float) -> Res:
        async with await connect(host, self._access, via=self._via, timeout=min(left, ASKING), connector=self._connector) as agent:
            self._sent.add(host.name)
            return await agent.call(method, request, timeout=left)


async def known_mutes(inventory: Inventory, store: OperatorStore, *, via: Via = Via.AUTO) -> Mapping[str, Mute]:
    """What is muted, by key: by the control node that knows most. Raises PeerUnreachable, CallRefused."""
    from hmctl.actions.agents import Agents

    controls = [host for host in inventory.hosts if host.role is Role.CONTROL]
    async with Agents(controls, Access.of(store, via), via=via) as agents:
        answers = await agents.ask_all(lambda agent: agent.state(), controls)
    said = [answer for answer in answers.values() if isinstance(answer, api.StateReply)]
    if not said:
        raise nobody_answers([answer for answer in answers.values() if isinstance(answer, HyperMeshError)])
    return {mute.key: mute for mute in max(said, key=lambda reply: reply.index).mutes}


def newest_leader(said: Mapping[str, api.StateReply]) -> str | None:
    """The leader of the newest term in which one is named. A node that was cut off may still name the one before."""
    named = [(reply.term, reply.leader) for reply in said.values() if reply.leader is not None]
    return max(named)[1] if named else None


def is_sure_who_leads(found: Mapping[str, api.StateReply | HyperMeshError], hosts: int) -> bool:
    """Whether the other answers need not be waited for: most of the `hosts` control nodes have answered, and whom the newest term names
    says so itself."""
    said = {name: answer for name, answer in found.items() if isinstance(answer, api.StateReply)}
    leader = newest_leader(said)
    return 2 * len(said) > hosts and leader is not None and leader in said and said[leader].leader == leader


def lasting_no_quorum(said: Mapping[str, api.StateReply]) -> NoQuorum | None:
    """That nothing can be changed, when all that answer are sure of it: the others may be dead, or out of our reach and theirs."""
    if not all(reply.no_quorum and reply.leader is None for reply in said.values()):
        return None
    name = min(said)
    return NoQuorum(said[name].no_quorum, host=name, fix="hmctl status says who is missing")


def nobody_answers(failures: Sequence[HyperMeshError]) -> HyperMeshError:
    """A refusal is a better reason than silence: it is what the operator can do something about."""
    for error in failures:
        if not isinstance(error, PeerUnreachable | ConnectionLost | CallTimeout | NoQuorum):
            return error
    words = "; ".join(f"{error.host}: {error.message}" if error.host else error.message for error in failures)
    return _NobodyAnswers(f"no control node answers: {words}" if words else "the inventory has no control node", fix="hmctl status")
