"""Who waits for whom, and who would wait for ever."""

from __future__ import annotations

from composing import converted, refused_file

from hmcore.apps.spec import Dependency
from hmctl.compose.parts.dependencies import cycles


def waits(text):
    rest = "  db: {image: x}\n  cache: {image: x}\n"
    return converted(f"services:\n  web: {{image: x, depends_on: {text}}}\n{rest}").spec.services["web"].depends_on


def test_forms():
    assert waits("[db, cache]") == {"db": Dependency(), "cache": Dependency()}
    assert waits("{db: {condition: service_healthy, restart: true}, cache: {condition: service_started, required: false}}") == {
        "db": Dependency(condition="healthy", restart=True),
        "cache": Dependency(required=False),
    }
    assert waits("{db: }") == {"db": Dependency()}
    assert waits("{gone: {condition: service_started, required: false}}") == {}
    assert waits("[]") == {}


def test_mistakes():
    def problems(text):
        return refused_file(f"services:\n  web:\n    image: x\n    depends_on: {text}\n  db: {{image: x}}\n")

    assert "there is no service dbb in this file" in problems("[dbb]")[0]
    assert "profiles" in problems("{gone: {condition: service_started}}")[0]
    assert "must be one of service_started" in problems("{db: {condition: healthy}}")[0]
    assert "must be a mapping" in problems("{db: 5}")[0]
    assert "must be a list" in problems("5")[0]


def test_a_cycle_is_told_once():
    (problem,) = refused_file(
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c:\n    image: x\n    depends_on: [a]\n"
        "  d: {image: x, depends_on: [a]}\n"
    )
    assert problem == "compose.yaml:2: services.a.depends_on: none of these services can be the first: a -> b -> c -> a"
    assert "a -> a" in refused_file("services: {a: {image: x, depends_on: [a]}}")[0]
    assert "a -> b -> a" in refused_file("services: {a: {image: x, links: [b]}, b: {image: x, depends_on: [a]}}")[0]


def test_many_services_in_a_row_and_no_recursion():
    chain = {str(n): {str(n + 1): Dependency()} for n in range(50_000)}
    assert cycles(chain) == []
    chain["50000"] = {"0": Dependency()}
    (cycle,) = cycles(chain)
    assert len(cycle) == 50_002


def test_a_diamond_is_no_cycle():
    assert cycles({"a": {"b": Dependency(), "c": Dependency()}, "b": {"d": Dependency()}, "c": {"d": Dependency()}, "d": {}}) == []
