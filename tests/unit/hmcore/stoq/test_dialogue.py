"""Typed streams over real UDP: who may open one, what passes, how one ends, and that nobody's memory is another's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stoq_world import PATIENCE, World, dialled, identity, listening, local, until

from hmcore.api import PING, PingReply
from hmcore.errors import (
    CallRefused,
    ConnectionLost,
    FrameError,
    InternalFault,
    InvalidRequest,
    LayerDown,
    NotLeader,
    PermissionDenied,
)
from hmcore.pki import Kind
from hmcore.stoq import dialogue
from hmcore.stoq.connection import Connection
from hmcore.stoq.dialogue import Answering, Dialogue, Dialogues, open_talk
from hmcore.stoq.frames import Fault
from hmcore.stoq.greeting import Peer
from hmcore.stoq.rpc import Router
from hmcore.stoq.window import WINDOW


class Ask(msgspec.Struct, frozen=True):
    what: str


class More(msgspec.Struct, frozen=True, array_like=True, tag="more"):
    data: bytes


class Word(msgspec.Struct, frozen=True, array_like=True, tag="word"):
    data: bytes


class Last(msgspec.Struct, frozen=True, array_like=True, tag="last"):
    sum: int


TALK: Dialogue[Ask, More, Word | Last] = Dialogue(
    "test.talk", msgspec.msgpack.Decoder(Ask), msgspec.msgpack.Decoder(More), msgspec.msgpack.Decoder(Fault | Word | Last)
)


class Host:
    """Answers TALK, for operators; remembers how handlers ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.denied: list[str] = []
        self.observed: list[tuple[str, str]] = []
        self.sent = 0
        self.dialogues = Dialogues(
            {TALK: ({Kind.OPERATOR}, self.answer)},
            denied=lambda peer, name: self.denied.append(f"{peer.identity} {name}"),
            observe=lambda name, outcome, seconds: self.observed.append((name, outcome)),
        )

    async def answer(self, peer: Peer, request: Ask, talk: Answering[More, Word | Last]) -> None:
        try:
            await self._answer(request, talk)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("well")

    async def _answer(self, request: Ask, talk: Answering[More, Word | Last]) -> None:
        match request.what:
            case "echo":
                total = 0
                while (said := await talk.receive()) is not None:
                    total += len(said.data)
                    await talk.send(Word(said.data))
                await talk.send(Last(total))
            case "flood":
                while True:
                    await talk.send(Word(bytes(65_536)))
                    self.sent += 65_536
            case "much":
                for _ in range(200):
                    await talk.send(Word(bytes(65_536)))
                await talk.send(Last(200))
            case "leader":
                await talk.send(Word(b"first"))
                raise NotLeader("ask n3", leader="n3")
            case "down":
                raise LayerDown("Docker does not answer", fix="look")
            case "bug":
                raise ValueError("s3cret")
            case "wait":
                await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def opened(world: World, host: Host, kind: Kind = Kind.OPERATOR) -> AsyncIterator[Connection]:
    router = Router({}, streams=host.dialogues)
    async with (
        listening(world.credentials("n1"), router) as listener,  # type: ignore[arg-type]
        dialled(listener.port, world.credentials("ann", kind), local("ann", kind)) as connection,
    ):
        yield connection


async def test_both_ends_speak_until_all_is_said(world: World) -> None:
    host = Host()
    async with opened(world, host) as connection, await open_talk(connection, TALK, Ask("echo"), timeout=PATIENCE) as talk:
        await talk.send(More(b"a"))
        assert await talk.receive() == Word(b"a")
        await talk.send(More(b"bc"))
        assert await talk.receive() == Word(b"bc")
        talk.close()
        assert await talk.receive() == Last(3)
        assert await talk.receive() is None
        await until(lambda: connection.open_streams == 0)
    assert host.observed == [("test.talk", "")]


@pytest.mark.long
async def test_what_was_said_last_arrives_though_the_opener_never_ended_its_half(world: World) -> None:
    """13 MB, more than three windows, to a reader that takes its time."""
    async with opened(world, Host()) as connection, await open_talk(connection, TALK, Ask("much"), timeout=PATIENCE) as talk:
        got = [await talk.receive() for _ in range(201)]
        assert got[-1] == Last(200)
        assert await talk.receive() is None


async def test_who_may_not_open_it_is_denied(world: World) -> None:
    host = Host()
    async with (
        opened(world, host, Kind.VIEWER) as connection,
        await open_talk(connection, TALK, Ask("echo"), timeout=PATIENCE) as talk,
    ):
        with pytest.raises(PermissionDenied, match=r"viewer ann may not open test\.talk"):
            await talk.receive()
    assert host.denied == ["viewer ann test.talk"]
    assert host.ended == []


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ("leader", NotLeader, "ask n3"),
        ("down", InternalFault, "Docker does not answer"),
        ("bug", InternalFault, "unexpected ValueError"),
    ],
)
async def test_a_failure_is_the_last_word(world: World, asked: str, kind: type[CallRefused], words: str) -> None:
    async with opened(world, Host()) as connection, await open_talk(connection, TALK, Ask(asked), timeout=PATIENCE) as talk:
        if asked == "leader":
            assert await talk.receive() == Word(b"first")
        with pytest.raises(kind, match=words) as refused:
            await talk.receive()
        assert refused.value.host == "n1"
        assert "s3cret" not in str(refused.value)


