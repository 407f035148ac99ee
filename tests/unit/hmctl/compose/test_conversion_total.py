"""Whatever anybody might write: it is an app that both ends can work with, or all that is wrong with it, each at its line."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from composing import FOLDER, converted
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hmcore.apps.records import Allocation
from hmcore.apps.spec import AppSpec, revision
from hmcore.config import yaml12
from hmcore.config.problems import spell
from hmcore.errors import ConfigError
from hmctl.compose.convert import convert
from hmctl.compose.difference import changed, difference, documents, lines
from hmctl.compose.parts.keys import OBJECTS
from hmctl.compose.project import Place, Project
from node_agent.container.creation import NodeFacts, Wanted, creation
from node_agent.platform.apps import check_spec


@pytest.mark.parametrize("key", sorted(OBJECTS["service"].supported))
def test_a_number_that_python_refuses_to_print(key):
    endless = yaml12.load(f"0x{'F' * 5000}", "f").value
    for value in (
        endless,
        [endless],
        {"a": endless},
        {key: endless for key in ("test", "interval", "cpus", "source", "target", "context")},
    ):
        any_tree({"services": {"web": {"image": "x", key: value}}}, True)


KEYS = st.sampled_from(sorted({key for keys in OBJECTS.values() for key in keys.known} | {"web", "db", "x-a", "CMD"}))
SPELT = (
    "|web|db|80|80:80|1.2.3.4:80-82:80-82/udp|/a:/b:ro|data:/d|1m30s|512m|true|a=b|host|A|-|s|c|service:web|on-failure:3|node.role==worker"
    "|sha256:|\0|\ud800|${X}|bind|tmpfs|volume|0440|(|'"
)
WORDS = st.sampled_from(SPELT.split("|"))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), WORDS)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, WORDS, st.text(max_size=4)), inner, max_size=5)),
    max_leaves=12,
)


def shaped(kind):
    """Objects with the right keys, and anything under them."""
    keys = OBJECTS[kind].known
    below = {key: shaped(f"{kind}.{key}") for key in keys if f"{kind}.{key}" in OBJECTS}
    values = {key: st.one_of(TREES, below[key], st.lists(below[key], max_size=3)) if key in below else TREES for key in keys}
    return st.lists(st.sampled_from(keys), max_size=8, unique=True).flatmap(
        lambda some: st.fixed_dictionaries({key: values[key] for key in some})
    )


FILES = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["web", "db", "cache"]), shaped("service"), max_size=3)},
    optional={
        "volumes": st.dictionaries(st.sampled_from(["data", "db"]), shaped("volume")),
        "networks": st.dictionaries(st.sampled_from(["n", "db"]), shaped("network")),
        "secrets": st.dictionaries(st.sampled_from(["s", "db"]), shaped("secret")),
        "configs": st.dictionaries(st.sampled_from(["c", "db"]), shaped("config")),
        "version": TREES,
    },
)


def placed(value):
    """A line for each part of a tree, and the part at each line."""
    parts, open_parts = {(): 1}, [((), value)]
    while open_parts:
        path, part = open_parts.pop()
        inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, child in ((key, child) for key, child in inner if isinstance(key, str | int)):
            parts[(*path, key)] = len(parts) + 1
            open_parts.append(((*path, key), child))
    return {path: Place("compose.yaml", line) for path, line in parts.items()}


def any_tree(value, ignore_unsupported):
    places = placed(value)
    try:
        found = convert(Project(name="shop", value=value, folder=Path(FOLDER), places=places), ignore_unsupported=ignore_unsupported)
    except ConfigError as error:
        refused = error
    else:
        assert all(problem.warning for problem in found.warnings)
        at_their_lines(found.warnings, places)
        an_app(found)
        return
    assert refused.problems
    assert not any(problem.warning for problem in refused.problems)
    at_their_lines(refused.problems, places)
    assert str(refused)


def at_their_lines(problems, places):
    """Each at the line of what it names, or of what that is a part of."""
    named = {place.line: spell(path) for path, place in places.items()}
    for problem in problems:
        assert problem.file == "compose.yaml"
        assert problem.path.isprintable()
        assert problem.path.startswith(named[problem.line])
        assert problem.message
    assert [problem.line for problem in problems] == sorted(problem.line for problem in problems)


def an_app(found):
    """What both ends can work with: it comes to the same when it was sent, the agent takes it, and so does what makes containers of it."""
    spec = found.spec
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=AppSpec)
    assert sent == spec
    assert [revision(sent, name) for name in sent.services] == [revision(spec, name) for name in spec.services]
    check_spec("shop", sent)
    for name, service in sent.services.items():
        allocation = Allocation(id=f"shop/{name}.1.1", app="shop", service=name, slot=1, node="n", generation=1, revision="r")
        json.dumps(creation(Wanted(allocation, sent), sent, service, NodeFacts(cluster="c"), "sha256:x"), allow_nan=False)
    for changes in (difference(None, spec), difference(BEFORE, spec), difference(spec, BEFORE)):
        assert all(line.isprintable() for line in lines(changes))
        json.dumps(documents(changes), allow_nan=False)
    assert not changed(difference(spec, sent))
    repr(found)


BEFORE = converted("""
services:
  web:
    image: nginx
    command: [a]
    environment: {A: b}
    healthcheck: {test: x}
    ulimits: {nofile: 5}
    networks: {n: {aliases: [w]}}
    volumes: [data:/b, /a:/d]
    secrets: [s]
    configs: [c]
    depends_on: [db]
  db: {image: y, network_mode: host}
