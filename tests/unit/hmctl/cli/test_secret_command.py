"""hmctl secret, as typed: values go in, names and sizes come out."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from answering import Cluster, Door, as_its_client_hears
from vault_world import ANN, World

from hmcore import api
from hmcore.apps.secrets import (
    LIST_SECRETS,
    MOST_SECRET,
    PUT_SECRET,
    REMOVE_SECRET,
    Credentials,
    decode_credentials,
)
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec, Source
from hmcore.config.inventory import Host
from hmcore.errors import PeerUnreachable, TooLarge
from hmctl import client
from hmctl.actions import agents, change
from hmctl.actions.secrets import SecretCalls
from hmctl.cli import main
from hmctl.client import Access
from node_agent.consensus.statemachine.appcommands import PutApp
from node_agent.consensus.statemachine.machine import snapshot
from node_agent.vault.sealing import new_private, pass_on, public_of, take_value, unwrap

PRECIOUS = "correct horse battery staple"


class Doors:
    """The agents' calls, as operators reach them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[str, str]] = []

    async def connect(self, host: Host, access: Any, **options: Any) -> Door:
        if host.name in self.world.down:
            raise PeerUnreachable("no answer within 2 s", host=host.name)
        return Door(host.name, self.told, self.answer)

    def told(self) -> api.StateReply:
        return api.StateReply(index=self.world.state.index, leader=self.world.leader, term=1, nodes=[])

    async def answer(self, name: str, method: api.Method[Any, Any], request: Any) -> Any:
        self.asked.append((name, method.name))
        secrets = self.world.up(name).secrets
        with as_its_client_hears(name):
            match method:
                case _ if method is PUT_SECRET:
                    return await secrets.put(request, ANN)
                case _ if method is REMOVE_SECRET:
                    return await secrets.remove(request, ANN)
                case _ if method is LIST_SECRETS:
                    return await secrets.list(request)
        raise AssertionError(method)


@pytest.fixture
def doors(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doors:
    world = World(tmp_path / "nodes", "node1", "node2", "node3")
    asyncio.run(world.settle())
    made = Doors(world)
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(change, "connect", made.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via=None: Access(store.cluster, store.known_hosts))
    return made


def value_of(world: World, key: str) -> bytes:
    """As the nodes that may would get it."""
    found = next(each for name, each in world.state.secrets.items() if name.startswith(key))

    async def taken() -> bytes:
        inner = unwrap(await world.agents["node2"].holder.key(), found)
        private = new_private()
        box = pass_on(inner, public_of(private), "node9", found.key)
        return take_value(box, found.sealed, private, "node9", found.sort, found.name, found.digest).data

    return asyncio.run(taken())


def using(digest: str) -> AppSpec:
    web = ServiceSpec(container=ContainerSpec(image="i"))
    return AppSpec(services={"web": web}, secrets={"p": Source(name="db", digest=digest)})


def typed(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(value)))


@pytest.mark.parametrize("value", [b"plain", b"two\nlines\n", bytes(range(256)), b"x" * MOST_SECRET])
def test_a_value_is_kept_byte_for_byte_and_never_shown(
    value: bytes, doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "value").write_bytes(value)
    assert main.run(["secret", "set", "a", str(tmp_path / "value")]) == 0
    typed(monkeypatch, value)
    assert main.run(["secret", "set", "b", "--config"]) == 0
    typed(monkeypatch, value)
    assert main.run(["secret", "set", "shop/c", "-", "-o", "json", "-v"]) == 0
    assert main.run(["secret", "ls"]) == 0
    for key in ("secret:a", "config:b", "secret:shop/c"):
        assert value_of(doors.world, key) == value
    said = capfd.readouterr()
    assert "plain" not in said.out + said.err
    assert value not in snapshot(doors.world.state)


def test_a_newline_that_a_pipe_brings_is_kept_and_said(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, b"hunter2\n")
    assert main.run(["secret", "set", "a"]) == 0
    assert "the newline at the value's end is kept" in capsys.readouterr().err
    assert value_of(doors.world, "secret:a") == b"hunter2\n"
    for value in (b"hunter2", b"a file\nof lines\n"):
        typed(monkeypatch, value)
        assert main.run(["secret", "set", "a"]) == 0
        assert capsys.readouterr().err == ""
    (tmp_path / "value").write_bytes(b"hunter2\n")
    assert main.run(["secret", "set", "a", str(tmp_path / "value")]) == 0
    assert capsys.readouterr().err == "", "the file is as it is meant"