async def test_what_is_not_known_there_is_refused(world: World) -> None:
    unknown: Dialogue[Ask, More, Word | Last] = Dialogue("test.later", TALK.request, TALK.up, TALK.down)
    host = Host()
    async with opened(world, host) as connection, await open_talk(connection, unknown, Ask("echo"), timeout=PATIENCE) as talk:
        with pytest.raises(InvalidRequest, match=r"no stream 'test\.later' here"):
            await talk.receive()
    assert host.observed == [("unknown", "invalid-request")]


async def test_a_release_without_dialogues_ends_it_without_a_word(world: World) -> None:
    async with (
        listening(world.credentials("n1"), Router({})) as listener,  # type: ignore[arg-type]
        dialled(listener.port, world.credentials("ann", Kind.OPERATOR), local("ann", Kind.OPERATOR)) as connection,
        await open_talk(connection, TALK, Ask("echo"), timeout=PATIENCE) as talk,
    ):
        assert await talk.receive() is None


async def test_an_opener_that_vanishes_ends_the_handler(world: World) -> None:
    host = Host()
    async with opened(world, host) as connection:
        await open_talk(connection, TALK, Ask("wait"), timeout=PATIENCE)
        await until(lambda: connection.open_streams == 1)
        connection.hang_up()
        await until(lambda: host.ended == ["CancelledError"])


async def test_an_opener_that_wants_no_more_ends_the_handler(world: World) -> None:
    host = Host()
    async with opened(world, host) as connection:
        async with await open_talk(connection, TALK, Ask("flood"), timeout=PATIENCE) as talk:
            await talk.receive()
        await until(lambda: host.ended == ["CancelledError"])
        await until(lambda: connection.open_streams == 0)


async def test_a_reader_that_stops_stops_the_writer(world: World) -> None:
    host = Host()
    async with opened(world, host) as connection, await open_talk(connection, TALK, Ask("flood"), timeout=PATIENCE) as talk:
        await talk.receive()
        await until(lambda: host.sent >= WINDOW - 65_536)
        for _ in range(20):  # round trips, in which a writer that does not wait sends much more
            with pytest.raises(InvalidRequest):
                await connection.call("none", b"", timeout=PATIENCE)
        assert host.sent <= WINDOW + 2 * 65_536
        for _ in range(WINDOW // 65_536):
            await talk.receive()
        await until(lambda: host.sent > WINDOW + WINDOW // 4)


async def test_a_question_that_does_not_come_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "OPENING", 0.05)
    async with opened(world, Host()) as connection:
        stream = await connection.open_stream(TALK.name)
        async with asyncio.timeout(PATIENCE):
            message = await stream.receive()
        assert message is not None
        said = TALK.down.decode(message)
        assert isinstance(said, Fault)
        assert "nothing was asked" in said.message
        stream.abort()


async def test_a_connection_that_is_lost_is_told_from_an_end(world: World) -> None:
    async with opened(world, Host()) as connection, await open_talk(connection, TALK, Ask("wait"), timeout=PATIENCE) as talk:
        connection.hang_up()
        with pytest.raises(ConnectionLost):
            await talk.receive()


async def test_what_is_not_of_the_dialogue_is_refused_by_either_end(world: World) -> None:
    async with opened(world, Host()) as connection, await open_talk(connection, TALK, Ask("echo"), timeout=PATIENCE) as talk:
        await talk._stream.send(b"\xc1")
        with pytest.raises(InvalidRequest, match=r"test\.talk"):
            await talk.receive()

    async def nonsense(peer: Peer, request: Ask, answering: Answering[More, Word | Last]) -> None:
        await answering._stream.send(b"\xc1")

    host = Host()
    host.dialogues = Dialogues({TALK: ({Kind.OPERATOR}, nonsense)})
    async with opened(world, host) as connection, await open_talk(connection, TALK, Ask("echo"), timeout=PATIENCE) as talk:
        with pytest.raises(FrameError, match=r"test\.talk: not of this dialogue"):
            await talk.receive()


class Silent:
    """A stream on which `messages` come, and nothing is done with what is said."""

    def __init__(self, *messages: bytes) -> None:
        self.kind = TALK.name
        self.messages = list(messages)
        self.said: list[bytes] = []

    async def receive(self) -> bytes | None:
        return self.messages.pop(0) if self.messages else None

    async def send(self, message: bytes) -> None:
        self.said.append(message)

    def close(self) -> None: ...

    def deliver_to(self, sink: object) -> None: ...

    async def wait_ended(self) -> None: ...


@given(st.lists(st.binary(max_size=40), max_size=4))
async def test_any_messages_are_answered_or_refused(messages: list[bytes]) -> None:
    stream = Silent(*messages)
    await Host().dialogues.stream(Peer(identity("ann", Kind.OPERATOR), "", "", 2), TALK.name, stream)  # type: ignore[arg-type]
    last = TALK.down.decode(stream.said[-1])
    assert isinstance(last, Fault | Last)
    assert not isinstance(last, Fault) or last.kind == InvalidRequest.kind


async def test_calls_go_on_beside_a_stream_that_nobody_reads(world: World) -> None:
    async def ping(peer: Peer, request: object) -> object:
        return PingReply(name="n1", unix_time=1.0)

    router = Router({PING: ({Kind.OPERATOR}, ping)}, streams=Host().dialogues)
    async with (
        listening(world.credentials("n1"), router) as listener,  # type: ignore[arg-type]
        dialled(listener.port, world.credentials("ann", Kind.OPERATOR), local("ann", Kind.OPERATOR)) as connection,
        await open_talk(connection, TALK, Ask("flood"), timeout=PATIENCE) as talk,
    ):
        await talk.receive()
        for _ in range(20):
            await connection.call(PING.name, msgspec.msgpack.encode({}), timeout=PATIENCE)
