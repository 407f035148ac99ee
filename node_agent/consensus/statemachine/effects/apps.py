"""Apps: what they shall be, and where their replicas are. What follows from that is decided by the leader (node_agent/orchestration)."""

from __future__ import annotations

from msgspec.structs import replace

from hmcore.apps.records import Allocation, App, Generation, NodeStatuses, statuses_key
from hmcore.apps.spec import AppSpec, spec_digest
from node_agent.consensus.statemachine.appcommands import AdmitNode, PlanApp, PutApp, PutSubnet, RestartApp, ScaleApp, StopApp
from node_agent.consensus.statemachine.commands import Applied, Refused, Result
from node_agent.consensus.statemachine.effects import images, secrets
from node_agent.consensus.statemachine.state import Draft, Entry, Table

KEPT_GENERATIONS = 10  # of an app, beside those that something still refers to


def put_app(draft: Draft, command: PutApp, entry: Entry) -> Result:
    before: App | None = draft.table("apps").get(command.name)
    known = 0 if before is None else before.generation
    if command.expect is not None and command.expect != known:
        return Refused(f"{command.name} is at generation {known} by now, not {command.expect}", revision=known)
    if before is not None and before.stopping:
        return Refused(f"{command.name} is being removed; deploy it again once it is gone")
    if before is not None and not command.origin and current(draft, before).digest == spec_digest(command.spec):
        return Applied(changed=False, revision=known)
    for name, service in sorted(command.spec.services.items()):
        if service.exclusive and (service.mode == "global" or service.replicas > 1):
            return Refused(f"{command.name}/{name} is exclusive: never two of it run at a time")
    if (lacking := secrets.missing(draft, command.spec)) is not None:
        return Refused(lacking)
    return _begin(draft, before or App(name=command.name, generation=0), command.spec, entry, origin=command.origin, note=command.note)


def scale_app(draft: Draft, command: ScaleApp, entry: Entry) -> Result:
    app: App | None = draft.table("apps").get(command.name)
    if app is None or app.stopping:
        return Refused(f"there is no app {command.name}")
    services = dict(current(draft, app).spec.services)
    for name, replicas in command.replicas.items():
        if name not in services:
            return Refused(f"{command.name} has no service {name}")
        if services[name].mode == "global":
            return Refused(f"{command.name}/{name} is global: it runs once on every node that fits")
        if services[name].exclusive and replicas > 1:
            return Refused(f"{command.name}/{name} is exclusive: never two of it run at a time")
        services[name] = replace(services[name], replicas=replicas)
    spec = replace(current(draft, app).spec, services=services)
    if spec_digest(spec) == current(draft, app).digest:
        return Applied(changed=False, revision=app.generation)
    words = ", ".join(f"{name}={replicas}" for name, replicas in sorted(command.replicas.items()))
    return _begin(draft, app, spec, entry, note=f"scaled: {words}")


def _begin(draft: Draft, app: App, spec: AppSpec, entry: Entry, *, origin: int = 0, note: str = "") -> Result:
    """The app's next generation."""
    number = app.generation + 1
    made = Generation(
        app=app.name,
        number=number,
        spec=spec,
        digest=spec_digest(spec),
        origin=origin,
        author=entry.author,
        note=note,
        unix_time=entry.unix_time,
        index=entry.index,
    )
    draft.put("generations", made.key, made)
    draft.put("apps", app.name, replace(app, generation=number, rollouts={}, index=entry.index))
    _forget_generations(draft, app.name)
    what = f"generation {number} brings back {origin}" if origin else f"generation {number}"
    draft.record(entry, "app.deployed", app.name, f"{what}: {note}" if note else what)
    return Applied(revision=number)


def restart_app(draft: Draft, command: RestartApp, entry: Entry) -> Result:
    app: App | None = draft.table("apps").get(command.name)
    if app is None or app.stopping:
        return Refused(f"there is no app {command.name}")
    services = current(draft, app).spec.services
    if unknown := sorted(set(command.services) - set(services)):
        return Refused(f"{command.name} has no service {unknown[0]}")
    chosen = command.services or tuple(sorted(services))
    restarts = app.restarts | {name: app.restarts.get(name, 0) + 1 for name in chosen}
    rollouts = {name: rollout for name, rollout in app.rollouts.items() if name not in chosen}
    draft.put("apps", app.name, replace(app, restarts=restarts, rollouts=rollouts, index=entry.index))
    draft.record(entry, "app.restarted", app.name, ", ".join(chosen))
    return Applied(revision=app.generation)


def stop_app(draft: Draft, command: StopApp, entry: Entry) -> Result:
    app: App | None = draft.table("apps").get(command.name)
    if app is None or app.stopping:
        return Applied(changed=False)
    draft.put("apps", app.name, replace(app, stopping=True, index=entry.index))
    draft.record(entry, "app.stopped", app.name, "it is being removed")
    return Applied(revision=app.generation)


