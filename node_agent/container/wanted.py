"""What shall run here, from the replicated records; and our containers as the registry shall know them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hmcore.apps.records import Allocation, AllocationStatus, Generation, Phase
from hmcore.apps.spec import ServiceSpec
from hmcore.records import ALLOCATION, InstanceHealth, Registration
from node_agent.container.creation import Wanted
from node_agent.container.fencing.chain import Permit
from node_agent.container.info import ContainerInfo

_FIT = (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED)


def wanted_of(allocations: Mapping[str, Allocation], generations: Mapping[str, Generation]) -> dict[str, Wanted]:
    """By id."""
    found = {}
    for id, allocation in allocations.items():
        made = generations.get(f"{allocation.app}@{allocation.generation}")
        found[id] = Wanted(allocation, None if made is None else made.spec)
    return found


def permitted(wanted: Mapping[str, Wanted], permit: Permit) -> dict[str, Wanted]:
    """With what the node's lease says of those that are exclusive."""
    now = {"barred": permit.barred, "held": permit.held, "lease": permit.lease}
    return {id: replace(want, **now) if want.exclusive else want for id, want in wanted.items()}  # type: ignore[arg-type]


def registered(
    containers: Mapping[str, ContainerInfo], wanted: Mapping[str, Wanted], statuses: Mapping[str, AllocationStatus]
) -> dict[str, ContainerInfo]:
    """By id, as `containers`: those of allocations get calls by what their service says now, which their labels may not, and while they are
    well as their agent sees it: one that is being stopped, or that fails the agent's own probe, gets none. A job that has done its work
    is no instance of anything."""
    return {
        id: _registered(info, wanted.get(info.allocation), status)
        for id, info in containers.items()
        if (status := statuses.get(info.allocation)) is None or (status.phase, status.exit_code) != (Phase.DONE, 0)
    }


def known_fit(registration: Registration | None) -> frozenset[str]:
    """The allocations of a node that the cluster, by what is registered of it, leads to."""
    instances = () if registration is None or registration.expired else registration.instances
    return frozenset(each.attributes[ALLOCATION] for each in instances if each.health in _FIT and ALLOCATION in each.attributes)


def _registered(info: ContainerInfo, wanted: Wanted | None, status: AllocationStatus | None) -> ContainerInfo:
    if not info.allocation:
        return info
    service = None if wanted is None else wanted.service
    if service is not None:
        info = replace(info, weight=service.weight, priority=service.priority, port=_port(service) or info.port)
    return replace(info, health=_health(info, wanted, status)) if info.running else info


def _port(service: ServiceSpec) -> int:
    return service.ports[0].target if service.ports else min(service.container.expose, default=0)


def _health(info: ContainerInfo, wanted: Wanted | None, status: AllocationStatus | None) -> str:
    """In Docker's words. What nobody wants, or is to stop, is not to get calls."""
    if wanted is None or wanted.allocation.stop or status is None or status.container != info.id or status.phase is not Phase.RUNNING:
        return "starting" if wanted is not None and not wanted.allocation.stop else "unhealthy"
    match status.health:
        case InstanceHealth.HEALTHY | InstanceHealth.DEGRADED:
            return "healthy"
        case InstanceHealth.UNKNOWN:
            return "starting"
        case InstanceHealth.UNHEALTHY:
            return "unhealthy"
