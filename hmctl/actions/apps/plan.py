"""What a deployment would change of an app, and why nothing may have come of the one before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from hmcore.apps.records import App, Stage
from hmcore.apps.spec import AppSpec, ServiceSpec, spec_digest
from hmcore.errors import HyperMeshError
from hmctl.actions.apps.view import Seen, checked_service, stage_of
from hmctl.compose.difference import Change, difference
from hmctl.text import listed


@dataclass(frozen=True, slots=True)
class Plan:
    """`expect`: the generation that it was made from; 0: there is no such app. `changes`: by service; something that no service has by
    itself may change beside them."""

    name: str
    expect: int
    spec: AppSpec
    changes: tuple[Change, ...]
    changed: bool


def deployable(seen: Seen, name: str) -> App | None:
    """The app as it is; None: there is none yet. Raises HyperMeshError while it is being removed."""
    app = next((app for app in seen.reply.apps if app.name == name), None)
    if app is not None and app.stopping:
        raise HyperMeshError(f"{name} is being removed", fix=f"wait until it is gone: hmctl app rm {name}; then deploy it again")
    return app


def plan(seen: Seen, name: str, spec: AppSpec) -> Plan:
    """What deploying `spec` would change. Raises what `deployable` raises."""
    app = deployable(seen, name)
    if app is None:
        return Plan(name, 0, spec, difference(None, spec), changed=True)
    present = seen.present(app)
    return Plan(name, app.generation, spec, difference(present.spec, spec), changed=present.digest != spec_digest(spec))


def scaled(seen: Seen, app: App, replicas: Mapping[str, int]) -> Plan:
    """What another number of replicas, by service, would change. Raises HyperMeshError when the app has no such service."""
    present = seen.present(app).spec
    changed = {checked_service(seen, app, name): replace(present.services[name], replicas=count) for name, count in replicas.items()}
    spec = replace(present, services=present.services | changed)
    return Plan(app.name, app.generation, spec, difference(present, spec), changed=spec != present)


def shared_volumes(plan: Plan) -> list[str]:
    """Of services that change, in words: several containers on one volume, which is nearly always meant for one."""
    found = []
    for name in sorted(change.service for change in plan.changes if change.kind != "unchanged"):
        service = plan.spec.services.get(name)
        if service is None:
            continue
        volumes = sorted({mount.source for mount in service.container.mounts if mount.kind == "volume" and mount.source})
        if not volumes:
            continue
        if service.mode == "replicated" and service.replicas > 1:
            where = ", all on the one node that has it" if any(_on_one_node(plan.spec, volume) for volume in volumes) else ""
            found.append(f"the {service.replicas} replicas of {name} will share the volume {listed(volumes)}{where}")
        elif _overlaps(service):
            found.append(f"order: start-first: the old and the new replica of {name} will share the volume {listed(volumes)} for a while")
    return found


def _overlaps(service: ServiceSpec) -> bool:
    """Whether a replica's successor runs beside it, also where the node has but one of them."""
    some = service.mode == "global" or service.replicas > 0
    return some and not service.exclusive and "start-first" in (service.update.order, service.rollback.order)


def _on_one_node(spec: AppSpec, volume: str) -> bool:
    """What is external may be on several."""
    made = spec.volumes.get(volume)
    return made is None or (made.local and not made.external)


def unfinished(app: App) -> str:
    """Why an app that is wanted just so is not so yet; empty: it is, or nothing more is known."""
    if services := paused(app):
        return f"its rollout is paused: {'; '.join(f'{name}: {app.rollouts[name].message}' for name in services)}"
    return "its rollout goes on" if app.healthy != app.generation else ""


def goes_on(app: App) -> bool:
    """Whether its rollout is still under way."""
    done = bool(app.rollouts) and all(stage_of(app, name) is Stage.STEADY for name in app.rollouts)
    return not (app.stopping or done or paused(app) or app.healthy == app.generation)


def paused(app: App) -> list[str]:
    """Services whose rollout waits for somebody."""
    return [name for name in sorted(app.rollouts) if stage_of(app, name) is Stage.PAUSED]