def plan_app(draft: Draft, command: PlanApp, entry: Entry) -> Result:
    """All of a plan, or nothing: it was made from what the app was at log index `basis`, and is refused if that has changed."""
    app: App | None = draft.table("apps").get(command.app)
    if app is None or app.index != command.basis:
        return Refused(f"{command.app} has changed since the plan was made")
    if (reason := _misfit(draft, command)) is not None:
        return Refused(reason)
    serial = app.serial
    for start in command.starts:
        draft.put("allocations", start.key, replace(start, index=entry.index))
        serial = max(serial, start.serial)
    allocations = draft.table("allocations")
    for stop in command.stops:
        found: Allocation = allocations[stop.key]
        draft.put("allocations", stop.key, replace(found, stop=True, reason=stop.reason, index=entry.index))
    for key in command.done:
        draft.put("allocations", key, replace(draft.table("allocations")[key], done=True, index=entry.index))
    for key in command.forgets:
        draft.remove("allocations", key)
    for told in command.events:
        draft.record(entry, told.kind, told.subject, told.message)
    if command.gone:
        _remove_app(draft, app.name)
        return Applied()
    after = replace(app, rollouts=command.rollouts, healthy=command.healthy, serial=serial, index=entry.index)
    draft.put("apps", app.name, after)
    if command.back_to:
        spec = draft.table("generations")[f"{app.name}@{command.back_to}"].spec
        return _begin(draft, after, spec, entry, origin=command.back_to, note=command.note)
    _note_reached(draft, after)
    _forget_generations(draft, app.name)
    return Applied()


def _note_reached(draft: Draft, app: App) -> None:
    """A generation that was healthy once is one to come back to."""
    made: Generation | None = draft.table("generations").get(f"{app.name}@{app.healthy}")
    if made is not None and not made.reached:
        draft.put("generations", made.key, replace(made, reached=True))


def _misfit(draft: Draft, command: PlanApp) -> str | None:
    """Why a plan cannot be carried out, whoever made it."""
    nodes, allocations = draft.table("nodes"), draft.table("allocations")
    for start in command.starts:
        if start.app != command.app or start.node not in nodes:
            return f"{start.id} cannot be placed on {start.node}: there is no such node"
        if start.key in allocations or f"{command.app}@{start.generation}" not in draft.table("generations"):
            return f"{start.id} cannot be placed: it is there already, or its generation is not known"
    if command.back_to and f"{command.app}@{command.back_to}" not in draft.table("generations"):
        return f"{command.app} has no generation {command.back_to}"
    for key in (*(stop.key for stop in command.stops), *command.done, *command.forgets):
        if key not in allocations or allocations[key].app != command.app:
            return f"{key} is no allocation of {command.app}"
    if command.gone and (left := set(_allocations(draft, command.app)) - set(command.forgets)):
        return f"{command.app} still has {len(left)} allocations"
    return None


def put_subnet(draft: Draft, command: PutSubnet, entry: Entry) -> Result:
    if command.subnet.node not in draft.table("nodes"):
        return Refused(f"there is no node {command.subnet.node}")
    for node, other in draft.table("subnets").items():
        if node != command.subnet.node and other.cidr == command.subnet.cidr:
            return Refused(f"{command.subnet.cidr} is the subnet of {node}")
    before = draft.table("subnets").get(command.subnet.node)
    if before is not None:
        return Applied(changed=False) if before.cidr == command.subnet.cidr else Refused(f"{before.node} has the subnet {before.cidr}")
    draft.put("subnets", command.subnet.node, replace(command.subnet, index=entry.index))
    return Applied()


def admit_node(draft: Draft, command: AdmitNode, entry: Entry) -> Result:
    if command.node not in draft.table("nodes"):
        return Refused(f"there is no node {command.node}")
    apps = sorted({each.app for each in draft.table("allocations").values() if each.node == command.node} & draft.table("apps").keys())
    for name in apps:
        draft.put("apps", name, replace(draft.table("apps")[name], index=entry.index))
    key = statuses_key(command.node)  # a worker follows what begins with its name: so it hears at once how things are as of now
    told: NodeStatuses | None = draft.table("statuses").get(key)
    draft.put("statuses", key, replace(told or NodeStatuses(incarnation=0), index=entry.index))
    return Applied(changed=bool(apps))


def forget_node(draft: Draft, name: str) -> None:
    """A node that was removed: what it ran is nowhere any more, as far as anybody will ever hear. What is exclusive may run on until the
    node is fenced: the leader forgets it then."""
    keys: dict[Table, str] = {"subnets": name, "machines": name, "statuses": statuses_key(name)}
    for table, key in keys.items():
        if key in draft.table(table):
            draft.remove(table, key)
    images.forget_node(draft, name)
    gone = [key for key, each in draft.table("allocations").items() if each.node == name and not _exclusive(draft, each)]
    for key in gone:
        draft.remove("allocations", key)
    secrets.forget_keeper(draft, name)


def _exclusive(draft: Draft, allocation: Allocation) -> bool:
    made: Generation | None = draft.table("generations").get(f"{allocation.app}@{allocation.generation}")
    service = None if made is None else made.spec.services.get(allocation.service)
    return service is not None and service.exclusive


def current(draft: Draft, app: App) -> Generation:
    found: Generation = draft.table("generations")[f"{app.name}@{app.generation}"]
    return found


def _allocations(draft: Draft, app: str) -> dict[str, Allocation]:
    return {key: each for key, each in draft.table("allocations").items() if each.app == app}


def _remove_app(draft: Draft, name: str) -> None:
    draft.remove("apps", name)
    for key in [key for key, each in draft.table("generations").items() if each.app == name]:
        draft.remove("generations", key)
    images.forget_unused(draft)
    secrets.forget_app(draft, name)


def _forget_generations(draft: Draft, name: str) -> None:
    app: App = draft.table("apps")[name]
    used = {app.generation, app.healthy, *(each.generation for each in _allocations(draft, name).values())}
    numbers = sorted((each.number for each in draft.table("generations").values() if each.app == name), reverse=True)
    gone = [number for number in numbers[KEPT_GENERATIONS:] if number not in used]
    for number in gone:
        draft.remove("generations", f"{name}@{number}")
    if gone:
        images.forget_unused(draft)
        secrets.forget_unused(draft)
