"""What commands about secrets do to the replicated state: versions come, stay while somebody may need them, and go."""

from __future__ import annotations

import msgspec
import pytest
from committing import AUTHOR, WHEN, node, run
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.records import Allocation, allocation_id
from hmcore.apps.secrets import MOST_SECRET, Box
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec, Source
from hmcore.records import Role
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import PlanApp, PutApp, StopApp
from node_agent.consensus.statemachine.commands import (
    Applied,
    Command,
    FormCluster,
    Refused,
    RemoveNode,
)
from node_agent.consensus.statemachine.effects import secrets
from node_agent.consensus.statemachine.effects.apps import KEPT_GENERATIONS
from node_agent.consensus.statemachine.machine import snapshot
from node_agent.consensus.statemachine.secretcommands import PutKeeper, PutSecret, RemoveSecret, TurnKey
from node_agent.consensus.statemachine.state import State

KEYS = {name: name[-1:].encode() * 32 for name in ("node1", "node2", "node3")}


def turn(basis: int, *names: str, wraps: dict[str, bytes] | None = None, lost: bool = False) -> TurnKey:
    pairs = [(name, "") for name in names] if len(names) == 1 else [(a, b) for a in names for b in names if a != b]
    boxes = tuple(Box(node=name, helper=helper, sealed=b"box") for name, helper in pairs)
    return TurnKey(basis=basis, keepers={name: KEYS[name] for name in names}, boxes=boxes, wraps=wraps or {}, lost=lost)


def put(name: str = "db", digest: str = "d1", *, epoch: int = 1, sort: str = "secret", size: int = 3, **more: object) -> PutSecret:
    return msgspec.convert(
        {"type": "put-secret", "sort": sort, "name": name, "digest": digest, "size": size, "epoch": epoch}
        | {"sealed": b"sealed " + digest.encode(), "wrapped": b"wrapped"}
        | more,
        PutSecret,
    )


def begun(*commands: Command, level: int = levels.LATEST) -> State:
    keepers = [PutKeeper(node=name, public=key) for name, key in KEYS.items()]
    formed = FormCluster(id="hm-a", bootstrap="b1", level=level)
    return run(State(), formed, *map(node, KEYS), node("worker", Role.WORKER), *keepers, turn(0, *KEYS), *commands)[0]


def using(digest: str, name: str = "db", image: str = "web:1") -> AppSpec:
    web = ServiceSpec(container=ContainerSpec(image=image))
    return AppSpec(services={"web": web}, secrets={"password": Source(name=name, digest=digest)})


def test_the_value_that_was_set_last_is_current_and_none_other_is_kept():
    state, result = run(begun(), put(), put(digest="d2"))
    assert result == Applied()
    assert {key: each.current for key, each in state.secrets.items()} == {"secret:db#d2": True}
    made = state.secrets["secret:db#d2"]
    assert (made.author, made.unix_time, made.sealed) == (AUTHOR, WHEN, b"sealed d2")
    assert state.events[-1].kind == "secret.set"


def test_the_same_value_again_changes_nothing():
    state, result = run(begun(put()), put(sealed=b"another time"))
    assert (result, state.secrets["secret:db#d1"].sealed) == (Applied(changed=False), b"sealed d1")


def test_the_three_sorts_have_names_of_their_own():
    state, _ = run(begun(), put("docker.io"), put("docker.io", sort="config"), put("docker.io", sort="registry"))
    assert len(state.secrets) == 3
    assert run(state, RemoveSecret(sort="registry", name="docker.io"))[1] == Applied()


def test_a_version_stays_as_long_as_a_generation_refers_to_it():
    state, _ = run(begun(put()), PutApp(name="shop", spec=using("d1")), put(digest="d2"), PutApp(name="shop", spec=using("d2")))
    assert set(state.secrets) == {"secret:db#d1", "secret:db#d2"}, "generation 1 may be brought back"
    for number in range(KEPT_GENERATIONS):
        state, result = run(state, PutApp(name="shop", spec=using("d2", image=f"web:{number + 2}")))
        assert result == Applied(revision=number + 3)
    assert set(state.secrets) == {"secret:db#d2"}


