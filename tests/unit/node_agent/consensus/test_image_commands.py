"""What commands about images do to the replicated state."""

from __future__ import annotations

import pytest
from committing import AUTHOR, WHEN, node, run
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hmcore.apps.records import Image, ImageLayer
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from node_agent.consensus.statemachine import levels
from node_agent.consensus.statemachine.appcommands import HoldImage, PlanApp, PutApp, PutImage, RemoveImage, StopApp
from node_agent.consensus.statemachine.commands import (
    Applied,
    Command,
    FormCluster,
    Refused,
    RemoveNode,
)
from node_agent.consensus.statemachine.effects import images
from node_agent.consensus.statemachine.effects.apps import KEPT_GENERATIONS
from node_agent.consensus.statemachine.machine import restore, snapshot
from node_agent.consensus.statemachine.state import State


def begun(*commands: Command, level: int = levels.LATEST) -> State:
    return run(State(), FormCluster(id="hm-a", bootstrap="b1", level=level), node("node1"), node("node2"), *commands)[0]


def id_of(letter: str) -> str:
    return "sha256:" + letter * 64


def image(name: str = "web:1", letter: str = "a", *holders: str, layer: str = "0") -> Image:
    made = ImageLayer(digest=id_of(layer), diff_id=id_of("0"), size=100)
    return Image(name=name, id=id_of(letter), config_size=10, layers=(made,), holders=holders)


def put(name: str = "web:1", letter: str = "a", *holders: str, layer: str = "0") -> PutImage:
    return PutImage(image=image(name, letter, *holders, layer=layer))


def app(letter: str = "a", *, expect: int | None = None) -> PutApp:
    container = ContainerSpec(image="web:1", image_id=id_of(letter))
    return PutApp(name="shop", spec=AppSpec(services={"web": ServiceSpec(container=container)}), expect=expect)


def test_a_name_means_an_image():
    state, result = run(begun(), put("web:1", "a", "node1", "stranger"))
    assert result == Applied()
    found = state.images["web:1"]
    assert (found.id, found.holders, found.author, found.unix_time, found.index) == (id_of("a"), ("node1",), AUTHOR, WHEN, 4)
    assert (found.size, found.blobs) == (110, {id_of("a"): 10, id_of("0"): 100})
    assert (state.events[-1].kind, state.events[-1].message) == ("image.named", "it is aaaaaaaaaaaa")
    again, result = run(state, put("web:1", "a", "node1"))
    assert result == Applied(changed=False)
    assert again.images == state.images
    assert len(again.events) == len(state.events)
    state, _ = run(state, put("web:1", "b"))
    assert state.images.keys() == {"web:1"}
    assert state.events[-1].message == "it is bbbbbbbbbbbb instead of aaaaaaaaaaaa"


def test_what_is_no_image_is_refused():
    state = begun()
    for wrong in (replace(image(), name=""), replace(image(), layers=())):
        after, result = run(state, PutImage(image=wrong))
        assert isinstance(result, Refused)
        assert after.images == {}


