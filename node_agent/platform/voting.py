"""Who votes, at an operator's word: a change is carried out where the leader is, and every node tells how its log stands."""

from __future__ import annotations

import logging
from typing import Protocol

from hmcore.api import ChangeReply
from hmcore.errors import InvalidRequest, NotLeader
from hmcore.pki import Identity
from hmcore.records import Role
from hmcore.voters import LONGEST_WAIT, ConfigureRequest, RaftStatus
from node_agent.orchestration.cluster import ClusterView
from node_agent.platform.changes import checked_request, near, request_id

log = logging.getLogger(__name__)


class Voice(Protocol):
    """A control node's part in the log. See RaftNode."""

    @property
    def is_leader(self) -> bool: ...
    async def change_voters(self, *, add: str, remove: str, request_id: str, timeout: float, author: str) -> int: ...
    def status(self) -> RaftStatus | None: ...


class Voting:
    """`voice` is None on a worker."""

    def __init__(self, me: str, view: ClusterView, voice: Voice | None) -> None:
        self._me = me
        self._view = view
        self._voice = voice

    async def configure(self, request: ConfigureRequest, author: Identity) -> ChangeReply:
        """Raises NotLeader, NoQuorum, LevelTooLow, StorageFull, InvalidRequest; ChangeUnfinished when the request's time is up."""
        checked_request(request.id)
        voice = self._voice
        if voice is None or not voice.is_leader:
            if (lasting := self._view.no_quorum) is not None:
                raise lasting
            leader = self._view.leader
            raise NotLeader(f"{self._me} does not lead; {f'{leader} does' if leader else 'nobody is known to'}", leader=leader)
        if request.add and not request.remove:
            check_addition(request.add, self._view)
        before = self._view.report()
        log.info("%s asks to %s", author, f"add the voter {request.add}" if request.add else f"remove the voter {request.remove}")
        index = await voice.change_voters(
            add=request.add,
            remove=request.remove,
            request_id=request_id(request.id, author),
            timeout=min(request.wait, LONGEST_WAIT),
            author=author.name,
        )
        wished = request.add in before.voters if request.add else request.remove not in (*before.voters, *before.learners)
        return ChangeReply(index=index, changed=not wished)

    def status(self) -> RaftStatus:
        """As this node knows it."""
        found = None if self._voice is None else self._voice.status()
        said = self._view.report()
        if found is not None:
            return found
        return RaftStatus(
            name=self._me,
            role=said.role,
            index=self._view.index,
            term=said.term,
            leader=said.leader,
            level=said.level,
            knows=said.knows,
            voters=said.voters,
            learners=said.learners,
            commit_index=said.commit_index,
        )


def check_addition(name: str, view: ClusterView) -> None:
    """Raises InvalidRequest where `name` cannot become a voter: it would be a learner for ever."""
    node = view.nodes.get(name)
    if node is None:
        raise InvalidRequest(f"no node is called {name[:100]!r}{near(name, view.nodes)}", fix="hmctl node ls")
    if node.role is not Role.CONTROL:
        fix = f"give {name} the role control in the inventory, then: hmctl deploy"
        raise InvalidRequest(f"{name} is a {node.role}: it keeps no log, and cannot vote", fix=fix)
