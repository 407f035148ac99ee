"""An app as the leader tells it, made of how its replicas fare."""

from __future__ import annotations

from typing import Any

from hmcore.apps.calls import AppsReply
from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Phase, Rollout, Stage, allocation_id, wanted_revision
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec, spec_digest
from hmcore.records import InstanceHealth
from hmctl.actions.apps.view import Seen

SPEC = AppSpec(
    services={
        "web": ServiceSpec(container=ContainerSpec(image="web:1"), replicas=3),
        "agent": ServiceSpec(container=ContainerSpec(image="agent:1"), mode="global"),
    }
)
FIT: dict[str, Any] = {"phase": Phase.RUNNING, "health": InstanceHealth.HEALTHY}
ILL: dict[str, Any] = {"phase": Phase.RUNNING, "health": InstanceHealth.UNHEALTHY, "error": "refused"}
WEAK: dict[str, Any] = {"phase": Phase.RUNNING, "health": InstanceHealth.DEGRADED}
LOOPING: dict[str, Any] = {"phase": Phase.BACKOFF, "exit_code": 1, "restarts": 4, "container": "c1"}
LOST: dict[str, Any] = {"phase": Phase.PULLING, "error": "no such image"}
STUCK: dict[str, Any] = {"phase": Phase.BACKOFF, "error": "no room", "stuck": True}


def seen(*statuses: dict[str, Any] | None, stage: Stage = Stage.ROLLING, waits: str = "", generation: int = 4, **rollout: Any) -> Seen:
    """An app whose web has an allocation for each of `statuses`, and whose agent is steady, on one node."""
    app = App(name="shop", generation=generation, healthy=3)
    aims = {name: wanted_revision(app, SPEC, name) for name in SPEC.services}
    rollouts = {
        "web": Rollout(stage=stage, generation=generation, revision=aims["web"], **rollout),
        "agent": Rollout(stage=Stage.STEADY, generation=generation, revision=aims["agent"]),
    }
    web = [allocation("web", slot, f"node{slot}", aims["web"]) for slot in range(1, len(statuses) + 1)]
    agent = allocation("agent", 0, "node1", aims["agent"])
    told = {each.id: AllocationStatus(id=each.id, **status) for each, status in zip(web, statuses, strict=True) if status is not None}
    told[agent.id] = AllocationStatus(id=agent.id, **FIT)
    made = Generation(app="shop", number=generation, spec=SPEC, digest=spec_digest(SPEC))
    reply = AppsReply(
        index=9,
        apps=[App(name="shop", generation=generation, healthy=3, rollouts=rollouts)],
        generations=[made],
        allocations=[*web, agent],
        statuses=told,
        waits={"shop/web": waits} if waits else {},
    )
    return Seen("node1", True, reply)


def allocation(service: str, slot: int, node: str, revision: str, **more: Any) -> Allocation:
    serial = slot + 10
    return Allocation(
        id=allocation_id("shop", service, slot, serial),
        app="shop",
        service=service,
        slot=slot,
        node=node,
        generation=4,
        revision=revision,
        **more,
    )