def test_there_is_an_end_to_images(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MOST_IMAGES", 2)
    state, result = run(begun(), put("a:1"), put("b:1"), put("c:1"))
    assert isinstance(result, Refused)
    assert state.images.keys() == {"a:1", "b:1"}
    assert run(state, put("b:1", "b"))[1] == Applied()


def test_two_names_of_an_image_have_the_same_holders():
    state, _ = run(begun(), put("web:1", "a", "node1"), put("web:latest", "a", "node2"))
    assert {name: each.holders for name, each in state.images.items()} == dict.fromkeys(("web:1", "web:latest"), ("node1", "node2"))
    state, result = run(state, HoldImage(image_id=id_of("a"), node="node1", holds=False))
    assert result == Applied()
    assert {each.holders for each in state.images.values()} == {("node2",)}
    assert run(state, HoldImage(image_id=id_of("a"), node="node1", holds=False))[1] == Applied(changed=False)
    state, _ = run(state, HoldImage(image_id=id_of("a"), node="node1"))
    assert {each.holders for each in state.images.values()} == {("node1", "node2")}
    assert isinstance(run(state, HoldImage(image_id=id_of("b"), node="node1"))[1], Refused)
    assert isinstance(run(state, HoldImage(image_id=id_of("a"), node="node9"))[1], Refused)


def test_an_image_that_another_tool_compressed_is_kept_as_that_everywhere():
    state, _ = run(begun(), put("web:1", "a", "node1"), put("web:2", "a", "node2", layer="1"))
    assert {each.layers[0].digest for each in state.images.values()} == {id_of("1")}
    assert {each.holders for each in state.images.values()} == {("node2",)}


def test_a_node_that_was_removed_holds_nothing():
    state, _ = run(begun(), put("web:1", "a", "node1", "node2"), RemoveNode(name="node1"))
    assert state.images["web:1"].holders == ("node2",)


def test_an_image_is_removed_by_its_name():
    state, result = run(begun(), put(), RemoveImage(name="web:1"))
    assert result == Applied()
    assert state.images == {}
    assert state.events[-1].kind == "image.removed"
    assert run(state, RemoveImage(name="web:1"))[1] == Applied(changed=False)


@pytest.mark.parametrize("end", [RemoveImage(name="web:1"), put("web:1", "b")])
def test_what_an_app_may_come_back_to_is_kept_without_a_name(end: Command):
    state, _ = run(begun(), put("web:1", "a", "node1"), app(), end)
    kept = state.images[id_of("a")]
    assert (kept.name, kept.id, kept.holders) == ("", id_of("a"), ("node1",))
    assert run(state, RemoveImage(name=id_of("a")))[1] == Applied(changed=False)
    state, _ = run(state, HoldImage(image_id=id_of("a"), node="node2"))
    assert state.images[id_of("a")].holders == ("node1", "node2")
    again, _ = run(state, put("web:3", "a"))
    assert again.images.keys() - {"web:1"} == {"web:3"}
    assert again.images["web:3"].holders == ("node1", "node2")


def test_an_image_with_another_name_needs_no_keeping():
    state, _ = run(begun(), put("web:1"), put("web:2"), app(), RemoveImage(name="web:1"))
    assert state.images.keys() == {"web:2"}


def test_what_nobody_can_come_back_to_any_more_goes():
    state, _ = run(begun(), put("web:1", "a"), app("a"), put("web:1", "b"))
    for letter in "123456789bcdef"[:KEPT_GENERATIONS]:
        assert id_of("a") in state.images
        state, _ = run(state, app(letter))
    assert state.images.keys() == {"web:1"}


def test_an_app_that_is_gone_needs_none():
    state, _ = run(begun(), put("web:1", "a"), app("a"), RemoveImage(name="web:1"), StopApp(name="shop"))
    assert state.images.keys() == {id_of("a")}
    found = state.apps["shop"]
    plan = PlanApp(app="shop", basis=found.index, rollouts={}, healthy=0, gone=True)
    state, result = run(state, plan)
    assert result == Applied()
    assert state.images == {}


def test_images_are_in_the_snapshot_and_belong_to_a_level():
    state = begun(put(), app())
    assert restore(snapshot(state)) == state
    early, result = run(begun(level=levels.TRUSTED), put())
    assert isinstance(result, Refused)
    assert b"images" not in snapshot(early)


NODES = st.sampled_from(["node1", "node2"])
COMMANDS = st.one_of(
    st.builds(put, st.sampled_from(["a:1", "b:1"]), st.sampled_from("abc"), NODES, layer=st.sampled_from("01")),
    st.builds(RemoveImage, name=st.sampled_from(["a:1", "b:1", id_of("a")])),
    st.builds(HoldImage, image_id=st.sampled_from("abc").map(id_of), node=NODES, holds=st.booleans()),
    st.builds(app, st.sampled_from("abc")),
    st.just(RemoveNode(name="node2")),
    st.just(node("node2")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(COMMANDS, max_size=25))
def test_whatever_happens_the_table_is_sound(commands: list[Command]):
    state = begun()
    for command in commands:
        before = {each.id for each in state.images.values()}
        state, _ = run(state, command)
        wanted = {made.spec.services["web"].container.image_id for made in state.generations.values()}
        assert before & wanted <= {each.id for each in state.images.values()}
        for key, each in state.images.items():
            assert key == each.key
            assert set(each.holders) <= state.nodes.keys()
            same = [other for other in state.images.values() if other.id == each.id]
            assert len({(other.layers, other.holders) for other in same}) == 1
            if not each.name:
                assert len(same) == 1
                assert each.id in wanted
    assert restore(snapshot(state)) == state