def test_an_earlier_value_is_current_again_with_the_digest_it_had():
    state, _ = run(begun(put()), PutApp(name="shop", spec=using("d1")), put(digest="d2"), put(digest="d1"))
    assert {key: each.current for key, each in state.secrets.items()} == {"secret:db#d1": True}


def test_an_app_cannot_be_without_what_it_needs():
    state, result = run(begun(put()), PutApp(name="shop", spec=using("d9")))
    assert result == Refused("there is no secret db with the digest d9")
    assert not state.apps


def test_what_an_app_uses_is_not_removed_and_the_apps_are_named():
    state = begun(put(), PutApp(name="shop", spec=using("d1")), PutApp(name="blog", spec=using("d1")))
    assert run(state, RemoveSecret(sort="secret", name="db"))[1] == Refused("the secret db is used by blog, shop")
    assert run(state, RemoveSecret(sort="config", name="db"))[1] == Applied(changed=False)


def test_what_still_runs_is_in_use_though_its_app_has_gone_on():
    bare = AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="web:1"))})
    state = begun(put(), PutApp(name="shop", spec=using("d1")))
    replica = Allocation(id=allocation_id("shop", "web", 1, 1), app="shop", service="web", slot=1, node="node1", generation=1, revision="r")
    plan = PlanApp(app="shop", basis=state.apps["shop"].index, rollouts={}, healthy=0, starts=(replica,))
    state, _ = run(state, plan, PutApp(name="shop", spec=bare))
    assert run(state, RemoveSecret(sort="secret", name="db"))[1] == Refused("the secret db is used by shop")
    plan = PlanApp(app="shop", basis=state.apps["shop"].index, rollouts={}, healthy=2, forgets=(replica.key,))
    state, result = run(state, plan, RemoveSecret(sort="secret", name="db"))
    assert (result, dict(state.secrets)) == (Applied(), {})


def test_what_an_app_brought_along_goes_with_it_and_nothing_else():
    spec = using("d1", "shop/password")
    state = begun(put("shop/password"), put("shop"), put("shopping/x"), PutApp(name="shop", spec=spec), StopApp(name="shop"))
    plan = PlanApp(app="shop", basis=state.apps["shop"].index, rollouts={}, healthy=0, gone=True)
    state, result = run(state, plan)
    assert (result, set(state.secrets)) == (Applied(), {"secret:shop#d1", "secret:shopping/x#d1"})


@pytest.mark.parametrize("command", [put(size=MOST_SECRET + 1), put(sealed=bytes(MOST_SECRET + 300)), put(wrapped=b"")])
def test_there_is_a_limit_to_a_value(command):
    assert run(begun(), command)[1] == Refused(f"a secret holds {MOST_SECRET} bytes at most")


def test_there_is_a_limit_to_all_values(monkeypatch):
    monkeypatch.setattr(secrets, "MOST_SECRETS", 2)
    state, _ = run(begun(), put("a"), put("b"))
    assert run(state, put("c"))[1] == Refused("2 secrets and configs are kept, no more")
    assert run(state, put("b", "d2"))[1] == Applied(), "in the place of the one before"
    used, _ = run(state, PutApp(name="shop", spec=using("d1", "b")))
    assert isinstance(run(used, put("b", "d2"))[1], Refused), "both would be kept"
    monkeypatch.setattr(secrets, "MOST_SECRETS", 9)
    monkeypatch.setattr(secrets, "MOST_IN_ALL", 20)
    assert isinstance(run(state, put("c"))[1], Refused)


def test_what_was_sealed_with_a_key_of_before_is_refused():
    state, _ = run(begun(), turn(1, *KEYS))
    assert run(state, put())[1] == Refused("the secrets' key is number 2 by now, not 1")
    assert run(state, put(epoch=2))[1] == Applied()


def test_a_turn_wraps_all_secrets_or_none():
    state, _ = run(begun(), put(), put("web"))
    wraps = {"secret:db#d1": b"w1", "secret:web#d1": b"w2"}
    for wrong in ({}, {"secret:db#d1": b"w1"}, wraps | {"secret:x#d1": b"w3"}):
        assert run(state, turn(1, *KEYS, wraps=wrong))[1] == Refused("the secrets are others by now")
    state, result = run(state, turn(1, "node1", "node2", wraps=wraps))
    assert (result, {key: each.wrapped for key, each in state.secrets.items()}) == (Applied(), wraps)
    assert (state.vault["vault"].epoch, set(state.vault["vault"].keepers)) == (2, {"node1", "node2"})
    assert run(state, turn(1, *KEYS, wraps=wraps))[1] == Refused("the vault's key is number 2 by now, not 1")


