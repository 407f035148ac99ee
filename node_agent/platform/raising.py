"""Raising the feature level: the last step of an upgrade, at an operator's word, once every member runs a release that knows it."""

from __future__ import annotations

from collections.abc import Callable

from hmcore.api import RaiseReply, RaiseRequest
from hmcore.errors import InternalFault, LevelTooLow
from hmcore.pki import Identity
from hmcore.records import Cluster
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.commands import RaiseFeatureLevel
from node_agent.orchestration.advance import Known
from node_agent.platform.changes import Changes


class Raising:
    """`known`: what the members' heartbeats tell; None on a worker, which never leads."""

    def __init__(self, changes: Changes, known: Callable[[], Known] | None) -> None:
        self._changes = changes
        self._known = known

    async def carry_out(self, request: RaiseRequest, author: Identity) -> RaiseReply:
        """Raises NotLeader, NoQuorum, InvalidRequest, and LevelTooLow if a member holds the others back."""
        view = self._changes.leading()
        if view.cluster is None:
            raise LevelTooLow("the cluster is not formed yet", fix="hmctl deploy")
        if self._known is None:
            raise InternalFault("a leader that hears nobody")
        wanted = decide(view.cluster, self._known())
        if wanted is None:
            return RaiseReply(index=view.index, level=view.cluster.feature_level, changed=False)
        done = await self._changes.carry_out(RaiseFeatureLevel(level=wanted), request=request.id, author=author)
        return RaiseReply(index=done.index, level=wanted, changed=done.changed)


def decide(cluster: Cluster, known: Known) -> int | None:
    """The level to raise to; None if there is nothing to do. Pure. Raises LevelTooLow, naming who holds the others back."""
    now = cluster.feature_level
    if now >= levels.LATEST:
        return None
    if known.silent:
        message = f"the feature level stays at {now}: {', '.join(known.silent)} cannot be asked which one it knows"
        raise LevelTooLow(message, fix="hmctl status")
    if known.level > now:
        return known.level
    message = f"the feature level stays at {now}: {', '.join(known.behind)} runs a release that knows no other"
    raise LevelTooLow(message, fix="hmctl deploy")
