"""The state as it is now, by the leader's word that it still leads (docs/adr/0070); never an old one in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hmcore import api
from hmcore.errors import HyperMeshError
from hmctl.actions.change import at_leader
from hmctl.client import Via

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.state import OperatorStore


async def consistent_state(inventory: Inventory, store: OperatorStore, *, via: Via = Via.AUTO) -> api.StateReply | HyperMeshError:
    """A state with all that was changed before the call, or why it cannot be had."""
    try:
        reply = await at_leader(inventory, store, api.STATE, api.StateRequest(consistent=True), via=via)
    except HyperMeshError as error:
        return error
    if not reply.consistent:
        return HyperMeshError("the leader runs an earlier release, which does not know whether it still leads", fix="hmctl deploy")
    return reply
