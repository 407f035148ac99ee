"""Images of an app that is to be deployed: found out once what their names mean, so that every node runs the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from hmcore.apps.spec import AppSpec
from hmcore.errors import ImageUnavailable, InvalidRequest, UsageError
from hmcore.images.calls import RESOLVE, Pinned, Pull, ResolveReply, ResolveRequest
from hmcore.images.names import parse
from hmcore.images.pinning import had, open_names, pinned
from hmctl.actions.change import at_leader
from hmctl.client import Via

if TYPE_CHECKING:
    from hmcore.config.inventory import Inventory
    from hmctl.state import OperatorStore

_FIX = "; fix: "  # see HyperMeshError.with_fix
RESOLVING = 20.0  # seconds in all: a registry may be slow, and a leader be missing for a while


async def pin(
    inventory: Inventory,
    store: OperatorStore,
    spec: AppSpec,
    *,
    pulls: Mapping[str, Pull],
    present: AppSpec | None,
    via: Via,
    warn: Callable[[str], None],
    leader: str | None = None,
) -> AppSpec:
    """`spec` with its images as the cluster, or a registry, has them now. `pulls`: by service, where the file says how; `present`: what the
    app is now. `warn` is told what stays as it is because its registry gave no answer, and when the leader cannot say what images are: each
    node finds out by itself then. Raises ImageUnavailable, and what at_leader raises."""
    services = dict(spec.services)
    ways: list[Pull] = ["", *pulls.values()]
    try:
        for pull in dict.fromkeys(ways):
            part = AppSpec(services={name: each for name, each in services.items() if pulls.get(name, "") == pull})
            if request := asked(part, pull, present):
                reply = await at_leader(inventory, store, RESOLVE, request, via=via, timeout=RESOLVING, leader=leader)
                check(part, reply)
                for name, found in sorted(reply.found.items()):
                    if found.unasked:
                        warn(kept(name, found))
                services |= pinned(part, reply.found).services
    except InvalidRequest as error:  # an earlier release
        warn(f"what images are is not found out once for all nodes, but by each node: {error}")
        return spec
    return replace(spec, services=services)


def asked(spec: AppSpec, pull: Pull, present: AppSpec | None) -> ResolveRequest | None:
    """None: there is nothing to find out."""
    names = open_names(spec, digests=pull == "never")
    before: dict[str, Pinned] = {}
    if present is not None and pull in ("", "missing"):
        before = {name: was for name in names if (was := had(present, name, _services(spec, name))) is not None}
    return ResolveRequest(names=names, pull=pull, had=before) if names else None


def kept(name: str, found: Pinned) -> str:
    """That a name means what it meant, though nobody could ask whether it still does."""
    _, _, digest = found.image.partition("@")
    return f"{_registry(name)} could not be asked: {name} stays as it is, {digest or found.id} ({found.unasked})"


def check(spec: AppSpec, reply: ResolveReply) -> None:
    """Raises ImageUnavailable, naming every service that has an image which nobody knows."""
    if failed := {name: why for name, why in reply.failed.items() if name not in reply.found}:
        told = {name: why.partition(_FIX) for name, why in sorted(failed.items())}
        said = "; ".join(f"{name} of {', '.join(_services(spec, name))}: {why}" for name, (why, _, _) in told.items())
        fixes = [fix for _, _, fix in told.values() if fix]
        raise ImageUnavailable(said, fix=fixes[0] if fixes else f"hmctl image push {min(failed)}, from where Docker has it")


def _registry(name: str) -> str:
    try:
        return parse(name).registry
    except UsageError:  # what an agent answers is not what was asked
        return "the registry"


def _services(spec: AppSpec, image: str) -> list[str]:
    return sorted(name for name, each in spec.services.items() if each.container.image == image)
