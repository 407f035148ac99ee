"""Hostile bytes through the doors outside of consensus: the wire, the agent's socket, files of operators and nodes, the kernel's records.

Each answers with its own error, or with a value of its own kind; nothing is opened, nothing is run. Those of consensus are in
tests/unit/node_agent/consensus/test_hostile_pickles.py.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hostile_bytes import everything, nothing_is_opened, yamls

import hmcore
from hmcore import api, pki
from hmcore.config.agent import parse_agent_config
from hmcore.config.inventory import load_inventory
from hmcore.errors import CallRefused, ConfigError, FrameError, HyperMeshError, InvalidRequest, LabError, LayerDown, PkiError, UsageError
from hmcore.pki import Identity, Kind
from hmcore.stoq.dialogue import Answering, Dialogue, Dialogues, open_talk
from hmcore.stoq.frames import (
    Apart,
    Ask,
    Call,
    Credit,
    Denied,
    Drop,
    Dropped,
    Fault,
    Frame,
    FrameReader,
    Hello,
    Item,
    Open,
    Refuse,
    Reply,
    Said,
    Welcome,
    encode,
)
from hmcore.stoq.greeting import Local, Peer
from hmcore.stoq.local import HEADER, connect_unix, serve_unix
from hmcore.stoq.rpc import Router, invoke
from hmctl import lock
from hmctl.actions import journal
from hmctl.bundle.store import ReleaseStore
from hmctl.facts import agent as agent_facts
from hmctl.lab import state as lab_state
from hmctl.state import OperatorStore
from node_agent.platform import http
from node_agent.security import maps
from node_agent.security.layer import judge

MARKER = Path("/proc/self/hostile")  # nowhere: it cannot be made even if all else fails
HOSTILE = everything(MARKER)
YAMLS = yamls(MARKER)
CLUSTER = "hm-abc123defg"
MODULES = [importlib.import_module(module.name) for module in pkgutil.walk_packages(hmcore.__path__, "hmcore.")]
METHODS = sorted({value.name: value for module in MODULES for value in vars(module).values() if isinstance(value, api.Method)}.items())
QUESTIONS = {  # a good one of each dialogue, so that what comes after it is read
    "apps.logs": msgspec.msgpack.encode({"app": "shop"}),
    "apps.exec": msgspec.msgpack.encode({"allocation": "shop/web.1.1", "command": ["sh"]}),
}
DIALOGUES = sorted({value.name: value for module in MODULES for value in vars(module).values() if isinstance(value, Dialogue)}.items())


@pytest.fixture(autouse=True)
def unopened():
    with nothing_is_opened(MARKER):
        yield


def all_of(documents: dict[str, bytes], check: Callable[[bytes], None]) -> None:
    for name, data in documents.items():
        try:
            check(data)
        except BaseException as error:
            error.add_note(name)
            raise


# --- the wire


def test_as_frames_they_are_refused():
    def check(data: bytes) -> None:
        reader = FrameReader()
        with suppress(FrameError):  # four bytes may be the length of a long frame: then it waits for the rest
            assert reader.feed(data) == []
        with pytest.raises(FrameError):
            FrameReader().feed(len(data).to_bytes(4, "big") + data)

    all_of(HOSTILE, check)


def test_within_frames_they_stay_bytes():
    def check(data: bytes) -> None:
        for frame in (Call("node.ping", data), Reply(data), Item(data), Ask(1, "node.ping", data), Said(1, data)):
            assert FrameReader().feed(encode(frame)) == [frame]
        for kind in Frame.__args__:  # in the place of each field, where none is of bytes
            if kind in (Call, Reply, Item, Ask, Said):
                continue
            for position in range(len(kind.__struct_fields__)):
                fields: list[object] = [kind.__struct_config__.tag, *(0 for _ in kind.__struct_fields__)]
                fields[position + 1] = data
                body = msgspec.msgpack.encode(fields)
                with pytest.raises(FrameError):
                    FrameReader().feed(len(body).to_bytes(4, "big") + body)

    lanes = {Ask, Said, Denied, Apart, Drop, Dropped}
    assert {Hello, Welcome, Refuse, Call, Reply, Fault, Open, Item, Credit} | lanes == set(Frame.__args__)
    all_of(HOSTILE, check)


@pytest.mark.parametrize(("name", "method"), METHODS, ids=[name for name, _ in METHODS])
async def test_as_the_body_of_a_call_or_its_answer_they_are_refused(name, method):
    async def answer(peer: Peer, request: object) -> object:
        raise AssertionError(f"{request} was taken for a request")

    router = Router({method: (set(Kind), answer)})
    caller = Peer(Identity(CLUSTER, Kind.OPERATOR, "eve"), "", "", 1)

    class Answers:
        def __init__(self, body: bytes) -> None:
            self.body = body

        async def call(self, name: str, body: bytes, *, timeout: float) -> bytes:
            return self.body

    for data in HOSTILE.values():
        with pytest.raises(InvalidRequest):
            await router.call(caller, name, data)
        with pytest.raises(FrameError):
            await invoke(Answers(data), method, api.Empty(), timeout=1)


def test_every_method_was_tried():
    assert len(METHODS) >= 12
    assert {"node.ping", "cluster.form", "keys.put"} <= dict(METHODS).keys()


class Scripted:
    """A stream on which `messages` come; what is said on it is kept."""

    ended = True

    def __init__(self, *messages: bytes) -> None:
        self.messages = list(messages)
        self.said: list[bytes] = []

    async def receive(self) -> bytes | None:
        return self.messages.pop(0) if self.messages else None

    async def send(self, message: bytes) -> None:
        self.said.append(message)

    def close(self) -> None: ...

    def deliver_to(self, sink: object) -> None: ...

    async def wait_ended(self) -> None: ...


@pytest.mark.parametrize(("name", "dialogue"), DIALOGUES, ids=[name for name, _ in DIALOGUES])
async def test_as_a_message_of_a_dialogue_they_are_refused_by_either_end(name, dialogue):
    async def listen(peer: Peer, request: object, talk: Answering) -> None:
        said = await talk.receive()
        raise AssertionError(f"{said} was taken for a word of it")

    async def unasked(peer: Peer, request: object, talk: Answering) -> None:
        raise AssertionError(f"{request} was taken for a question")

    caller = Peer(Identity(CLUSTER, Kind.OPERATOR, "eve"), "", "", 2)
    question = QUESTIONS[name]
    for data in HOSTILE.values():
        for messages, handler in (((data,), unasked), ((question, data), listen)):
            stream = Scripted(*messages)
            await Dialogues({dialogue: (set(Kind), handler)}).stream(caller, name, stream)
            fault = dialogue.down.decode(stream.said[-1])
            assert isinstance(fault, Fault)
            assert fault.kind == InvalidRequest.kind

        class Opener:
            name = "n1"

            async def open_stream(self, kind: str) -> Scripted:
                return Scripted(data)  # noqa: B023  asked at once

        with pytest.raises(FrameError):
            await (await open_talk(Opener(), dialogue, api.Empty(), timeout=1)).receive()


def test_every_dialogue_was_tried():
    assert dict(DIALOGUES).keys() == QUESTIONS.keys()


# --- the agent's socket


async def test_on_the_agents_socket_they_end_that_connection_and_no_other(tmp_path):
    class Echo:
        async def call(self, peer: Peer, method: str, body: bytes) -> bytes:
            return body

        async def stream(self, peer: Peer, kind: str, stream: object) -> None:
            return

    listener = await serve_unix(str(tmp_path / "agent.sock"), Echo(), local=Local(Identity(CLUSTER, Kind.NODE, "n1"), "control", "r1"))
    good = await connect_unix(listener.path)
    try:
        for data in HOSTILE.values():
            body = len(data).to_bytes(4, "big") + data
            for sent in (data, HEADER.pack(0, 0, len(body)) + body):
                reader, writer = await asyncio.open_unix_connection(listener.path)
                writer.write(sent)
                writer.write_eof()
                async with asyncio.timeout(5):
                    with suppress(ConnectionError):
                        await reader.read()
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            assert await good.call("echo", data, timeout=5) == data
    finally:
        await good.close()
        await listener.close()


# --- files


def test_as_configuration_they_are_told_by_line(tmp_path):
    def check(data: bytes) -> None:
        file = tmp_path / "cluster.yaml"
        file.write_bytes(data)
        with pytest.raises(ConfigError):
            load_inventory(file, {})
        with pytest.raises(ConfigError):
            parse_agent_config(data, "agent.yaml")

    all_of(HOSTILE | YAMLS, check)


def test_as_the_operators_own_files_they_are_damage(tmp_path):
    store = OperatorStore.open(CLUSTER, tmp_path)
    store.folder.mkdir(parents=True)

    def check(data: bytes) -> None:
        file = tmp_path / "export"
        file.write_bytes(data)
        with pytest.raises(UsageError):
            OperatorStore.import_(file, tmp_path)
        (store.folder / "cluster.json").write_bytes(data)
        with pytest.raises(HyperMeshError, match="damaged"):
            store.known_bootstrap  # noqa: B018
        for name in ("ca.pem", "ca.key"):
            (store.folder / name).write_bytes(data)
        with pytest.raises(PkiError):
            pki.read_authority(data)

    all_of(HOSTILE, check)


def test_as_a_lock_a_lab_or_a_cached_release_they_are_none(tmp_path):
    folder = tmp_path / "lab"
    folder.mkdir()
    cached = tmp_path / "releases" / "r1"
    cached.mkdir(parents=True)

    def check(data: bytes) -> None:
        (folder / lab_state.FILE).write_bytes(data)
        with pytest.raises(LabError):
            lab_state.load(folder)
        (tmp_path / "lock").write_bytes(data)
        assert "another hmctl" in str(lock._refusal(tmp_path / "lock"))
        (cached / "release.json").write_bytes(data)
        assert ReleaseStore(tmp_path / "releases", {}).list() == []

    all_of(HOSTILE, check)


# --- what hosts, the kernel and scrapers say


def test_what_a_host_says_is_text_and_no_more():
    def check(data: bytes) -> None:
        assert journal.parse("n1", data) is None
        assert agent_facts.parse(data.decode(errors="replace")).config is None
        with pytest.raises(LayerDown):
            judge(data, data, 0)
        said = http.parse(data)
        assert isinstance(said, http.Response)
        assert said.status == 400

    all_of(HOSTILE, check)


def test_as_records_of_the_kernel_they_are_unknown_or_text():
    def check(data: bytes) -> None:
        for kind in (b"", maps.EXEC_KIND.to_bytes(4, "little"), maps.TCP_KIND.to_bytes(4, "little")):
            record = maps.parse_record(kind + data)
            assert record is None or isinstance(record, maps.ExecRecord | maps.TcpRecord)

    all_of(HOSTILE, check)


def test_refusals_are_ours():
    """What the tests above take for an answer is in the tree of errors."""
    for kind in (ConfigError, FrameError, InvalidRequest, LabError, LayerDown, PkiError, UsageError, CallRefused):
        assert issubclass(kind, HyperMeshError)