def test_a_turn_is_for_the_keys_that_the_control_nodes_have_now():
    state, _ = run(begun(), PutKeeper(node="node2", public=b"n" * 32))
    assert run(state, turn(1, *KEYS))[1] == Refused("the keys of the control nodes are others by now")
    assert isinstance(run(state, turn(1))[1], Refused)
    short = msgspec.structs.replace(turn(1, "node1", "node3"), boxes=turn(1, "node1", "node3").boxes[1:])
    assert run(state, short)[1] == Refused("not a box for each pair of control nodes")


def test_what_nobody_can_open_stays_as_a_name_until_it_is_set_anew():
    state, result = run(begun(put()), turn(1, "node1", lost=True))
    assert (result, state.secrets["secret:db#d1"].wrapped, state.events[-1].kind) == (Applied(), b"", "secrets.lost")
    assert run(state, PutApp(name="shop", spec=using("d1")))[1] == Refused("the secret db is lost, and must be set anew")
    state, result = run(state, put(digest="d7", epoch=2))
    assert (result, set(state.secrets)) == (Applied(), {"secret:db#d7"})
    assert run(state, turn(2, "node1", wraps={"secret:db#d7": b"w"}))[1] == Applied()


@pytest.mark.parametrize(("name", "public"), [("worker", b"k" * 32), ("node9", b"k" * 32), ("node1", b"short")])
def test_only_control_nodes_are_keepers(name, public):
    assert isinstance(run(begun(), PutKeeper(node=name, public=public))[1], Refused)


def test_a_node_that_was_removed_keeps_nothing():
    state, _ = run(begun(), RemoveNode(name="node3"))
    assert set(state.keepers) == {"node1", "node2"}


@pytest.mark.parametrize(
    "command", [PutKeeper(node="node1", public=KEYS["node1"]), turn(0, "node1"), put(), RemoveSecret(sort="secret", name="db")]
)
def test_below_the_level_nothing_of_it_is_carried_out_or_left_behind(command):
    formed = run(State(), FormCluster(id="hm-a", bootstrap="b1", level=levels.APPS - 1), node("node1"))[0]
    state, result = run(formed, command)
    assert isinstance(result, Refused)
    assert b"secrets" not in snapshot(state)
    assert b"keepers" not in snapshot(state)


COMMANDS = st.one_of(
    st.builds(put, st.sampled_from(["db", "shop/db"]), st.sampled_from(["d1", "d2", "d3"]), epoch=st.integers(1, 3)),
    st.builds(PutApp, name=st.just("shop"), spec=st.builds(using, st.sampled_from(["d1", "d2", "d3"]), st.sampled_from(["db", "shop/db"]))),
    st.builds(RemoveSecret, sort=st.just("secret"), name=st.sampled_from(["db", "shop/db"])),
    st.builds(lambda basis, lost: (basis, lost), st.integers(0, 3), st.booleans()),
)


@given(st.lists(COMMANDS, max_size=30))
def test_what_an_app_shall_be_is_always_there_and_every_wrap_is_of_the_present_key(steps):
    state = begun()
    for step in steps:
        if isinstance(step, tuple):
            basis, lost = step
            wraps = {} if lost else {key: b"w%d" % (basis + 1) for key, each in state.secrets.items() if each.wrapped}
            step = turn(basis, *KEYS, wraps=wraps, lost=lost)
        elif isinstance(step, PutSecret):
            step = msgspec.structs.replace(step, wrapped=b"w%d" % step.epoch)
        state, _ = run(state, step)
        epoch = state.vault["vault"].epoch
        assert {each.wrapped for each in state.secrets.values()} <= {b"", b"w%d" % epoch}
        for app in state.apps.values():
            for source in state.generations[f"{app.name}@{app.generation}"].spec.secrets.values():
                assert f"secret:{source.name}#{source.digest}" in state.secrets
        current = [(each.sort, each.name) for each in state.secrets.values() if each.current]
        assert len(current) == len(set(current))