volumes: {data: }
networks: {n: }
secrets: {s: {external: true}}
configs: {c: {content: x}}
""").spec


@settings(deadline=None)
@given(TREES, st.booleans())
@example({"services": {1: {}, "web": {None: 1}}}, True)
def test_any_tree_is_an_app_or_a_config_error(value, ignore_unsupported):
    any_tree(value, ignore_unsupported)


@pytest.mark.long
@settings(deadline=None)
@given(FILES, st.booleans())
def test_any_file_with_the_right_keys_is_an_app_or_a_config_error(value, ignore_unsupported):
    any_tree(value, ignore_unsupported)


@pytest.mark.long
@settings(deadline=None)
@given(shaped("service"), st.booleans())
def test_any_service_is_an_app_or_a_config_error(value, ignore_unsupported):
    any_tree({"services": {"web": {**value, "image": "nginx"}, "db": {"image": "x"}}}, ignore_unsupported)


@pytest.mark.parametrize("name", ["web", "Web", "WEB_1", "a-b", "9", "a" * 63])
def test_names_of_services_as_people_choose_them(name):
    any_tree({"services": {name: {"image": "x"}}}, False)
    assert convert(Project(name="shop", value={"services": {name: {"image": "x"}}}, folder=Path(FOLDER))).spec.services.keys() == {name}


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
@pytest.mark.parametrize(
    "part",
    [
        lambda text: {"environment": {"A": text}},
        lambda text: {"environment": [f"A={text}"]},
        lambda text: {"environment": {text: "a"}},
        lambda text: {"labels": {text: "a"}},
        lambda text: {"command": ["a", text]},
        lambda text: {"entrypoint": text},
        lambda text: {"healthcheck": {"test": text}},
        lambda text: {"logging": {"options": {"a": text}}},
        lambda text: {"configs": [text]},
    ],
)
def test_what_cannot_be_sent_is_refused_where_it_stands(part, text):
    """Half a character comes from an environment that is no UTF-8."""
    value = {"services": {"web": {"image": "x", **part(text)}}}
    places = placed(value)
    with pytest.raises(ConfigError) as caught:
        convert(Project(name="shop", value=value, folder=Path(FOLDER), places=places))
    at_their_lines(caught.value.problems, places)
    assert str(caught.value).encode()
