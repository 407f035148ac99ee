"""Asks the agents how they are, and judges: what `hmctl status` and `hmctl node` show."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hmcore.apps.calls import APPS, AppsReply, AppsRequest
from hmcore.errors import AnotherNode, HyperMeshError, InvalidRequest, NothingListens, PeerUnreachable, RemoteError
from hmcore.pki import valid_until
from hmcore.records import Role
from hmctl.actions.checks import judge
from hmctl.actions.consistent import consistent_state
from hmctl.actions.forwarded import Ahead, GoBetween, forwarded
from hmctl.actions.status import Answer, Answers, Expected, Silence, Status
from hmctl.client import AT_ONCE, SSH_TIMEOUT, Access, AgentClient, Via, ask_all, connect

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.remote.ssh import Connector
    from hmctl.state import OperatorStore


FEW = 32  # hosts that are asked directly, all of them
DEADLINE = 2.0  # seconds that a node has for its answer
OTHER_WITNESSES = 5  # workers that are asked directly, and for the members
SLOWEST = 30.0  # however busy this machine is
PATIENCE = 0.7  # and when most have answered: time for a lost packet to be sent once more


@dataclass(frozen=True, slots=True)
class Survey:
    """`via` is how the answers came in the end."""

    status: Status
    answers: Answers
    via: Via


async def survey(
    inventory: Inventory,
    store: OperatorStore,
    *,
    via: Via = Via.AUTO,
    timeout: float | None = None,
    closely: Sequence[str] = (),
    consistent: bool = False,
) -> Survey:
    """Asks all hosts of the inventory, each for `timeout` seconds; by default DEADLINE, or PATIENCE after most have answered.

    Of a large cluster only witnesses (and `closely`) are asked directly; control nodes ask the others for us, and whom they do not reach
    is asked directly, too. With `auto`, SSH is tried only when nobody answers over QUIC: UDP is then closed somewhere between us and them,
    while a single dead host must not make everybody wait for its SSH. `consistent`: what the cluster agrees on is asked of the leader, too,
    which must be able to say that it still leads.
    """
    access = Access.of(store, via)
    sure = await consistent_state(inventory, store, via=via) if consistent else None
    used = Via.SSH if via is Via.SSH else Via.QUIC
    found = await _ask(inventory.hosts, access, used, timeout, closely)
    if via is Via.AUTO and found and all(isinstance(answer, PeerUnreachable) for answer in found.values()):
        over_ssh = await _ask(inventory.hosts, access, Via.SSH, timeout, closely)
        if any(isinstance(answer, Answer) for answer in over_ssh.values()):
            found, used = over_ssh, Via.SSH
        else:  # a host that we reached but whose agent does not run says so better than UDP's silence
            found = {name: over_ssh[name] if isinstance(over_ssh[name], PeerUnreachable) else answer for name, answer in found.items()}
    answers = {name: silence_of(answer) if isinstance(answer, HyperMeshError) else answer for name, answer in found.items()}
    status = judge(
        cluster=inventory.name,
        expected=[Expected(host.name, host.address, host.role) for host in inventory.hosts],
        answers=answers,
        certificate_ends=valid_until(access.ours.certificate) if access.ours else None,
        now=datetime.now(UTC),
        sure=sure,
    )
    return Survey(status, answers, used)


async def _ask(
    hosts: Sequence[Host], access: Access, via: Via, timeout: float | None, closely: Sequence[str]
) -> dict[str, Answer | HyperMeshError]:
    async with AsyncExitStack() as stack:
        connector = None
        if via is Via.SSH:
            from hmctl.remote.ssh import Connector

            connector = Connector(access.known_hosts, limit=AT_ONCE)
            stack.push_async_callback(connector.close)
        asking = _Asking(access, via, timeout, connector, witnesses_of(hosts), stack)
        if len(hosts) <= FEW:
            return await asking.directly(hosts)
        near = asking.witnesses | set(closely)
        found = await asking.directly([host for host in hosts if host.name in near], more=True)
        far = [host for host in hosts if host.name not in near]
        each = DEADLINE if timeout is None else timeout
        found |= await forwarded([host.name for host in far], asking.go_betweens, timeout=each)
        left = [host for host in far if host.name not in found]
        found |= await asking.directly(left, others_answered=2 * len(found) > len(hosts))
        return {host.name: found[host.name] for host in hosts}


def witnesses_of(hosts: Sequence[Host]) -> frozenset[str]:
    """Who is asked for the members, too: the control nodes, one of which leads, and a few others for the case that none of them answers.
    If every node listed every node, that would be most of the work in a large cluster."""
    control = [host.name for host in hosts if host.role is Role.CONTROL]
    others = [host.name for host in hosts if host.role is not Role.CONTROL]
    return frozenset((*control, *others[:OTHER_WITNESSES]))


class _Asking:
    """Asks agents directly, one way. `go_betweens` are control nodes that answered and stay connected until `stack` is unwound."""

    def __init__(
        self,
        access: Access,
        via: Via,
        timeout: float | None,
        connector: Connector | None,
        witnesses: frozenset[str],
        stack: AsyncExitStack,
    ) -> None:
        self.witnesses = witnesses
        self.go_betweens: list[GoBetween] = []
        self._access = access
        self._via = via
        self._timeout = timeout
        self._connector = connector
        self._stack = stack
        self._slowest = 0.0  # seconds that an answer has taken

    async def directly(
        self, hosts: Sequence[Host], *, more: bool = False, others_answered: bool = False
    ) -> dict[str, Answer | HyperMeshError]:
        """Each host's answer. `more`: more are to be asked through the control nodes among them. `others_answered`: most of the cluster
        has answered already, so that nobody waits long for the rest."""

        def ask(host: Host) -> Awaitable[Answer]:
            return self._ask(host, each, keep=more and host.role is Role.CONTROL)

        if self._via is Via.SSH:  # logging in takes longer than a QUIC handshake
            each = bound = max(DEADLINE if self._timeout is None else self._timeout, SSH_TIMEOUT)
            return await ask_all(hosts, ask, timeout=bound)
        if self._timeout is not None:
            each = self._timeout
            return await ask_all(hosts, ask, timeout=each)
        each = SLOWEST  # ask_all has the last word
        bound = max(PATIENCE, 3 * self._slowest) if others_answered else DEADLINE
        return await ask_all(hosts, ask, timeout=bound, patience=PATIENCE)

    async def _ask(self, host: Host, timeout: float, *, keep: bool) -> Answer:
        """One agent's report, with how far away it is and how its clock stands. A witness is asked more thoroughly."""
        clock = asyncio.get_running_loop().time
        began = clock()
        agent = await connect(host, self._access, via=self._via, timeout=timeout, connector=self._connector)
        try:
            sent, asked = time.time(), clock()
            report = await agent.report(members=host.name in self.witnesses)
            took = clock() - asked
            # QUIC's own figure is all handshake by now: the cheapest of the exchanges is the best witness of the way itself.
            distance = min(took, took if agent.rtt is None else agent.rtt)
            if (
                host.name in self.witnesses
            ):  # a second exchange says better how far it is; of hundreds of nodes, nobody wants to wait for that
                again = clock()
                await agent.ping()
                distance = min(distance, clock() - again)
            apps = await _apps(agent, timeout) if report.raft.role == "leader" else None
            self._slowest = max(self._slowest, clock() - began)
            ahead = Ahead.read(report.unix_time, sent, took)
            if keep:
                self.go_betweens.append(GoBetween(agent, distance, ahead))
                self._stack.push_async_callback(agent.close)
            return Answer(report, rtt_seconds=distance, offset_seconds=ahead.certain, apps=apps)
        finally:
            if not any(one.agent is agent for one in self.go_betweens):
                await agent.close()


async def _apps(agent: AgentClient, timeout: float) -> AppsReply | HyperMeshError | None:
    """As a leader has them; None: it has none yet, for its release, or the cluster's level, is an earlier one."""
    try:
        return await agent.call(APPS, AppsRequest(), timeout=timeout)
    except InvalidRequest:
        return None
    except HyperMeshError as error:
        return error


def silence_of(error: HyperMeshError) -> Silence:
    """A node that refused us, or failed to answer once we had reached it, is not out of reach: another way there helps nobody."""
    fix = f"hmctl deploy; why its agent is gone: hmctl logs {error.host}" if isinstance(error, NothingListens) else None
    if isinstance(error, AnotherNode):
        fix = f"the inventory calls {error.found} '{error.host}': set its name, or its address, back"
        return Silence(error.message, fix, reached=True, found=error.found)
    return Silence(error.message, error.fix or fix, reached=not isinstance(error, PeerUnreachable | RemoteError))
