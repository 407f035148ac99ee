"""300 nodes, 40 apps and some 2,000 replicas: whatever dies, is cut off or changed meanwhile, no bound is broken, and once it is over all
comes to be as wanted."""

from __future__ import annotations

import random

import pytest
from apps_world import BAD, World

from hmcore.apps.records import Stage
from hmcore.apps.spec import AppSpec, ContainerSpec, Placement, Resources, Restart, ServiceSpec, Update
from node_agent.consensus.statemachine.appcommands import PutApp, RestartApp, ScaleApp, StopApp

NODES, APPS, CLOSED = 300, 40, 20


def service(chance: random.Random, replicas: int, image: str = "good:1", *, exclusive: bool = False) -> ServiceSpec:
    def update(action: str) -> Update:
        return Update(
            parallelism=chance.choice([0, 10, 25]),
            order=chance.choice(["stop-first", "start-first"]),
            failure_action=action,  # type: ignore[arg-type]
            monitor=chance.choice([0.0, 1.0]),
            max_failure_ratio=0.1,  # machines die, too
        )

    return ServiceSpec(
        container=ContainerSpec(image=image),
        replicas=replicas,
        placement=Placement(spread=chance.choice([(), ("node.labels.zone",)]), max_per_node=chance.choice([0, 0, 2])),
        reservations=Resources(cpus=chance.choice([0, 100, 200]), memory=chance.choice([0, 256, 512]) << 20),
        restart=Restart(delay=0.5),
        update=update("rollback"),
        rollback=update("continue"),
        exclusive=exclusive,
    )


def app(chance: random.Random, number: int) -> AppSpec:
    services = {"web": service(chance, chance.randint(35, 65))}
    if number % 4 == 0:
        services["db"] = service(chance, 1, exclusive=True)
    return AppSpec(services=services)


def change(world: World, name: str, chance: random.Random) -> None:
    """What an operator does."""
    made = world.state.apps.get(name)
    if made is None:
        world.do(PutApp(name=name, spec=app(chance, int(name[-2:]))))
    if made is None or made.stopping:
        return
    spec = world.wanted(name)
    web = spec.services["web"]
    match chance.choice(["image", "image", "bad", "scale", "scale", "restart", "remove", "remove"]):
        case "image":
            other = service(chance, web.replicas, chance.choice(["good:2", "good:3"]))
            world.do(PutApp(name=name, spec=AppSpec(services={**spec.services, "web": other})))
        case "bad":
            world.do(PutApp(name=name, spec=AppSpec(services={**spec.services, "web": service(chance, web.replicas, BAD)})))
        case "scale":
            world.do(ScaleApp(name=name, replicas={"web": chance.randint(20, 70)}))
        case "remove":
            world.do(StopApp(name=name))
        case "restart":
            world.do(RestartApp(name=name, services=()))


def strike(world: World, chance: random.Random) -> None:
    """What nobody does on purpose; and a node that runs apps no longer, or again."""
    away = [name for name, member in world.members.items() if not member.reached]
    names = [name for name, member in world.members.items() if member.reached]
    for name in chance.sample(names, chance.choice([0, 0, 1, 2, 5])):
        if len(away) > NODES // 10:
            break
        chance.choice([world.die, world.restart_agent, lambda name: setattr(world.members[name], "cut", True)])(name)
    if (name := chance.choice(names)) not in away and world.leader and world.members[name].reached:
        world.configure(name, apps=world.members[name].staying is not None)
    if world.leader:
        for name in chance.sample([name for name in names if world.members[name].reached], chance.choice([0, 1, 3])):
            world.hang_docker(name)
    for name in chance.sample(away, min(len(away), chance.choice([0, 0, 1, 3]))):
        world.back(name)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hundreds_of_nodes_come_to_what_is_wanted(seed: int) -> None:
    chance = random.Random(seed)
    world = World(seed, NODES, CLOSED)
    for number in range(APPS):
        world.do(PutApp(name=f"app{number:02}", spec=app(chance, number)))
    assert world.quiet(60.0) < 15.0, "nothing was in the way"
    _check_all(world)
    assert 1_500 < len(world.running()) < 2_700

    for tick in range(60):
        if tick % 4 == 0:
            change(world, f"app{chance.randrange(APPS):02}", chance)
        if tick in (15, 45):
            world.elect(headless=True)
        elif tick in (19, 30, 47):
            world.elect()
        strike(world, chance)
        world.tick()
    assert world.refused < world.plans / 4, "plans are overtaken, but seldom"

    world.leader = True
    for name, member in world.members.items():
        world.back(name)
        if member.dockerless:
            world.hang_docker(name)
    world.quiet(240.0)
    for number in range(APPS):
        if f"app{number:02}" not in world.state.apps:
            world.do(PutApp(name=f"app{number:02}", spec=app(chance, number)))
    world.quiet(240.0)
    for name in sorted(name for name, made in world.state.apps.items() if Stage.PAUSED in {each.stage for each in made.rollouts.values()}):
        world.do(RestartApp(name=name, services=()))  # its operator sees that it was not the app's own fault
    world.quiet(240.0)
    _check_all(world)


def _check_all(world: World) -> None:
    """As wanted, and nothing else."""
    state = world.state
    assert not [each.id for each in state.allocations.values() if each.stop], "what was to stop is gone and forgotten"
    assert world.running() == {each.id for each in state.allocations.values()}
    closed = {name for name, member in world.members.items() if member.staying is not None}
    assert len(closed) > CLOSED / 2
    assert not [each.id for each in state.allocations.values() if each.node in closed], "what runs no apps is empty"
    for name, made in state.apps.items():
        assert {rollout.stage for rollout in made.rollouts.values()} == {Stage.STEADY}, (name, world.left().get(name))
        for service, spec in world.wanted(name).services.items():
            there = [each for each in state.allocations.values() if (each.app, each.service) == (name, service)]
            assert len(there) == spec.replicas
            assert spec.container.image != BAD
            assert len({each.slot for each in there}) == spec.replicas
            assert {each.revision for each in there} == {made.rollouts[service].revision}
