"""What must be so once nothing happens any more."""

from __future__ import annotations

from rollout_world import GOOD, World

from hmcore.apps.records import Stage, wanted_revision


def as_wanted(world: World) -> None:
    """Every service is done, paused because something failed, or waits for another that is not well."""
    app = world.app
    assert app.rollouts.keys() == world.target.services.keys()
    assert {allocation.service for allocation in world.allocations.values()} <= app.rollouts.keys()
    for name, spec in world.target.services.items():
        state, live = app.rollouts[name], world.live(name)
        slots = [allocation.slot if spec.mode == "replicated" else allocation.node for allocation in live]
        revision = wanted_revision(app, world.target, name)
        assert (state.generation, state.revision) == (app.generation, revision)
        match state.stage:
            case Stage.STEADY | Stage.ROLLING if cramped(world, name):
                assert len(set(slots)) <= spec.replicas
            case Stage.STEADY:
                assert len(live) == (spec.replicas if spec.mode == "replicated" else len(world.machines))
                assert len(slots) == len(set(slots))
                assert {allocation.revision for allocation in live} <= {revision}
                if spec.container.image in GOOD:
                    assert world.fit(name) == len(live)
            case Stage.PAUSED:
                right = world.fit(name) == len(live) == spec.replicas and {each.revision for each in live} == {revision}
                assert not (right and spec.mode == "replicated"), "it came right, and nobody said so"
                assert state.failed
                assert state.message
                assert spec.update.failure_action != "continue" or world.generations[app.generation].origin
            case Stage.ROLLING:
                db = world.target.services["db"]
                assert "db" in spec.depends_on
                assert app.rollouts["db"].stage is not Stage.STEADY or db.container.image not in GOOD
    if app.healthy == app.generation:
        assert all(state.stage is Stage.STEADY for state in app.rollouts.values())


def cramped(world: World, name: str) -> bool:
    """More are wanted than machines take."""
    spec = world.target.services[name]
    return spec.mode == "replicated" and spec.replicas > world.places(spec)
