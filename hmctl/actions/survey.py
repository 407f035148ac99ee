"""Asks every agent how it is, and judges: what `hmctl status` and `hmctl node` show."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hmcore.errors import HyperMeshError, NothingListens, PeerUnreachable, RemoteError
from hmcore.pki import valid_until
from hmcore.records import Role
from hmctl.actions.checks import judge
from hmctl.actions.status import Answer, Answers, Expected, Silence, Status
from hmctl.client import AT_ONCE, SSH_TIMEOUT, Access, Via, ask_all, connect

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.remote.ssh import Connector
    from hmctl.state import OperatorStore


DEADLINE = 2.0  # seconds that a node has for its answer
OTHER_WITNESSES = 5  # workers that are asked for the members
SLOWEST = 30.0  # however busy this machine is
PATIENCE = 0.7  # and when most have answered: time for a lost packet to be sent once more


@dataclass(frozen=True, slots=True)
class Survey:
    """`via` is how the answers came in the end."""

    status: Status
    answers: Answers
    via: Via


async def survey(inventory: Inventory, store: OperatorStore, *, via: Via = Via.AUTO, timeout: float | None = None) -> Survey:
    """Asks all hosts of the inventory, each for `timeout` seconds; by default DEADLINE, or PATIENCE after most have answered.

    With `auto`, SSH is tried only when nobody answers over QUIC: UDP is then closed somewhere between us and them, while a single dead
    host must not make everybody wait for its SSH.
    """
    access = Access.of(store, via)
    used = Via.SSH if via is Via.SSH else Via.QUIC
    found = await _ask(inventory.hosts, access, used, timeout)
    if via is Via.AUTO and found and all(isinstance(answer, PeerUnreachable) for answer in found.values()):
        over_ssh = await _ask(inventory.hosts, access, Via.SSH, timeout)
        if any(isinstance(answer, Answer) for answer in over_ssh.values()):
            found, used = over_ssh, Via.SSH
        else:  # a host that we reached but whose agent does not run says so better than UDP's silence
            found = {name: over_ssh[name] if isinstance(over_ssh[name], PeerUnreachable) else answer for name, answer in found.items()}
    answers = {name: _silence(answer) if isinstance(answer, HyperMeshError) else answer for name, answer in found.items()}
    status = judge(
        cluster=inventory.name,
        expected=[Expected(host.name, host.address, host.role) for host in inventory.hosts],
        answers=answers,
        certificate_ends=valid_until(access.ours.certificate) if access.ours else None,
        now=datetime.now(UTC),
    )
    return Survey(status, answers, used)


async def _ask(hosts: Sequence[Host], access: Access, via: Via, timeout: float | None) -> dict[str, Answer | HyperMeshError]:
    bound = DEADLINE if timeout is None else timeout
    knowing = _knowing(hosts)
    if via is Via.QUIC:
        patience = PATIENCE if timeout is None else None
        each = bound if timeout is not None else SLOWEST  # ask_all has the last word
        return await ask_all(
            hosts, lambda host: ask(host, access, Via.QUIC, each, members=host.name in knowing), timeout=bound, patience=patience
        )
    from hmctl.remote.ssh import Connector

    connector = Connector(access.known_hosts, limit=AT_ONCE)
    bound = max(bound, SSH_TIMEOUT)  # logging in takes longer than a QUIC handshake
    try:
        return await ask_all(hosts, lambda host: ask(host, access, Via.SSH, bound, connector, members=host.name in knowing), timeout=bound)
    finally:
        await connector.close()


def _knowing(hosts: Sequence[Host]) -> set[str]:
    """Who is asked for the members, too: the control nodes, one of which leads, and a few others for the case that none of them answers.
    If every node listed every node, that would be most of the work in a large cluster."""
    control = [host.name for host in hosts if host.role is Role.CONTROL]
    others = [host.name for host in hosts if host.role is not Role.CONTROL]
    return {*control, *others[:OTHER_WITNESSES]}


async def ask(host: Host, access: Access, via: Via, timeout: float, connector: Connector | None = None, *, members: bool = True) -> Answer:
    """One agent's report, with how far away it is and how its clock stands. `members`: it is a witness, and asked more thoroughly."""
    async with await connect(host, access, via=via, timeout=timeout, connector=connector) as agent:
        sent, began = time.time(), time.monotonic()
        report = await agent.report(members=members)
        took = time.monotonic() - began
        # QUIC's own figure is all handshake by now: the cheapest of the exchanges is the best witness of the way itself.
        distance = min(took, took if agent.rtt is None else agent.rtt)
        if members:  # a second exchange says better how far it is; of hundreds of nodes, nobody wants to wait for that
            again = time.monotonic()
            await agent.ping()
            distance = min(distance, time.monotonic() - again)
        return Answer(report, rtt_seconds=distance, offset_seconds=_offset(report.unix_time, sent, took))


def _offset(theirs: float, sent: float, took: float) -> float:
    """How far their clock is ahead of ours for certain: they read it at some moment between our question and their answer's arrival."""
    if theirs < sent:
        return theirs - sent
    return max(0.0, theirs - (sent + took))


def _silence(error: HyperMeshError) -> Silence:
    """A node that refused us, or failed to answer once we had reached it, is not out of reach: another way there helps nobody."""
    fix = f"hmctl deploy; why its agent is gone: hmctl logs {error.host}" if isinstance(error, NothingListens) else None
    return Silence(error.message, error.fix or fix, reached=not isinstance(error, PeerUnreachable | RemoteError))
