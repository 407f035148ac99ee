"""Every key of the Compose Specification is in the table, exactly once, and what the table says of it is what happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from composing import converted, refused, refused_file, service, warnings

from hmctl.compose.parts.keys import OBJECTS

SCHEMA = json.loads((Path(__file__).parents[3] / "cases" / "conversion" / "schema-keys.json").read_text())["objects"]
LOADED = {"include", "service.env_file", "service.extends"}  # carried out before there is a Project
OWN = {"service": {"x-hypermesh", "pre_start"}}  # pre_start: in the specification's text (05-services.md), not yet in its schema


@pytest.mark.parametrize("kind", sorted(SCHEMA))
def test_the_table_has_what_the_schema_has(kind):
    if kind in OBJECTS:
        assert set(OBJECTS[kind].known) - OWN.get(kind, set()) == set(SCHEMA[kind])
        return
    if kind in LOADED:
        return
    above, _, key = kind.rpartition(".")
    while above not in OBJECTS:  # what nobody reads has no list of its own
        above, _, key = above.rpartition(".")
    assert key not in OBJECTS[above].supported, f"{kind} is read, but has no table"


def test_the_schema_has_what_the_table_has():
    assert {kind for kind in OBJECTS if not kind.startswith("service.x-")} == set(SCHEMA) & set(OBJECTS)


@pytest.mark.parametrize("kind", sorted(OBJECTS))
def test_each_key_is_in_one_place(kind):
    keys = OBJECTS[kind]
    assert len(keys.known) == len(keys.supported) + len(keys.ignored) + len(keys.unsupported)
    assert all(instead for instead in (*keys.ignored.values(), *keys.unsupported.values()))


@pytest.mark.parametrize("key", sorted(OBJECTS["service"].unsupported))
def test_what_is_not_supported_says_what_to_do_instead(key):
    (problem,) = refused(f"{key}: x")
    assert problem == f"compose.yaml:4: services.web.{key}: not supported ({OBJECTS['service'].unsupported[key]})"
    (warning,) = warnings(f"{key}: x", ignore_unsupported=True)
    assert warning.startswith(f"compose.yaml:4: services.web.{key}: not supported: it is left out")
    assert service(f"{key}: x", ignore_unsupported=True) == service("")


@pytest.mark.parametrize("key", sorted(OBJECTS["service"].ignored))
def test_what_is_ignored_is_said(key):
    (warning,) = warnings(f"{key}: {{any: [thing]}}")
    assert warning == f"compose.yaml:4: services.web.{key}: does nothing here ({OBJECTS['service'].ignored[key]})"
    assert service(f"{key}: x") == service("")


EMPTY = "services: {web: {image: nginx}}\n"


def test_at_the_top():
    assert "it is obsolete" in str(converted("version: '3.8'\n" + EMPTY).warnings[0])
    assert not converted("x-anything: [1]\nname: shop\n" + EMPTY).warnings
    assert "it belongs into a service" in str(converted("x-hypermesh: {exclusive: true}\n" + EMPTY).warnings[0])
    assert "it belongs into a service" in warnings("deploy: {x-hypermesh: {exclusive: true}}")[0]
    assert "did you mean services?" in refused_file("servces: {}\n" + EMPTY)[0]
    assert "not supported" in refused_file("models: {}\n" + EMPTY)[0]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("enviroment: {A: b}", "did you mean environment?"),
        ("port: ['80:80']", "did you mean ports?"),
        ("Image: x", "did you mean image?"),
        ("frobnicate: 1", "keys of one's own begin with x-"),
        ("deploy: {replica: 2}", "did you mean replicas?"),
        ("logging: {option: {}}", "did you mean options?"),
        ("deploy: {placement: {zzz: []}}", "there are constraints, max_replicas_per_node, preferences"),
    ],
)
def test_an_unknown_key_names_the_nearest(body, hint):
    (problem,) = refused(body)
    assert problem.startswith("compose.yaml:4: ")
    assert "unknown key" in problem
    assert hint in problem


def test_ones_own_keys_are_let_alone():
    assert not warnings("x-mine: 1\nhealthcheck: {x-mine: 2}\ndeploy: {x-mine: 3, resources: {x-y: 1}}")
