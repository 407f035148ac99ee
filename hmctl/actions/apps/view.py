"""An app as one control node knows it, and the documents that are made of that: what `hmctl app` lists. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from hmcore.apps.calls import AppsReply
from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Phase, Stage
from hmcore.apps.spec import ServiceSpec
from hmcore.errors import HyperMeshError, UsageError
from hmcore.records import InstanceHealth
from hmctl.actions.apps.ports import PortView, ports_of

FIT = (InstanceHealth.HEALTHY, InstanceHealth.DEGRADED)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the node `told_by` answered; `leader`: it leads, so that nothing newer is known, and it says what is waited for."""

    told_by: str
    leader: bool
    reply: AppsReply

    @property
    def led_by(self) -> str | None:
        return self.told_by if self.leader else None

    def app(self, name: str) -> App:
        """Raises HyperMeshError when there is none of that name."""
        for app in self.reply.apps:
            if app.name == name:
                return app
        raise no_app(name)

    def present(self, app: App) -> Generation:
        """What it shall be. Of a list of all apps without what containers are made of."""
        return next(each for each in self.reply.generations if (each.app, each.number) == (app.name, app.generation))

    def generations(self, name: str) -> list[Generation]:
        return [each for each in self.reply.generations if each.app == name]

    def allocations(self, name: str, service: str | None = None) -> list[Allocation]:
        return [each for each in self.reply.allocations if each.app == name and service in (None, each.service)]

    def status(self, allocation: Allocation) -> AllocationStatus | None:
        return self.reply.statuses.get(allocation.id)


class ServiceCount(msgspec.Struct, frozen=True, kw_only=True):
    """`running`, `healthy`: of replicas that shall stay, whatever generation they are of. A job that has done its work counts as both.
    `labels`: of the service, as `deploy.labels` has them."""

    name: str
    desired: int
    running: int
    healthy: int
    stage: str
    labels: dict[str, str] = {}


class AppCount(msgspec.Struct, frozen=True, kw_only=True):
    """`stage`: `rolling`, `paused`, `steady` or `removing`. `healthy_generation`: the last one that all services reached; 0: none."""

    name: str
    generation: int
    healthy_generation: int
    stage: str
    message: str
    services: list[ServiceCount]