def test_what_was_set_is_told(doors: Doors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed(monkeypatch, b"one")
    assert main.run(["secret", "set", "db", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["name"], told["changed"], told["apps"]) == ("secret", "db", True, [])
    used = AppSpec(
        services={"web": ServiceSpec(container=ContainerSpec(image="i"))}, secrets={"p": Source(name="db", digest=told["digest"])}
    )
    doors.world.do(PutApp(name="shop", spec=used))
    typed(monkeypatch, b"one")
    assert main.run(["secret", "set", "db"]) == 0
    assert capsys.readouterr().out == "secret db has that value already\n"
    typed(monkeypatch, b"two")
    assert main.run(["secret", "set", "db"]) == 0
    said = capsys.readouterr()
    assert said.out == "secret db is set\n"
    assert said.err == "shop still uses another value: hmctl app deploy brings this one\n"


def test_the_list_names_what_is_kept_and_who_uses_it(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["secret", "ls"]) == 0
    assert capsys.readouterr().err == "there are no secrets yet\n"
    for words in (["db"], ["shop/db"], ["conf", "--config"]):
        typed(monkeypatch, b"one")
        assert main.run(["secret", "set", *words]) == 0
    capsys.readouterr()
    doors.world.down = {"node1"}
    assert main.run(["secret", "ls", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["kind"], each["name"], each["size"], each["set_by"], each["lost"]) for each in told["secrets"]] == [
        ("config", "conf", 3, "ann", False),
        ("secret", "db", 3, "ann", False),
        ("secret", "shop/db", 3, "ann", False),
    ]
    assert told["keepers"] == ["node1", "node2", "node3"]
    assert main.run(["secret", "ls", "shop"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["NAME", "shop/db"]


def test_what_is_used_is_not_removed_and_the_rest_only_when_asked(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, b"one")
    assert main.run(["secret", "set", "db", "-o", "json"]) == 0
    digest = json.loads(capsys.readouterr().out)["digest"]
    typed(monkeypatch, b"one")
    assert main.run(["secret", "rm", "db"]) == 2, "nobody can answer"
    capsys.readouterr()
    assert main.run(["secret", "rm", "nonesuch"]) == 0, "there is nothing to ask"
    assert capsys.readouterr().out == "secret nonesuch was not there\n"
    typed(monkeypatch, b"one")
    assert main.run(["secret", "set", "shop/nonesuch"]) == 0
    capsys.readouterr()
    assert main.run(["secret", "rm", "nonesuch"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("secret nonesuch was not there\n", "an app's own is called APP/NAME: there is shop/nonesuch\n")
    assert main.run(["secret", "rm", "shop/nonesuch", "-y"]) == 0
    used = using(digest)
    doors.world.do(PutApp(name="shop", spec=used))
    capsys.readouterr()
    assert main.run(["secret", "rm", "db", "-y"]) == 1
    used_by_shop = "error: the secret db is used by shop\n  fix: deploy shop without it, or remove that: hmctl app rm shop\n"
    assert capsys.readouterr().err == used_by_shop
    assert main.run(["secret", "rm", "db"]) == 1, "nothing to ask either"
    assert capsys.readouterr().err == used_by_shop
    assert main.run(["secret", "rm", "other", "-y"]) == 0
    assert capsys.readouterr().out == "secret other was not there\n"
    assert main.run(["secret", "rm", "db", "--config", "-y"]) == 0
    assert "there is a secret of that name: hmctl secret rm db" in capsys.readouterr().err
    doors.world.do(PutApp(name="shop", spec=AppSpec(services=used.services)))
    assert main.run(["secret", "rm", "db", "-y", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"]
    assert not doors.world.state.secrets


@pytest.mark.parametrize("host", ["ghcr.io", "https://ghcr.io/v2/", "GHCR.io"])
def test_credentials_are_kept_by_their_registry(host: str, doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, b"hunter22\n")
    assert main.run(["secret", "set", "--registry", host, "--username", "robot"]) == 0
    (kept,) = doors.world.state.secrets.values()
    assert (kept.sort, kept.name, kept.note) == ("registry", "ghcr.io", "robot")
    assert decode_credentials(value_of(doors.world, "registry:ghcr.io")) == Credentials("robot", "hunter22")
    assert main.run(["secret", "rm", "--registry", host, "-y"]) == 0
    assert not doors.world.state.secrets


def test_the_password_may_come_from_a_file(doors: Doors, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"hunter22")
    assert main.run(["secret", "set", str(tmp_path / "token"), "--registry", "docker.io", "-u", "robot"]) == 0
    assert decode_credentials(value_of(doors.world, "registry:docker.io")).password == "hunter22"


@pytest.mark.parametrize(
    "words",
    [
        ["set"],
        ["set", "a b"],
        ["set", "../a"],
        ["set", "a", "/no/such/file"],
        ["set", "a", "--username", "u"],
        ["set", "--registry", "ghcr.io"],
        ["set", "a", "b", "--registry", "ghcr.io", "--username", "u"],
        ["set", "--registry", "not a host", "--username", "u"],
        ["set", "--registry", "ghcr.io", "--username", "u", "--config"],
        ["rm"],
        ["rm", "a/b/c", "-y"],
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, b"value")
    assert main.run(["secret", *words]) == 2
    assert not doors.asked


def test_a_value_has_a_limit_and_is_not_sent_if_it_is_larger(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, b"x" * (MOST_SECRET + 1))
    assert main.run(["secret", "set", "a"]) == 2
    assert capsys.readouterr().err.startswith("error: the value is too large: 500 KiB (512000 bytes) is the limit\n")
    typed(monkeypatch, b"")
    assert main.run(["secret", "set", "a"]) == 2
    assert not doors.asked


def test_a_password_that_is_no_text_is_refused_without_a_word_of_it(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, b"hunter\xff22")
    assert main.run(["secret", "set", "--registry", "ghcr.io", "-u", "robot"]) == 2
    assert "hunter" not in capsys.readouterr().err


async def test_a_value_that_is_too_large_is_not_sent(doors: Doors) -> None:
    calls = SecretCalls(None, None)  # type: ignore[arg-type]
    with pytest.raises(TooLarge, match="the config shop/conf is too large: 500 KiB"):
        await calls.put("config", "shop/conf", bytes(MOST_SECRET + 1))
    assert not doors.asked
