"""Contents of secrets and configs: their bytes as they are, what cannot be had at its line, and never shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from composing import project_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hmcore.apps.secrets import MOST_SECRET
from hmcore.errors import ConfigError
from hmctl.compose.contents import contents_of
from hmctl.compose.convert import convert

TEXT = """
services:
  web:
    image: nginx
    secrets: [file, variable]
    configs: [text]
secrets:
  file: {file: /home/me/shop/key}
  variable: {environment: TOKEN}
  unused: {file: /nowhere}
configs:
  text: {content: "a\\n$b"}
"""
PROJECT = replace(project_of(TEXT), secrets={"variable": "hunter2"})
WANTED = convert(PROJECT).contents


def found(project=PROJECT, read=lambda path: b"\0" + str(path).encode(), **more):
    return contents_of(project, WANTED, read=read, **more)


def test_bytes_as_they_are():
    assert found() == {
        ("secret", "file"): b"\0/home/me/shop/key",
        ("secret", "variable"): b"hunter2",
        ("config", "text"): b"a\n$b",
    }


def test_from_the_disk(tmp_path):
    (tmp_path / "key").write_bytes(b"\xff\n")
    project = project_of(TEXT.replace("/home/me/shop/key", str(tmp_path / "key")).replace("environment: TOKEN", f"file: {tmp_path}/key"))
    assert contents_of(project, convert(project).contents)["secret", "variable"] == b"\xff\n"


def test_everything_that_cannot_be_had_is_told_at_its_line():
    def read(path: Path) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(ConfigError) as caught:
        found(project_of(TEXT), read)
    assert [str(problem) for problem in caught.value.problems] == [
        "compose.yaml:8: secrets.file.file: /home/me/shop/key cannot be read: No such file or directory"
        " (a file of this machine, relative to the compose file)",
        "compose.yaml:9: secrets.variable.environment: the variable TOKEN is not set (export TOKEN=...)",
    ]


def test_what_is_too_large_is_not_shown():
    assert found(read=lambda _: b"x" * MOST_SECRET)
    with pytest.raises(ConfigError) as caught:
        found(read=lambda _: b"hunter2" * MOST_SECRET, most=5)
    assert [problem.line for problem in caught.value.problems] == [8, 9]
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="is larger than 500 KiB"):
        found(read=lambda _: b"x" * (MOST_SECRET + 1))


@settings(deadline=None)
@given(st.binary())
def test_a_variable_may_hold_any_bytes(value):
    text = value.decode(errors="surrogateescape")
    assert found(replace(PROJECT, secrets={"variable": text}))["secret", "variable"] == value


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=())))
@example("\ud800")
def test_any_text_has_bytes_or_is_refused(text):
    try:
        value = found(replace(PROJECT, secrets={"variable": text}))["secret", "variable"]
    except ConfigError as error:
        refused = str(error)
    else:
        assert value.decode(errors="surrogateescape").encode(errors="surrogateescape") == value
        return
    assert "holds half a character" in refused
