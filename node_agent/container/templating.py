"""Swarm's templates in a service's spec, filled in for one replica of it (hmcore/apps/templates.py). Pure."""

from __future__ import annotations

from msgspec.structs import replace

from hmcore.apps.records import Allocation
from hmcore.apps.spec import Mount, ServiceSpec, templated
from hmcore.apps.templates import Replica, filled


def filled_in(service: ServiceSpec, allocation: Allocation) -> ServiceSpec:
    """Of hostname, environment and paths of the node; what else looks like one is none."""
    spec = service.container
    if not any("{{" in text for text in templated(spec)):
        return service
    slot = 0 if service.mode == "global" else allocation.slot
    replica = Replica(allocation.node, allocation.app, allocation.service, slot, allocation.serial, service.labels)

    def mount(each: Mount) -> Mount:
        return replace(each, source=filled(each.source, replica)) if each.kind == "bind" else each

    container = replace(
        spec,
        hostname=filled(spec.hostname, replica),
        environment={name: filled(value, replica) for name, value in spec.environment.items()},
        mounts=tuple(mount(each) for each in spec.mounts),
    )
    return replace(service, container=container)
