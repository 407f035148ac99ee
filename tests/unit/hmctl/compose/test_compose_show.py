"""The resolved file: reads again as what it came from, whatever that was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from compose_cases import FOLDER as CASES
from compose_cases import cases
from compose_cases import project_of as loaded
from composing import FOLDER, project_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hmcore.config import yaml12
from hmctl.compose.convert import convert
from hmctl.compose.load import load
from hmctl.compose.project import Project
from hmctl.compose.show import as_file, resolved

TEXT = """
x-mine: {a: 1}
services:
  web:
    image: nginx
    command: ["echo", "a $HOME b"]
    environment: {PRICE: "$5", NO: "no", OCTAL: "0o17", TIME: "22:22", EMPTY: ""}
    ports: ["8080:80"]
networks: {}
volumes: {data: {}}
"""


def test_one_file_with_its_name_first():
    assert (
        as_file(project_of(TEXT))
        == """\
name: shop
x-mine:
  a: 1
services:
  web:
    image: nginx
    command:
      - echo
      - a $$HOME b
    environment:
      PRICE: $$5
      'NO': 'no'
      OCTAL: '0o17'
      TIME: '22:22'
      EMPTY: ''
    ports:
      - 8080:80
volumes:
  data: {}
"""
    )


def test_several_lines_look_like_it():
    value = {"configs": {"c": {"content": "a {\n  b $c;\n}\n"}}}
    assert (
        as_file(Project(name="shop", value=value, folder=Path(FOLDER)))
        == """\
name: shop
configs:
  c:
    content: |
      a {
        b $$c;
      }
"""
    )


def test_data_is_as_it_is():
    shown = resolved(project_of(TEXT))
    assert list(shown) == ["name", "x-mine", "services", "volumes"]
    assert shown["services"]["web"]["environment"]["PRICE"] == "$5"


def test_it_is_the_same_app():
    project = project_of(TEXT)
    assert convert(read_again(project)).spec == convert(project).spec


def test_what_comes_from_a_variable_is_not_in_it():
    value = {"services": {"web": {"image": "x"}}, "secrets": {"s": {"environment": "TOKEN"}}}
    assert resolved(Project(name="shop", value=value, folder=Path(FOLDER)))["secrets"] == {"s": {"environment": "TOKEN"}}


@pytest.mark.parametrize("case", cases(CASES), ids=lambda case: case.name)
def test_files_that_people_have_read_again_as_what_they_came_to(case, tmp_path):
    project = loaded(case)
    (tmp_path / "one.yaml").write_text(as_file(project))
    again = load([tmp_path / "one.yaml"], name=None, env_files=[], environment={}, profiles=["*"])
    assert resolved(again) == resolved(project)
    assert as_file(again) == as_file(project)


def read_again(project):
    def undoubled(value):
        match value:
            case dict():
                return {key: undoubled(part) for key, part in value.items()}
            case list():
                return [undoubled(part) for part in value]
            case str():
                assert "$" not in value.replace("$$", "")
                return value.replace("$$", "$")
            case _:
                return value

    return replace(project, value=undoubled(yaml12.load(as_file(project), "compose.yaml").value))


WORDS = st.sampled_from(["${A}", "$$", "1e3", "~", "\ud800", "\x1b[2J"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), WORDS)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4))


@pytest.mark.long
@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=9), TREES, max_size=4))
@example({"a": ["\x85", "\u2028", "a\n", " ", "\t", "#", "a: b"]})
def test_any_file_reads_again_as_it_was(value):
    project = Project(name="shop", value=value, folder=Path(FOLDER))
    assert read_again(project).value == resolved(project)


@pytest.mark.long
@settings(deadline=None)
@given(st.one_of(TREES, st.dictionaries(st.one_of(st.text(), st.integers()), TREES)))
@example({"services": {"web": {"ports": [int("F" * 5000, 16)]}}})
@example([1])
@example({"x-a": {int("F" * 5000, 16): 1, None: 2, True: 3}})
def test_any_project_can_be_shown(value):
    project = Project(name="\x1b", value=value, folder=Path(FOLDER))
    as_file(project).encode()
    msgspec.json.encode(resolved(project))
    assert "\x1b" not in as_file(project)
