"""Control nodes restart, lose disks, come and go: the secrets stay open to them, and shut to whoever has one of their disks."""

from __future__ import annotations

import asyncio

import pytest
from vault_world import ANN, CLUSTER, World, of_node

from hmcore.apps.secrets import SecretsRequest, UnlockReply, UnlockRequest
from hmcore.errors import HyperMeshError, LevelTooLow, PermissionDenied, SecretError, SecretsLocked
from hmcore.pki import Identity, Kind
from hmcore.records import Role
from node_agent.consensus.statemachine.commands import RemoveNode
from node_agent.consensus.statemachine.machine import snapshot
from node_agent.vault.keeper import vault_of
from node_agent.vault.sealing import Hidden, open_vault, take_layer_off

THREE = ("node1", "node2", "node3")
VALUE = b"correct horse battery staple"


async def begun(folder, *names: str) -> World:
    world = World(folder, *(names or THREE))
    await world.settle()
    await world.set("db", VALUE)
    await world.settle()
    return world


async def assert_opens(world: World, *names: str) -> None:
    """Each of them gets the key, and it is the one that the secret is wrapped with."""
    for name in names:
        await world.agents[name].holder.key()
        reply = await world.set("db", VALUE, dry=True)
        assert not reply.changed


async def test_all_control_nodes_open_what_the_leader_sealed_and_the_log_never_holds_it(tmp_path):
    world = await begun(tmp_path)
    await assert_opens(world, *THREE)
    assert VALUE not in snapshot(world.state) + b"".join(world.log)
    assert vault_of(world.state).epoch == 1


async def test_after_all_have_restarted_any_two_are_enough_and_one_is_not(tmp_path):
    world = await begun(tmp_path)
    world.restart()
    world.leader, world.down = "node2", {"node1", "node3"}
    with pytest.raises(SecretsLocked, match="no other control node helps node2"):
        await world.agents["node2"].holder.key()
    world.down = {"node1"}
    await assert_opens(world, "node2", "node3")


async def test_a_control_node_that_never_answers_keeps_nobody_from_the_key(tmp_path, monkeypatch):
    world = await begun(tmp_path)
    world.restart()
    unlock = world.unlock

    async def silent(helper: str, request: UnlockRequest, asker: str) -> UnlockReply:
        if helper == "node1":
            await asyncio.Event().wait()
        return await unlock(helper, request, asker)

    monkeypatch.setattr(world, "unlock", silent)
    async with asyncio.timeout(5.0):
        await world.agents["node2"].holder.key()


async def test_the_disk_of_one_control_node_opens_nothing(tmp_path):
    """Whoever has it has the node's private key and the whole state."""
    world = await begun(tmp_path)
    vault = vault_of(world.state)
    private = Hidden((tmp_path / "node1" / "secrets.key").read_bytes())
    for box in vault.boxes:
        with pytest.raises(SecretError):
            open_vault(CLUSTER, 1, box.node, box.sealed, private)
        if box.helper == "node1":
            with pytest.raises(SecretError):
                open_vault(CLUSTER, 1, box.node, take_layer_off(CLUSTER, 1, box, private), private)


async def test_a_cluster_of_one_opens_its_secrets_alone(tmp_path):
    world = await begun(tmp_path, "node1")
    world.restart()
    await assert_opens(world, "node1")


async def test_a_node_with_a_new_disk_gets_a_new_key_and_the_vault_another_one(tmp_path):
    world = await begun(tmp_path)
    world.reseed("node3")
    await world.settle()
    assert vault_of(world.state).epoch == 2
    world.restart()
    world.down = {"node1"}
    world.leader = "node3"
    await assert_opens(world, "node3")


async def test_a_leader_with_a_new_disk_is_helped_by_those_who_have_the_key(tmp_path):
    world = await begun(tmp_path)
    world.leader = "node3"
    world.reseed("node3")
    await world.settle()
    assert (vault_of(world.state).epoch, world.state.events[-1].kind) == (2, "secrets.key-turned")
    await assert_opens(world, *THREE)


async def test_control_nodes_that_come_and_go_get_and_lose_the_key(tmp_path):
    world = await begun(tmp_path)
    for name in ("node4", "node5"):
        world.join(name)
        world.voters.append(name)
    await world.settle()
    assert set(vault_of(world.state).keepers) == {*THREE, "node4", "node5"}
    removed = await world.agents["node1"].holder.key()
    world.voters.remove("node1")
    world.leader = "node4"
    world.do(RemoveNode(name="node1"))
    gone = world.agents.pop("node1")
    await world.settle()
    assert "node1" not in vault_of(world.state).keepers
    assert vault_of(world.state).epoch > removed.epoch
    with pytest.raises(SecretsLocked):
        await gone.holder.key()
    await assert_opens(world, "node4", "node5")


