"""Secrets as they are asked for: set by operators, read by nobody but the nodes that run what needs them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vault_world import ANN, CLUSTER, World, of_node

from hmcore.apps.records import Allocation, allocation_id
from hmcore.apps.secrets import (
    MOST_SECRET,
    Credentials,
    FetchRequest,
    PutSecretRequest,
    RemoveSecretRequest,
    SecretsRequest,
    encode_credentials,
)
from hmcore.apps.spec import AppSpec, Attachment, ContainerSpec, ServiceSpec, Source
from hmcore.errors import InvalidRequest, NotLeader, PermissionDenied, SecretError, SecretsLocked, TooLarge
from hmcore.pki import Identity, Kind
from hmcore.records import Role
from hmcore.watch import TablesRequest, WatchRequest
from node_agent.consensus.statemachine.appcommands import PlanApp, PutApp, Stop
from node_agent.consensus.statemachine.commands import encode
from node_agent.consensus.statemachine.history import History
from node_agent.platform.changes import request_id
from node_agent.platform.secrets import Secrets
from node_agent.platform.watches import Watches
from node_agent.vault.sealing import new_private, public_of, seal_value

VALUE = b"correct horse battery staple"
HERE = allocation_id("shop", "web", 1, 1)


def spec(digest: str, *, name: str = "db", image: str = "web:1") -> AppSpec:
    file = Attachment(kind="secret", source="password", target="/run/secrets/password")
    web = ServiceSpec(container=ContainerSpec(image=image, files=(file,)))
    bare = ServiceSpec(container=ContainerSpec(image="ghcr.io/o/bare:1"))
    sources = {"password": Source(name=name, digest=digest), "other": Source(name=name, digest=digest)}
    return AppSpec(services={"web": web, "bare": bare}, secrets=sources)


def place(world: World, node: str = "worker1", service: str = "web", generation: int = 1, serial: int = 1) -> str:
    id = allocation_id("shop", service, 1, serial)
    start = Allocation(id=id, app="shop", service=service, slot=1, node=node, generation=generation, revision="r")
    world.do(PlanApp(app="shop", basis=world.state.apps["shop"].index, rollouts={}, healthy=0, starts=(start,)))
    assert f"{node}/{id}" in world.state.allocations
    return id


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path, "node1", "node2", "node3")
    made.join("worker1", Role.WORKER)
    made.join("worker2", Role.WORKER)
    await made.settle()
    return made


async def deployed(world: World, value: bytes = VALUE) -> Source:
    reply = await world.set("db", value)
    world.do(PutApp(name="shop", spec=spec(reply.digest)))
    return Source(name="db", digest=reply.digest)


async def test_a_node_that_runs_a_replica_gets_what_its_service_mounts(world):
    source = await deployed(world)
    place(world)
    assert (await world.fetching("worker1").value(HERE, "secret", "password", source)).data == VALUE


async def test_nobody_else_gets_it(world):
    source = await deployed(world)
    place(world)
    place(world, "worker2", "bare", serial=2)
    bare = allocation_id("shop", "bare", 1, 2)
    for node, allocation, sort, name in (
        ("worker2", HERE, "secret", "password"),  # of another node
        ("worker2", bare, "secret", "password"),  # of another service
        ("worker1", HERE, "secret", "other"),  # not mounted
        ("worker1", HERE, "config", "password"),
        ("node2", HERE, "secret", "password"),
        ("worker1", "shop/web.2.9", "secret", "password"),
    ):
        with pytest.raises(PermissionDenied):
            await world.fetching(node).value(allocation, sort, name, source)
    public = public_of(new_private())
    for caller in (ANN, Identity(CLUSTER, Kind.VIEWER, "worker1")):
        with pytest.raises(PermissionDenied):
            await world.agents["node1"].secrets.fetch(
                FetchRequest(sort="secret", source="password", public=public, allocation=HERE), caller
            )


async def test_a_replica_that_shall_stop_gets_nothing_more(world):
    source = await deployed(world)
    place(world)
    stop = Stop(key=f"worker1/{HERE}", reason="gone")
    world.do(PlanApp(app="shop", basis=world.state.apps["shop"].index, rollouts={}, healthy=0, stops=(stop,)))
    with pytest.raises(PermissionDenied):
        await world.fetching("worker1").value(HERE, "secret", "password", source)


async def test_a_replica_keeps_the_version_that_it_was_deployed_with_and_what_comes_back_finds_its_own(world):
    old = await deployed(world)
    place(world)
    reply = await world.set("db", b"another")
    assert (reply.changed, reply.apps) == (True, ("shop",)), "which is told, for the app to be deployed again"
    assert (await world.fetching("worker1").value(HERE, "secret", "password", old)).data == VALUE
    world.do(PutApp(name="shop", spec=spec(reply.digest)))
    second = place(world, generation=2, serial=2)
    assert (await world.fetching("worker1").value(second, "secret", "password", Source(name="db", digest=reply.digest))).data == b"another"
    world.do(PutApp(name="shop", spec=spec(old.digest), origin=1))
    third = place(world, generation=3, serial=3)
    assert (await world.fetching("worker1").value(third, "secret", "password", old)).data == VALUE


async def test_what_is_answered_must_be_what_was_deployed(world):
    await deployed(world)
    place(world)
    with pytest.raises(SecretsLocked, match="another secret than was deployed"):
        await world.fetching("worker1").value(HERE, "secret", "password", Source(name="db", digest="0" * 32))


async def test_any_control_node_answers_and_none_is_missed_while_one_does(world):
    source = await deployed(world)
    place(world)
    await world.settle()
    world.down = {"node1", "node3"}
    assert (await world.fetching("worker1").value(HERE, "secret", "password", source)).data == VALUE
    world.down = {"node1", "node2", "node3"}
    with pytest.raises(SecretsLocked, match="node2: no answer"):
        await world.fetching("worker1").value(HERE, "secret", "password", source)


async def test_the_same_value_is_the_same_version_and_a_try_stores_nothing(world):
    first = await world.set("db", VALUE)
    again = await world.set("db", VALUE)
    assert (first.changed, again.changed, again.digest) == (True, False, first.digest)
    index = world.state.index
    tried = await world.set("db", b"another", dry=True)
    assert (tried.changed, world.state.index) == (True, index)
    assert tried.digest not in ("", first.digest)
    assert (await world.set("db", b"another")).digest == tried.digest
    assert (await world.set("new", VALUE, dry=True)).digest == ""


async def test_a_request_that_is_asked_again_is_carried_out_once_and_answered_with_the_digest_of_the_first(world):
    request = PutSecretRequest(id="request-x", sort="secret", name="db", value=VALUE)
    secrets = world.agents["node1"].secrets
    first = await secrets.put(request, ANN)
    assert await secrets.put(request, ANN) == first
    assert len(world.state.secrets) == 1


async def test_what_was_decided_after_all_gives_its_own_digest_to_who_asks_again(world):
    """The first attempt timed out with its entry in the log; the second is sealed before that is committed."""
    secrets, changes = world.agents["node1"].secrets, world.agents["node1"].changes
    await world.set("other", b"so that there is a vault")
    carry_out = changes.carry_out

    async def late(command, *, request, author):
        made = seal_value(await world.agents["node1"].holder.key(), "secret", "db", VALUE, None)
        first = replace(command, digest=made.digest, sealed=made.sealed, wrapped=made.wrapped)
        world.put(encode(first), request_id(request, author), author.name)
        return await carry_out(command, request=request, author=author)

    changes.carry_out = late
    reply = await secrets.put(PutSecretRequest(id="request-x", sort="secret", name="db", value=VALUE), ANN)
    assert [each.digest for each in world.state.secrets.values() if each.name == "db"] == [reply.digest]


async def test_ciphertext_is_not_told_to_who_follows_the_state(world):
    await world.set("db", VALUE)
    watches = Watches("node1", state=lambda: (world.state, History()), leader=lambda: ("node1", 1))
    told = {change.table for change in (await watches.tables(TablesRequest())).records}
    assert "keepers" in told
    assert not told & {"secrets", "vault"}
    for table in ("secrets", "vault"):
        with pytest.raises(InvalidRequest, match="there is no table"):
            await watches.tables(TablesRequest(tables=(table,)))
        with pytest.raises(InvalidRequest, match="there is no table"):
            await watches.watch(WatchRequest(tables=(table,)))


async def test_lists_tell_names_and_digests_and_who_uses_them(world):
    source = await deployed(world)
    await world.set("docker.io", encode_credentials(Credentials("u", "p")), "registry", note="u")
    reply = await world.agents["node2"].secrets.list(SecretsRequest(consistent=True))
    assert [(each.sort, each.name, each.apps, each.note) for each in reply.secrets] == [
        ("registry", "docker.io", (), "u"),
        ("secret", "db", ("shop",), ""),
    ]
    assert (reply.secrets[1].digest, reply.secrets[1].size, reply.secrets[1].author) == (source.digest, len(VALUE), "ann")
    assert (reply.epoch, reply.keepers) == (1, ("node1", "node2", "node3"))


async def test_what_is_used_is_not_removed(world):
    await deployed(world)
    secrets = world.agents["node1"].secrets
    with pytest.raises(InvalidRequest, match="the secret db is used by shop"):
        await secrets.remove(RemoveSecretRequest(id="request-y", sort="secret", name="db"), ANN)
    await world.set("free", VALUE)
    assert (await secrets.remove(RemoveSecretRequest(id="request-z", sort="secret", name="free"), ANN)).changed


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/..", "a/b/c", "a" * 65, "ä", "a#b", "a:b"])
async def test_what_is_no_name_is_refused(world, name):
    with pytest.raises(InvalidRequest, match="is no name of a secret"):
        await world.set(name, VALUE)


async def test_what_is_too_large_is_refused(world):
    assert (await world.set("large", bytes(MOST_SECRET))).changed
    with pytest.raises(TooLarge):
        await world.set("larger", bytes(MOST_SECRET + 1))


async def test_only_the_leader_seals_and_a_worker_opens_nothing(world):
    request = PutSecretRequest(id="request-w", sort="secret", name="db", value=VALUE)
    with pytest.raises(NotLeader) as refused:
        await world.agents["node2"].secrets.put(request, ANN)
    assert refused.value.leader == "node1"
    worker = Secrets(
        "worker1",
        world.agents["node2"].changes,
        holder=None,
        keeper=None,
        state=lambda: None,
        leader=lambda: "node1",
        barrier=world.barrier,
    )
    with pytest.raises(NotLeader):
        await worker.list(SecretsRequest())
    with pytest.raises(NotLeader):
        await worker.fetch(FetchRequest(sort="secret", source="db", public=bytes(32)), of_node("worker1"))


async def test_credentials_go_to_nodes_that_run_something_of_the_registry(world):
    kept = Credentials("robot", "hunter22")
    await deployed(world)
    await world.set("ghcr.io", encode_credentials(kept), "registry")
    place(world, "worker1", "bare")
    assert await world.fetching("worker1").credentials("ghcr.io") == kept
    assert await world.fetching("worker1").credentials("docker.io") is None
    with pytest.raises(PermissionDenied):
        await world.fetching("worker2").credentials("ghcr.io")
    place(world, "worker2", serial=2)
    assert await world.fetching("worker2").credentials("docker.io") is None
    await world.set("docker.io", b"[]", "registry")
    with pytest.raises(SecretsLocked, match="no credentials"):
        await world.fetching("worker2").credentials("docker.io")


async def test_control_nodes_ask_registries_what_names_mean_before_anything_runs(world):
    kept = Credentials("robot", "hunter22")
    await world.set("ghcr.io", encode_credentials(kept), "registry")
    await world.settle()
    assert await world.fetching("node3").credentials("ghcr.io") == kept
    assert await world.fetching("node3").credentials("docker.io") is None
    world.join("node9")  # no voter, whatever it says of its role
    await world.settle()
    for stranger in ("worker1", "node9"):
        with pytest.raises(PermissionDenied):
            await world.fetching(stranger).credentials("ghcr.io")


async def test_a_key_that_is_none_gets_an_error(world):
    await deployed(world)
    place(world)
    request = FetchRequest(sort="secret", source="password", public=bytes(32), allocation=HERE)
    with pytest.raises(SecretError):
        await world.agents["node1"].secrets.fetch(request, of_node("worker1"))


def test_values_do_not_show():
    shown = repr(PutSecretRequest(id="request-1", sort="secret", name="db", value=VALUE)) + repr(Credentials("robot", "hunter22"))
    assert "horse" not in shown
    assert "hunter22" not in shown
    assert "28 hidden bytes" in shown
