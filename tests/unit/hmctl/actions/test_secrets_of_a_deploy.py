"""What an app brings along is in the cluster before its deploy, and its digests are in the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vault_world import World

from hmcore.apps.secrets import LIST_SECRETS
from hmcore.apps.spec import AppSpec, Attachment, ContainerSpec, ServiceSpec, Source, revision
from hmcore.errors import UsageError
from hmctl.actions.secrets import settle
from node_agent.consensus.statemachine.appcommands import PutApp


def spec(*, external: bool = False) -> AppSpec:
    files = (Attachment(kind="secret", source="db", target="/run/secrets/db"), Attachment(kind="config", source="conf", target="/conf"))
    secrets = {"db": Source(name="shop/db"), **({"tls": Source(name="tls-key")} if external else {})}
    web = ServiceSpec(container=ContainerSpec(image="web:1", files=files))
    return AppSpec(services={"web": web}, secrets=secrets, configs={"conf": Source(name="shop/conf")})


class Calls:
    """Straight to the leader."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def put(self, sort: Any, name: str, value: bytes, *, note: str = "", dry: bool = False) -> Any:
        return await self.world.set(name, value, sort, note=note, dry=dry)

    async def list(self) -> Any:
        return await self.world.agents["node2"].secrets.list(LIST_SECRETS.request())


CONTENTS: dict[Any, bytes] = {("secret", "db"): b"one", ("config", "conf"): b"listen 80;"}


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path, "node1", "node2", "node3")
    await made.settle()
    return made


async def test_a_deploy_gives_what_the_app_brings_along_and_another_content_makes_new_containers(world: World) -> None:
    first = await settle(Calls(world), spec(), CONTENTS, dry=False)
    assert {each.key.partition("#")[0] for each in world.state.secrets.values()} == {"secret:shop/db", "config:shop/conf"}
    world.do(PutApp(name="shop", spec=first))
    assert await settle(Calls(world), spec(), CONTENTS, dry=False) == first
    other = await settle(Calls(world), spec(), {**CONTENTS, ("config", "conf"): b"listen 81;"}, dry=False)
    assert revision(other, "web") != revision(first, "web")
    assert other.secrets == first.secrets


async def test_a_plan_gives_nothing_away_and_says_the_same(world: World) -> None:
    index = world.state.index
    empty = await settle(Calls(world), spec(), CONTENTS, dry=True)
    assert (world.state.index, empty.secrets["db"].digest) == (index, "")
    await settle(Calls(world), spec(), CONTENTS, dry=False)
    other: dict[Any, bytes] = {**CONTENTS, ("secret", "db"): b"two"}
    index = world.state.index
    planned = await settle(Calls(world), spec(), other, dry=True)
    assert world.state.index == index
    assert await settle(Calls(world), spec(), other, dry=False) == planned


async def test_what_is_external_must_be_there_before_anything_is_given(world: World) -> None:
    with pytest.raises(UsageError, match="the cluster does not have the secret tls-key") as refused:
        await settle(Calls(world), spec(external=True), CONTENTS, dry=False)
    assert refused.value.fix == "hmctl secret set tls-key"
    assert not world.state.secrets
    reply = await world.set("tls-key", b"key")
    settled = await settle(Calls(world), spec(external=True), CONTENTS, dry=False)
    assert settled.secrets["tls"] == Source(name="tls-key", digest=reply.digest)


async def test_an_app_without_secrets_asks_nobody() -> None:
    bare = AppSpec(services=spec().services)
    assert await settle(None, bare, {}, dry=False) == bare  # type: ignore[arg-type]