class AppList(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl app ls`."""

    told_by: str
    leader: bool
    index: int
    apps: list[AppCount]


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """`replica`: as `hmctl app` takes it, `SERVICE.SLOT`, of a global service `SERVICE@NODE`. `phase` null: its node has not said yet.
    `current`: it is as the app's generation wants it. `stuck`: what `error` says has kept it from its first start for long. `since`: unix
    time by its node's clock; null: not known."""

    id: str
    service: str
    replica: str
    node: str
    generation: int
    current: bool
    stop: bool
    phase: str | None
    health: str
    container: str
    restarts: int
    exit_code: int | None
    error: str
    stuck: bool
    reason: str
    since: float | None
    ports: list[PortView] = []


class AppReplicas(msgspec.Struct, frozen=True, kw_only=True):
    """`hmctl app ps`."""

    name: str
    told_by: str
    leader: bool
    index: int
    generation: int
    replicas: list[ReplicaView]


def no_app(name: str) -> HyperMeshError:
    return HyperMeshError(f"there is no app {name}", fix="hmctl app ls")


def split(target: str) -> tuple[str, str]:
    """APP or APP/SERVICE. Raises UsageError."""
    name, slash, service = target.partition("/")
    if not name or (slash and not service) or "/" in service:
        raise UsageError(f"{target!r} names no app and no service of one", fix="give APP, or APP/SERVICE: hmctl app ls")
    return name, service


def checked_service(seen: Seen, app: App, service: str) -> str:
    """Raises HyperMeshError when the app has no such service."""
    services = seen.present(app).spec.services
    if service and service not in services:
        raise HyperMeshError(
            f"{app.name} has no service {service}; there are {', '.join(sorted(services))}", fix=f"hmctl app ps {app.name}"
        )
    return service


def desired(spec: ServiceSpec, live: Sequence[Allocation]) -> int:
    """Replicas that there shall be; of a global service those that have a place, for only the leader knows on how many nodes it fits."""
    return len({each.node for each in live}) if spec.mode == "global" else spec.replicas


def ended_well(allocation: Allocation, status: AllocationStatus | None) -> bool:
    """A job that has done its work."""
    return allocation.done or (status is not None and status.phase is Phase.DONE and status.exit_code == 0)


def is_fit(status: AllocationStatus | None) -> bool:
    return status is not None and status.phase is Phase.RUNNING and status.health in FIT


def one_line(text: str) -> str:
    """Reasons that stand on lines of their own."""
    return "; ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def stage_of(app: App, service: str) -> Stage:
    """Of the present generation: what was said of an earlier one counts for nothing."""
    rollout = app.rollouts.get(service)
    return rollout.stage if rollout is not None and rollout.generation == app.generation else Stage.ROLLING


def listing(seen: Seen) -> AppList:
    apps = [_count(seen, app) for app in sorted(seen.reply.apps, key=lambda app: app.name)]
    return AppList(told_by=seen.told_by, leader=seen.leader, index=seen.reply.index, apps=apps)


def _count(seen: Seen, app: App) -> AppCount:
    spec = seen.present(app).spec
    stages = {name: stage_of(app, name) for name in sorted(spec.services)}
    worst = next((stage for stage in (Stage.PAUSED, Stage.ROLLING) if stage in stages.values()), Stage.STEADY)
    messages = [f"{name}: {app.rollouts[name].message}" for name, stage in stages.items() if stage is Stage.PAUSED]
    waits = {name: seen.reply.waits.get(f"{app.name}/{name}", "").strip() for name in stages}
    messages += [f"{name} waits: {one_line(why)}" for name, why in waits.items() if why and stages[name] is not Stage.PAUSED]
    return AppCount(
        name=app.name,
        generation=app.generation,
        healthy_generation=app.healthy,
        stage="removing" if app.stopping else str(worst),
        message="; ".join(messages),
        services=[_service_count(seen, app, name, spec.services[name], stage) for name, stage in stages.items()],
    )


def _service_count(seen: Seen, app: App, name: str, spec: ServiceSpec, stage: Stage) -> ServiceCount:
    live = [each for each in seen.allocations(app.name, name) if not each.stop]
    statuses = [(each, seen.status(each)) for each in live]
    done = sum(ended_well(each, status) for each, status in statuses)
    return ServiceCount(
        name=name,
        desired=desired(spec, live),
        running=done + sum(status is not None and status.phase is Phase.RUNNING for _, status in statuses),
        healthy=done + sum(is_fit(status) for _, status in statuses),
        stage=str(stage),
        labels=spec.labels,
    )


def kept_volumes(seen: Seen, name: str) -> list[str]:
    """As Docker calls them: those that its generations mount by name."""
    specs = [each.spec for each in seen.generations(name)]
    return sorted(
        {
            spec.volumes[mount.source].name
            for spec in specs
            for service in spec.services.values()
            for mount in service.container.mounts
            if mount.kind == "volume" and mount.source in spec.volumes
        }
    )


def located(replica: str, node: str) -> str:
    """A replica and where it is, in words: the node is said once."""
    return replica if replica.endswith(f"@{node}") else f"{replica} on {node}"


def replicas(seen: Seen, app: App, revisions: dict[str, str], service: str = "") -> AppReplicas:
    """`revisions`: by service, what a replica of it shall be now."""
    chosen = sorted(seen.allocations(app.name, service or None), key=lambda each: (each.service, each.slot, each.node, each.serial))
    return AppReplicas(
        name=app.name,
        told_by=seen.told_by,
        leader=seen.leader,
        index=seen.reply.index,
        generation=app.generation,
        replicas=[_replica(seen, app, each, current=each.revision == revisions.get(each.service)) for each in chosen],
    )


def _replica(seen: Seen, app: App, allocation: Allocation, *, current: bool) -> ReplicaView:
    status = seen.status(allocation)
    made = next((each for each in seen.generations(app.name) if each.number == allocation.generation and not current), seen.present(app))
    return ReplicaView(
        id=allocation.id,
        service=allocation.service,
        replica=allocation.replica,
        node=allocation.node,
        generation=allocation.generation,
        current=current,
        stop=allocation.stop,
        phase=None if status is None else str(status.phase),
        health=str(InstanceHealth.UNKNOWN if status is None else status.health),
        container="" if status is None else status.container,
        restarts=0 if status is None else status.restarts,
        exit_code=None if status is None else status.exit_code,
        error="" if status is None else status.error,
        stuck=status is not None and status.stuck,
        reason=allocation.reason,
        since=(status.since or None) if status is not None else None,
        ports=ports_of(made.spec.services.get(allocation.service), status),
    )
