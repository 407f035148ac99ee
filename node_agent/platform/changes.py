"""Operators' changes of the replicated state: proposed where the leader is, in the operator's name, refused when they mean nothing.

A change is judged by the leader's own state, which no other node knows better; whoever does not lead only says who does. A retry under
the same request id is one change (node_agent/consensus/statemachine/machine.py keeps receipts).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from hmcore.api import ChangeReply, MaintainRequest, MuteRequest
from hmcore.errors import InvalidRequest, NotAsExpected, NotLeader
from hmcore.health import CHECKS, CLUSTER
from hmcore.pki import Identity
from node_agent.consensus.statemachine.commands import (
    AcquireLock,
    Applied,
    Command,
    MuteCheck,
    Refused,
    SetMaintenance,
    decode_result,
    encode,
)
from node_agent.orchestration.cluster import ClusterView, Proposer

MAX_REASON = 500  # characters

_REQUEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{7,63}")
_TARGET = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)/([a-zA-Z0-9][a-zA-Z0-9_.-]{0,254})?")


class Changes:
    """Carries out changes while this node leads."""

    def __init__(self, me: str, view: ClusterView, proposer: Proposer | None, *, timeout: float) -> None:
        """`proposer` is None on a worker, which never leads. `timeout` (seconds) bounds a proposal."""
        self._me = me
        self._view = view
        self._proposer = proposer
        self._timeout = timeout

    def leading(self) -> Proposer:
        """The state to judge a change by. Raises NotLeader unless it is ours, and whole; NoQuorum where nobody will lead for want of
        voters."""
        proposer = self._writer()
        if not proposer.caught_up:
            raise NotLeader(f"{self._me} leads since a moment ago, and has yet to carry out what was decided before", leader=None)
        return proposer

    def _writer(self) -> Proposer:
        """Who may write, though it may not know yet what it is about to know. Raises what `leading` raises."""
        if self._proposer is None or not self._proposer.is_leader:
            if (lasting := self._view.no_quorum) is not None:
                raise lasting
            leader = self._view.leader
            raise NotLeader(f"{self._me} does not lead; {f'{leader} does' if leader else 'nobody is known to'}", leader=leader)
        return self._proposer

    async def carry_out(self, command: Command, *, request: str, author: Identity) -> ChangeReply:
        """Propose `command` in the name of `author` and wait until it is applied here.

        Raises NotLeader, NoQuorum, InvalidRequest (refused by the state, or the request's id is none), NotAsExpected.
        """
        index, applied = await self._propose(command, request, author)
        return ChangeReply(index=index, changed=applied.changed, revision=applied.revision)

    async def acquire(self, command: AcquireLock, *, request: str, author: Identity) -> tuple[int, int]:
        """Log index and token of the lock. Raises what `carry_out` raises."""
        index, applied = await self._propose(command, request, author)
        return index, applied.token

    async def _propose(self, command: Command, request: str, author: Identity) -> tuple[int, Applied]:
        proposer = self._writer()
        checked_request(request)
        index, result = await proposer.propose(
            encode(command), request_id=request_id(request, author), timeout=self._timeout, author=author.name
        )
        return index, _applied(result)

    def answered(self, request: str, author: Identity) -> ChangeReply | None:
        """What came of the request, if it was carried out before: it meant something then, whatever has gone meanwhile.

        Raises NotLeader, and InvalidRequest if it was refused then.
        """
        receipt = self.leading().receipt(request_id(request, author))
        if receipt is None:
            return None
        applied = _applied(receipt.result)
        return ChangeReply(index=receipt.index, changed=applied.changed, revision=applied.revision)

    async def maintain(self, request: MaintainRequest, author: Identity) -> ChangeReply:
        """Take something out of traffic, or give it back. Raises what `carry_out` raises."""
        if (before := self.answered(request.id, author)) is not None:
            return before
        target = checked_target(request.target, self.leading(), on=request.on)
        command = SetMaintenance(target=target, on=request.on, reason=checked_reason(request.reason))
        return await self.carry_out(command, request=request.id, author=author)

    async def mute(self, request: MuteRequest, author: Identity) -> ChangeReply:
        """Mute a health check, or let it speak again. Raises what `carry_out` raises."""
        if (before := self.answered(request.id, author)) is not None:
            return before
        checked_mute(request, self.leading())
        command = MuteCheck(check=request.check, node=request.node, on=request.on, reason=checked_reason(request.reason))
        return await self.carry_out(command, request=request.id, author=author)


def checked_request(request: str) -> None:
    """Raises InvalidRequest unless it can be a request's id."""
    if _REQUEST.fullmatch(request) is None:
        raise InvalidRequest("a request's id is 8 to 64 letters, digits, dots, colons, hyphens or underscores")


def request_id(request: str, author: Identity) -> str:
    """As the log keeps it: nobody can answer for another's request."""
    return f"{author.kind.value}/{author.name}/{request}"


def _applied(result: bytes) -> Applied:
    match decode_result(result):
        case Refused(reason=reason, revision=None):
            raise InvalidRequest(reason)
        case Refused(reason=reason):
            raise NotAsExpected(reason)
        case Applied() as applied:
            return applied


def checked_mute(request: MuteRequest, view: ClusterView) -> None:
    """Raises InvalidRequest unless there is such a check, and such a node. What is muted may be unmuted even so."""
    key = f"{request.check}@{request.node}" if request.node else request.check
    if not request.on and key in view.mutes:
        return
    if request.check not in CHECKS:
        raise InvalidRequest(f"no check is called {request.check[:100]!r}{near(request.check, CHECKS)}", fix="hmctl health --all")
    if request.node and request.check.startswith(CLUSTER):
        raise InvalidRequest(f"{request.check} is a check of the cluster, not of a node", fix=f"hmctl health mute {request.check}")
    if request.node and request.node not in view.nodes:
        raise InvalidRequest(f"no node is called {request.node[:100]!r}{near(request.node, view.nodes)}", fix="hmctl node ls")


def checked_reason(reason: str) -> str:
    """`reason` as it is kept: one line, printable, of bounded length. Raises InvalidRequest."""
    if len(reason) > MAX_REASON:
        raise InvalidRequest(f"the reason is longer than {MAX_REASON} characters")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in reason).split())


def checked_target(target: str, view: ClusterView, *, on: bool) -> str:
    """`target` of maintenance, which must be known: a node with a `/` behind it, or an instance. Raises InvalidRequest.

    What is in maintenance may be given back after it has gone.
    """
    found = _TARGET.fullmatch(target)
    if found is None:
        raise InvalidRequest(f"{target[:100]!r} is neither an instance (NODE/NAME) nor a node with all that it runs (NODE/)")
    known = {f"{name}/" for name in view.nodes} | {
        instance.id for registration in view.registrations.values() for instance in registration.instances
    }
    if target in known or (not on and target in view.maintenance):
        return target
    # Only instances of the same node are suggested: another node, taken by mistake, would be out of traffic with all that it runs.
    node = found[1]
    if node not in view.nodes:
        raise InvalidRequest(f"no node is called {node}", fix="hmctl node ls")
    beside = {each for each in known if each.startswith(f"{node}/") and each != f"{node}/"}
    raise InvalidRequest(f"nothing is called {target}{near(target, beside)}", fix="hmctl service ls --all")


def near(word: str, known: Collection[str]) -> str:
    """`; did you mean ...?`, when something is called nearly so."""
    close = difflib.get_close_matches(word, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
