"""Which compose files are meant where none is named, as Docker Compose has it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from hmcore.errors import ConfigError, UsageError
from hmctl.actions.apps.deploying import chosen_files, resolve
from hmctl.compose.app import App


def chosen(*named: str, there: Collection[str] = (), **known: str) -> list[str]:
    return [str(path) for path in chosen_files(named, known, lambda path: str(path) in there)]


def test_files_that_are_named_count_alone() -> None:
    assert chosen("a", "b", there=["compose.yaml", "c"], COMPOSE_FILE="c") == ["a", "b"]


def test_of_several_usual_names_the_one_that_docker_compose_takes() -> None:
    both = [f"{name}.{end}" for name in ("docker-compose", "docker-compose.override") for end in ("yaml", "yml")]
    assert chosen(there=both) == ["docker-compose.yml", "docker-compose.override.yml"]
    assert chosen(there=[*both, "compose.yaml", "compose.yml", "compose.override.yaml", "compose.override.yml"]) == [
        "compose.yaml",
        "compose.override.yml",
    ]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"COMPOSE_FILE": "a"}, ["a"]),
        ({"COMPOSE_FILE": "b:a:-"}, ["b", "a", "-"]),
        ({"COMPOSE_FILE": "a:b", "COMPOSE_PATH_SEPARATOR": ""}, ["a", "b"]),
        ({"COMPOSE_FILE": "a,b", "COMPOSE_PATH_SEPARATOR": ","}, ["a", "b"]),
        ({"COMPOSE_FILE": "a:b", "COMPOSE_PATH_SEPARATOR": ","}, ["a:b"]),
        ({"COMPOSE_PATH_SEPARATOR": ","}, ["compose.yaml", "compose.override.yaml"]),
    ],
)
def test_files_of_the_variable(known: dict[str, str], expected: list[str]) -> None:
    assert chosen(there=["a", "b", "a:b", "compose.yaml", "compose.override.yaml"], **known) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "COMPOSE_FILE is set, and names no file"),
        ("a:", "COMPOSE_FILE is set, and one of the names in it is empty"),
        ("a:no.yaml", "no.yaml, which COMPOSE_FILE names, is not there"),
    ],
)
def test_a_variable_that_names_no_file_is_a_mistake(text: str, message: str) -> None:
    """Compose does not look for another one either."""
    with pytest.raises(UsageError) as raised:
        chosen(there=["a", "compose.yaml"], COMPOSE_FILE=text)
    assert raised.value.message == message


# --- in a folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def resolved(*named: str, env_files: Collection[str] = (), environment: Mapping[str, str] | None = None) -> App:
    return resolve(named, name=None, env_files=tuple(env_files), environment=environment or {}, profiles=(), ignore_unsupported=False)


def services(app: App) -> dict[str, str]:
    return {name: service.container.image for name, service in app.converted.spec.services.items()}


def test_the_env_file_here_says_which_files_and_goes_before_that_of_their_folder(folder: Path) -> None:
    """Seen with Docker Compose 5.6."""
    (folder / ".env").write_text("COMPOSE_FILE=sub/a.yaml,sub/b.yaml\nCOMPOSE_PATH_SEPARATOR=,\nBOTH=here\n")
    (folder / "sub" / ".env").write_text("BOTH=sub\nSUB=sees-${BOTH}\nCOMPOSE_PROFILES=p\n")
    (folder / "sub" / "a.yaml").write_text("services: {web: {image: 'x:${BOTH}'}, p: {image: '${SUB}', profiles: [p]}}")
    (folder / "sub" / "b.yaml").write_text("services: {other: {image: y}}")
    (folder / "compose.yaml").write_text("services: {wrong: {image: x}}")
    app = resolved()
    assert (app.name, services(app)) == ("sub", {"web": "x:here", "p": "sees-here", "other": "y"})
    assert (resolved("sub/a.yaml").name, services(resolved("sub/a.yaml"))) == ("sub", {"web": "x:sub", "p": "sees-sub"})
    assert services(resolved(environment={"COMPOSE_FILE": "compose.yaml", "COMPOSE_PATH_SEPARATOR": ":"})) == {"wrong": "x"}


def test_other_files_of_variables_say_it_in_its_place(folder: Path) -> None:
    (folder / ".env").write_text("COMPOSE_FILE=no.yaml\n")
    (folder / "sub" / "some.env").write_text("COMPOSE_FILE=one.yaml\nTAG=7\n")
    (folder / "one.yaml").write_text("services: {web: {image: 'x:${TAG}'}}")
    assert services(resolved(env_files=["sub/some.env"])) == {"web": "x:7"}


def test_variables_from_a_pipe_are_read_once(folder: Path) -> None:
    (folder / "one.yaml").write_text("services: {web: {image: 'x:${TAG}'}}")
    reading, writing = os.pipe()
    os.write(writing, b"COMPOSE_FILE=one.yaml\nTAG=7\n")
    os.close(writing)
    try:
        assert services(resolved(env_files=[f"/dev/fd/{reading}"])) == {"web": "x:7"}
    finally:
        os.close(reading)


def test_what_is_odd_about_variables_is_said_once(folder: Path) -> None:
    (folder / ".env").write_text(f"COMPOSE_FILE={folder}/compose.yaml\nTAG=$UNSET\n")
    (folder / "compose.yaml").write_text("services: {web: {image: x}}")
    assert [str(warning).partition(" (")[0] for warning in resolved().converted.warnings] == [
        ".env:2: TAG: the variable UNSET is not set, so it is empty"
    ]


def test_where_no_file_is_found_variables_that_cannot_be_read_are_told(folder: Path) -> None:
    with pytest.raises(UsageError, match="which file"):
        resolved()
    with pytest.raises(ConfigError) as raised:
        resolved(env_files=["none.env"])
    assert "none.env: cannot be read" in str(raised.value.problems[0])
