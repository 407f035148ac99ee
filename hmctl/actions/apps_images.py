"""Images of an app that is to be deployed: found out once what their names mean, so that every node runs the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hmcore.apps.spec import AppSpec
from hmcore.errors import ImageUnavailable, InvalidRequest
from hmcore.images.calls import RESOLVE, ResolveReply, ResolveRequest
from hmcore.images.pinning import open_names, pinned
from hmctl.actions.change import at_leader
from hmctl.client import Via

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.state import OperatorStore

RESOLVING = 20.0  # seconds in all: a registry may be slow, and a leader be missing for a while


async def pin(
    inventory: Inventory, store: OperatorStore, spec: AppSpec, *, via: Via, warn: Callable[[str], None], leader: str | None = None
) -> AppSpec:
    """`spec` with its images as the cluster, or a registry, has them now. `warn` is told when the leader cannot say that: each node finds
    out by itself then. Raises ImageUnavailable, and what at_leader raises."""
    names = open_names(spec)
    if not names:
        return spec
    try:
        reply = await at_leader(inventory, store, RESOLVE, ResolveRequest(names=names), via=via, timeout=RESOLVING, leader=leader)
    except InvalidRequest as error:  # an earlier release
        warn(f"what images are is not found out once for all nodes, but by each node: {error}")
        return spec
    check(spec, reply)
    return pinned(spec, reply.found)


def check(spec: AppSpec, reply: ResolveReply) -> None:
    """Raises ImageUnavailable, naming every service that has an image which nobody knows."""
    if failed := {name: why for name, why in reply.failed.items() if name not in reply.found}:
        said = "; ".join(f"{name} of {', '.join(_services(spec, name))}: {_why(why)}" for name, why in sorted(failed.items()))
        raise ImageUnavailable(said, fix=f"hmctl image push {min(failed)}, from where Docker has it")


def _services(spec: AppSpec, image: str) -> list[str]:
    return sorted(name for name, each in spec.services.items() if each.container.image == image)


def _why(said: str) -> str:
    """Without the fix that the agent adds: ours is said once, for all."""
    return said.partition("; fix: ")[0]