async def test_from_one_control_node_to_three_and_back(tmp_path):
    world = await begun(tmp_path, "node1")
    for name in ("node2", "node3"):
        world.join(name)
        world.voters.append(name)
        await world.settle()
    assert {box.helper for box in vault_of(world.state).boxes} == set(THREE)
    world.voters = ["node2"]
    world.leader = "node2"
    await world.settle()
    world.restart()
    await assert_opens(world, "node2")


async def test_what_nobody_can_open_is_given_up_only_when_all_say_so(tmp_path):
    world = await begun(tmp_path)
    world.down = {"node3"}
    world.reseed("node1")
    world.reseed("node2")
    await world.settle()
    assert vault_of(world.state).epoch == 1, "node3 may still have it"
    world.restart("node3")
    world.down = set()
    await world.settle()
    assert [event.kind for event in world.state.events if event.kind.startswith("secrets.")][-1] == "secrets.lost"
    (view,) = (await world.agents["node1"].secrets.list(SecretsRequest())).secrets
    assert view.lost
    assert (await world.set("db", VALUE)).changed
    await world.settle()
    await assert_opens(world, *THREE)


async def test_who_still_has_the_key_in_memory_saves_it(tmp_path):
    world = await begun(tmp_path)
    world.reseed("node1")
    world.reseed("node2")
    await world.settle()
    assert not any(event.kind == "secrets.lost" for event in world.state.events)
    await assert_opens(world, *THREE)


async def test_nothing_is_sealed_before_enough_control_nodes_can_open_it(tmp_path):
    world = World(tmp_path, *THREE)
    await world.agents["node1"].keeper.step()
    with pytest.raises(SecretsLocked, match="node2, node3 told no key yet"):
        await world.set("db", VALUE)
    assert not world.state.secrets
    await world.settle()
    assert (await world.set("db", VALUE)).changed


async def test_below_the_level_no_key_is_told_and_nothing_is_sealed(tmp_path):
    world = World(tmp_path, *THREE, level=2)
    await world.settle()
    assert not world.state.keepers
    with pytest.raises(LevelTooLow):
        await world.set("db", VALUE)


async def test_only_control_nodes_are_helped(tmp_path):
    world = await begun(tmp_path)
    world.join("worker1", Role.WORKER)
    helper = world.agents["node2"].secrets
    for stranger in (of_node("worker1"), of_node("node9"), ANN, Identity(CLUSTER, Kind.VIEWER, "node1")):
        with pytest.raises(PermissionDenied):
            await helper.unlock(UnlockRequest(epoch=1), stranger)
    with pytest.raises(SecretsLocked):
        await helper.unlock(UnlockRequest(epoch=2), of_node("node1"))


async def test_a_worker_is_no_keeper_whatever_it_says(tmp_path):
    world = await begun(tmp_path)
    world.join("worker1", Role.WORKER)
    with pytest.raises(HyperMeshError, match="worker1 is no control node"):
        await world.agents["node1"].keeper.admit("worker1", bytes(32))


async def test_the_private_key_is_readable_by_its_owner_alone_and_a_damaged_one_is_said(tmp_path):
    world = await begun(tmp_path)
    file = tmp_path / "node2" / "secrets.key"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"short")
    world.restart("node2")
    with pytest.raises(SecretError, match="damaged"):
        _ = world.agents["node2"].holder.public


async def test_nothing_of_it_is_in_the_agents_log(tmp_path, caplog):
    caplog.set_level(0)
    world = await begun(tmp_path)
    world.restart()
    await world.settle()
    shown = caplog.text + repr(world.agents["node1"].holder.__dict__) + repr([vars(agent.keeper) for agent in world.agents.values()])
    keys = [(tmp_path / name / "secrets.key").read_bytes() for name in THREE]
    for precious in (VALUE, *keys):
        assert repr(precious)[2:-1] not in shown
        assert precious.hex() not in shown


async def test_a_leader_that_has_just_caught_up_goes_on_where_the_one_before_it_stopped(tmp_path):
    world = await begun(tmp_path)
    world.voters = ["node2", "node3"]  # node1 led, and is gone before it has turned the key
    world.down = {"node1"}
    keeper = world.agents["node2"].keeper
    keeper.state_changed()
    async with asyncio.timeout(10.0), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(keeper.run(), name="keeper")
        await turns()  # it has found nothing to do, and waits
        world.leader = "node2"
        keeper.state_changed()  # what it has applied to catch up changed nothing of all this
        await turns()
        running.cancel()
    assert set(vault_of(world.state).keepers) == {"node2", "node3"}


async def turns() -> None:
    """Of the loop: as many as a step takes, and more."""
    for _ in range(100):
        await asyncio.sleep(0)
