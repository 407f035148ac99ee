"""Docker's answers over its socket, good and bad: each is a value or an error of ours, and no connection is left."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from app_streams import PATIENCE, until
from hypothesis import given
from hypothesis import strategies as st
from streaming_docker import streaming_docker

from hmcore.errors import ContainerRefused, FrameError, LayerDown, NoSpace, PartGone
from node_agent.container.dockerapi import MOST_HEAD, DockerApi, Head, parse_head
from node_agent.container.signals import State, state_of


async def test_an_answer_is_its_json(tmp_path: Path) -> None:
    async with streaming_docker(tmp_path, api="1.51") as docker:
        docker.add("c1", tty=True)
        api = DockerApi(docker.path, PATIENCE)
        assert await api.ask("GET", "/containers/c1/json") == {"Id": "c1", "Config": {"Tty": True}}
        assert await api.version() == (1, 51)
        await until(lambda: docker.open == 0)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [(404, "No such container: c9", PartGone), (409, "it is paused", ContainerRefused), (500, "no space left on device", NoSpace)],
)
async def test_a_refusal_keeps_dockers_words(tmp_path: Path, status: int, words: str, kind: type[ContainerRefused]) -> None:
    async with streaming_docker(tmp_path) as docker:
        docker.refusals[".*json|.*logs"] = (status, words)
        api = DockerApi(docker.path, PATIENCE)
        with pytest.raises(kind, match=words):
            await api.ask("GET", "/containers/c9/json")
        with pytest.raises(kind, match=words):
            await api.open("GET", "/containers/c9/logs")
        await until(lambda: docker.open == 0)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "it ended within its head"),
        (b"HTTP/1.0 200 OK\r\n", "it ended within its head"),
        (b"\x16\x03\x01 hello\r\n\r\n", "no answer of HTTP"),
        (b"x" * (2 * MOST_HEAD + 200_000), "a head of over"),
        (b"HTTP/1.0 200 OK\r\n\r\nOK", "does not say which API it speaks"),
        (b"HTTP/1.0 200 OK\r\nApi-Version: ../../etc\r\n\r\nOK", "does not say which API it speaks"),
        (b"HTTP/1.0 500 Oh\r\nApi-Version: 1.41\r\n\r\n", "does not say which API it speaks"),
    ],
)
async def test_what_is_no_answer_is_said(tmp_path: Path, raw: bytes, words: str) -> None:
    async with streaming_docker(tmp_path, raw=raw) as docker:
        api = DockerApi(docker.path, PATIENCE)
        with pytest.raises(LayerDown, match=words):
            await api.ask("GET", "/containers/c1/json")
        await until(lambda: docker.open == 0)


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"a": NaN' + b"\xff"])
async def test_json_that_is_none_is_said(tmp_path: Path, body: bytes) -> None:
    raw = b"HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\r\n" + body
    async with streaming_docker(tmp_path, raw=raw) as docker:
        with pytest.raises(LayerDown, match="answer on"):
            await DockerApi(docker.path, PATIENCE).ask("GET", "/containers/c1/json")


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(LayerDown, match="does not answer on"):
        await DockerApi(tmp_path / "none.sock", PATIENCE).version()


async def test_silence_is_bounded(tmp_path: Path) -> None:
    async with streaming_docker(tmp_path) as docker:
        docker.hold.clear()
        with pytest.raises(LayerDown, match=r"within 0\.05 s"):
            await DockerApi(docker.path, 0.05).ask("GET", "/containers/c1/json")
        docker.hold.set()
        await until(lambda: docker.open == 0)


def test_heads() -> None:
    said = parse_head(b"HTTP/1.1 200 OK\r\nContent-Type: a; b\r\ncontent-length:  12 \r\nno header\r\n: empty")
    assert said == Head(200, {"content-type": "a; b", "content-length": "12", "": "empty"})
    assert said.length == 12
    assert parse_head(b"HTTP/1.0 404").length is None


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: b"HTTP/1.0 200 \r\n" + data))
def test_any_bytes_are_a_head_or_an_error(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        head = parse_head(data)
        assert 0 <= head.status <= 999
        assert head.length is None or head.length >= 0


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))


@given(values | st.dictionaries(st.sampled_from(["Running", "ExitCode", "Pid", "x"]), values))
def test_any_answer_about_a_command_is_a_state(answer: object) -> None:
    state = state_of(answer)
    assert 0 <= state.status <= 255
    assert state.process == 0 or state.process > 1


def test_states() -> None:
    assert state_of({"Running": True, "ExitCode": None, "Pid": 4711}) == State(True, 255, 4711)
    assert state_of({"Running": False, "ExitCode": 3, "Pid": 0}) == State(False, 3, 0)
    assert state_of({"Running": True, "Pid": 1}).process == 0  # never the first of all
