"""Any state that a cluster with one app could be in: drawn, and not come to by a script.

What the product forbids itself is not drawn: a port that is had twice on a machine, two of an exclusive service that may run, a rollout
that is paused without a reason, or an app that is healthy while its rollouts are not done.
"""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace
from rollout_specs import specs
from rollout_world import STARTING, Container, World

from hmcore.apps.records import Allocation, AllocationStatus, App, Generation, Phase, Rollout, Stage, allocation_id, wanted_revision
from hmcore.apps.spec import AppSpec, ServiceSpec
from hmcore.records import InstanceHealth

OLD = "0" * 12  # a revision that nothing has any more
PHASES = {  # of a container, by what its image can come to
    "good": (Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.BACKOFF),
    "crash": (Phase.STARTING, Phase.BACKOFF, Phase.STOPPING),
    "sick": (Phase.STARTING, Phase.RUNNING, Phase.STOPPING),
    "fail": (Phase.STARTING, Phase.FAILED),
    "job": (Phase.STARTING, Phase.DONE),
    "lost": (Phase.PULLING,),
}
PHASES["better"] = PHASES["good"]


@st.composite
def states(draw: st.DrawFn) -> World:
    world = World(draw(st.integers(0, 1000)), draw(st.integers(1, 4)), draw(specs()), draw(st.integers(0, 4)))
    for number in range(2, draw(st.integers(1, 3)) + 1):
        world.generations[number] = Generation(app="shop", number=number, spec=draw(specs()), digest=str(number))
    target = max(world.generations)
    if target > 1 and draw(st.booleans()):
        origin = draw(st.integers(1, target - 1))
        world.generations[target] = replace(world.generations[target], origin=origin, spec=world.generations[origin].spec)
    restarts = {name: draw(st.integers(0, 2)) for name in world.target_of(target).services}
    world.app = App(name="shop", generation=target, healthy=draw(st.integers(0, target)), restarts=restarts, serial=100, index=50)
    world.index = 50
    for machine in world.machines.values():
        machine.up, machine.full, machine.draining, machine.closed, machine.dockerless = (draw(st.booleans()) for _ in range(5))
        machine.slow = draw(st.sampled_from([1.0, 6.0]))
        machine.cut = draw(st.sets(st.sampled_from(["L0", "L1", "L2"])))
    for serial in range(1, draw(st.integers(0, 12)) + 1):
        _allocate(draw, world, serial)
    rollouts = {name: _rollout(draw, world, name) for name in world.target.services if draw(st.integers(0, 3))}
    if draw(st.booleans()):
        rollouts["gone"] = Rollout(generation=target, revision=OLD)
    aims = {name: (target, wanted_revision(world.app, world.target, name)) for name in world.target.services}
    reached = {name for name, each in rollouts.items() if each.stage is Stage.STEADY and (each.generation, each.revision) == aims.get(name)}
    done = reached == world.target.services.keys()
    healthy = world.app.healthy if world.app.healthy < target or done else target - 1
    world.app = replace(world.app, rollouts=rollouts, healthy=healthy)
    world.take_as_given()
    return world


def _rollout(draw: st.DrawFn, world: World, name: str) -> Rollout:
    app, spec = world.app, world.target.services[name]
    generation = draw(st.sampled_from([app.generation, app.generation, app.generation, max(app.generation - 1, 0)]))
    revision = draw(st.sampled_from([wanted_revision(app, world.target, name)] * 3 + [OLD]))
    ids = sorted(id for id, each in world.allocations.items() if each.service == name)
    failed = tuple(draw(st.lists(st.sampled_from([*ids, f"shop/{name}.1.99"]), unique=True, max_size=3)))
    stage = draw(st.sampled_from(list(Stage)))
    how = spec.rollback if world.generations[app.generation].origin else spec.update
    if stage is Stage.PAUSED and (not failed or how.failure_action == "continue"):
        stage = Stage.ROLLING
    if stage is Stage.STEADY and len(failed) > how.max_failure_ratio * spec.replicas:
        failed = ()
    message = "some failed" if stage is Stage.PAUSED else ""
    return Rollout(stage=stage, generation=generation, revision=revision, failed=failed, message=message)


def _allocate(draw: st.DrawFn, world: World, serial: int) -> None:
    """One more, with its container or without; also of a service that there is no more, or on a slot that there shall not be."""
    number = draw(st.sampled_from(sorted(world.generations)))
    made = world.generations[number].spec
    name = draw(st.sampled_from(sorted(made.services)))
    spec, machine = made.services[name], draw(st.sampled_from(list(world.machines.values())))
    slot = 0 if spec.mode == "global" else draw(st.integers(1, 7))
    stop, done = draw(st.booleans()), spec.container.image == "job" and draw(st.booleans())
    allocation = Allocation(
        id=allocation_id("shop", name, slot, serial),
        app="shop",
        service=name,
        slot=slot,
        node=machine.name,
        generation=number,
        revision=draw(st.sampled_from([wanted_revision(world.app, made, name)] * 3 + [OLD])),
        stop=stop,
        done=done and not stop,
        index=draw(st.integers(1, 50)),
    )
    there = [each for each in world.allocations.values() if each.node == machine.name]
    if spec.ports and any(world.spec_of(each).ports for each in there):
        return
    over = spec.exclusive and any(each.service == name for each in world.allocations.values())
    world.allocations[allocation.id] = replace(allocation, stop=True, done=False) if over else allocation
    ended = AllocationStatus(id=allocation.id, phase=Phase.DONE, exit_code=0 if spec.container.image == "job" else 143)
    match draw(st.sampled_from(["nothing yet", "a container", "a container", "it has ended"])):
        case "it has ended" if stop or over or done or spec.container.image == "job":
            machine.ended[allocation.id] = ended
        case _ if over or allocation.done:
            machine.ended[allocation.id] = ended
        case "a container":
            machine.containers[allocation.id] = _container(draw, spec, allocation)


def _container(draw: st.DrawFn, spec: ServiceSpec, allocation: Allocation) -> Container:
    image = spec.container.image
    phase = draw(st.sampled_from([each for each in PHASES[image] if allocation.stop or each is not Phase.STOPPING]))
    health = InstanceHealth.UNKNOWN
    if phase is Phase.RUNNING and draw(st.booleans()):
        health = InstanceHealth.UNHEALTHY if image == "sick" else InstanceHealth.HEALTHY
    return Container(
        allocation,
        image,
        spec.exclusive,
        phase,
        until=draw(st.sampled_from([0.0, STARTING, 5.0])),
        restarts=draw(st.integers(0, 3)),
        health=health,
        exit_code={Phase.DONE: 0, Phase.FAILED: 1, Phase.BACKOFF: 1}.get(phase),
    )


def good(spec: AppSpec) -> AppSpec:
    """The same, of images that run."""
    services = {
        name: replace(service, container=replace(service.container, image="better"), depends_on={})
        for name, service in spec.services.items()
    }
    return AppSpec(services=services)
