"""Swarm's templates: which there are, what they come to, and what is none of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.spec import AppSpec, ContainerSpec, Mount, ServiceSpec, revision
from hmcore.apps.templates import KNOWN, Replica, filled, has_any, unknown

WEB = Replica("node1", "shop", "web", 2, 7, {"team": "{{.Node.ID}}", "a.b": "c"})
AGENT = Replica("node1", "shop", "agent", 0, 9)


@pytest.mark.parametrize(
    ("text", "replica", "said"),
    [
        ("{{.Node.ID}}/{{.Node.Hostname}}", WEB, "node1/node1"),
        ("{{.Service.ID}}/{{.Service.Name}}", WEB, "shop_web/shop_web"),
        ("{{.Service.Labels.team}}", WEB, "{{.Node.ID}}"),  # what is filled in is not read again
        ('{{index .Service.Labels "a.b"}}', WEB, "c"),
        ("{{.Service.Labels.none}}", WEB, ""),
        ("{{ .Task.Slot }}", WEB, "2"),
        ("{{.Task.ID}}|{{.Task.Name}}", WEB, "shop_web.2.7|shop_web.2.7"),
        ("{{.Task.Slot}} {{.Task.Name}}", AGENT, "node1 shop_agent.node1.9"),
    ],
)
def test_what_they_come_to(text: str, replica: Replica, said: str) -> None:
    assert filled(text, replica) == said
    assert not unknown(text)
    assert has_any(text)


def test_the_list_is_of_those_that_are_filled_in() -> None:
    for each in re.findall(r"\{\{.*?\}\}", KNOWN):
        assert filled(each.replace("NAME", "team"), WEB) != each


@pytest.mark.parametrize(
    "text",
    [
        "{{.Node.Platform.OS}}",
        "{{.Task.Slots}}",
        "a{{ .Service.Image }}b",
        "{{if .Node.ID}}",
        "{{printf .Task.Name}}",
        "{{.Node.ID",
        "{{-.Node.ID-}}",
    ],
)
def test_what_swarm_might_know_and_we_do_not(text: str) -> None:
    assert unknown(text)
    assert has_any(text)


@pytest.mark.parametrize(
    "text", ["{{ user }}", "{{.Name}}", "{{ .Values.Node.x }}", "{.Node.ID}", "{{}}", "Host(`{{ .Name }}`)", "{{.Service}}"]
)
def test_what_is_none_stays(text: str) -> None:
    assert not unknown(text)
    assert not has_any(text)
    assert filled(text, WEB) == text


@given(st.text("{}.NodeIDTaskSlt \n-", max_size=60))
def test_any_text_has_an_end(text: str) -> None:
    assert filled(text, WEB) == text or has_any(text)
    unknown(text)


def found(labels: dict[str, str], **more: object) -> str:
    container = ContainerSpec(image="x", **more)  # type: ignore[arg-type]
    return revision(AppSpec(services={"web": ServiceSpec(container=container, labels=labels)}), "web")


@pytest.mark.parametrize(
    "more",
    [
        {"environment": {"A": "{{.Service.Labels.team}}"}},
        {"hostname": '{{index .Service.Labels "team"}}'},
        {"mounts": (Mount(kind="bind", source="/{{.Service.Labels.team}}", target="/d"),)},
    ],
)
def test_a_container_is_made_of_the_labels_that_it_names(more: dict[str, object]) -> None:
    assert found({"team": "a"}, **more) == found({"team": "a", "other": "b"}, **more) != found({"team": "b"}, **more)


def test_and_of_no_others() -> None:
    assert found({"team": "a"}) == found({"team": "b"})
