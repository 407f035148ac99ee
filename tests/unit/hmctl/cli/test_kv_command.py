"""hmctl kv, as typed: values come back byte for byte, and a watch goes on through whatever happens to nodes."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from answering import NAMES, Cluster, Door, as_its_client_hears

from hmcore import api
from hmcore.config.inventory import Host
from hmcore.errors import ConnectionLost, NoQuorum, PeerUnreachable
from hmcore.pki import Identity, Kind
from hmcore.store import DELETE_KEY, GET_KEY, LIST_KEYS, MOST_VALUE, PUT_KEY
from hmcore.watch import TABLES, WATCH, Change, Entry
from hmctl import client
from hmctl.actions import agents, change, keys, watching
from hmctl.cli import main
from hmctl.client import Access
from node_agent.consensus.statemachine import receipts
from node_agent.consensus.statemachine.commands import FormCluster, Proposal, PutKey, Receipt, encode, encode_batch
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State
from node_agent.platform.changes import Changes
from node_agent.platform.keys import Keys
from node_agent.platform.watches import Watches

ANN = Identity("hm-abc123defg", Kind.OPERATOR, "ann")


class Store:
    """What all control nodes hold, and the first of them leads; tests break connections and shorten the history."""

    no_quorum = None
    leader = "node1"
    is_leader = True

    def __init__(self) -> None:
        self.state = State()
        self.history = History()
        self.down: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.on_watch: list[Any] = []
        self.cut_off = False
        self.watches = Watches("node1", state=lambda: (self.state, self.history), leader=lambda: ("node1", 1), portion=40)
        changes = Changes("node1", self, self, timeout=1.0)  # type: ignore[arg-type]
        self.keys = Keys("node1", changes, keys=lambda: (self.state.index, self.state.keys), leader=lambda: "node1", barrier=self.barrier)
        self.put(encode(FormCluster(id="hm-a", bootstrap="b1", level=2)), "form")

    async def barrier(self) -> None:
        self.asked.append(("", "barrier"))
        if self.cut_off:
            raise NoQuorum("no quorum: 1 of 3 voters reachable")

    def put(self, command: bytes, request_id: str) -> Receipt:
        index = self.state.index + 1
        self.state, (receipt,), changed = apply_batch(self.state, encode_batch([Proposal(request_id, command)]), index)
        self.history.add(index, changed)
        self.watches.applied()
        return receipt

    def write(self, key: str, value: bytes) -> None:
        self.put(encode(PutKey(key=key, value=value)), f"other-{self.state.index}")

    def receipt(self, request_id: str) -> Receipt | None:
        return receipts.find(self.state, request_id)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        receipt = self.put(command, request_id)
        return receipt.index, receipt.result

    async def connect(self, host: Host, access: Any, **options: Any) -> Door:
        if host.name in self.down:
            raise PeerUnreachable("no answer within 2 s", host=host.name)
        return Door(host.name, self.told, self.answer)

    def told(self) -> api.StateReply:
        return api.StateReply(index=self.state.index, leader="node1", term=1, nodes=[])

    async def answer(self, name: str, method: api.Method[Any, Any], request: Any) -> Any:
        self.asked.append((name, method.name))
        if name in self.down:
            raise ConnectionLost("nothing listens there any more", host=name)
        if method is WATCH and request.wait and self.on_watch:
            self.on_watch.pop(0)(name)
        with as_its_client_hears(name):
            return await self._answer(method, request)

    async def _answer(self, method: api.Method[Any, Any], request: Any) -> Any:
        if self.cut_off and method in (PUT_KEY, DELETE_KEY):
            raise NoQuorum("no answer in time: 1 of 3 voters reachable")
        match method:
            case _ if method is PUT_KEY:
                return await self.keys.put(request, ANN)
            case _ if method is DELETE_KEY:
                return await self.keys.delete(request, ANN)
            case _ if method is GET_KEY:
                return await self.keys.get(request)
            case _ if method is LIST_KEYS:
                return await self.keys.list(request)
            case _ if method is TABLES:
                return await self.watches.tables(request)
        assert method is WATCH
        return await self.watches.watch(request)


@pytest.fixture
def store(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(agents, "connect", made.connect)
    monkeypatch.setattr(change, "connect", made.connect)
    monkeypatch.setattr(client.Access, "of", lambda store, via=None: Access(store.cluster, store.known_hosts))
    monkeypatch.setattr(watching, "RETRY", 0.01)
    return made


def out(capfdbinary: pytest.CaptureFixture[bytes]) -> bytes:
    return capfdbinary.readouterr().out


@pytest.mark.parametrize("value", [b"", b"plain", b"two\nlines\n", bytes(range(256)), "gr\u00fc\u00df".encode()])
def test_a_value_comes_back_byte_for_byte(
    value: bytes, store: Store, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "value").write_bytes(value)
    assert main.run(["kv", "put", "app/a", f"@{tmp_path / 'value'}"]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(value)))
    assert main.run(["kv", "put", "app/b", "-"]) == 0
    out(capfdbinary)
    for key in ("app/a", "app/b"):
        assert main.run(["kv", "get", key]) == 0
        assert out(capfdbinary) == value


def test_a_key_that_is_not_as_expected_is_left_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["kv", "put", "a", "1", "--expect", "0"]) == 0
    assert main.run(["kv", "put", "a", "2", "--expect", "0"]) == 1
    assert capsys.readouterr().err == (
        "error: a was changed last by revision 1, expected was that it does not exist\n  fix: hmctl kv get a -o json\n"
    )
    assert main.run(["kv", "get", "a", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["value"], told["base64"], told["size"]) == ("1", None, 1)
    assert main.run(["kv", "rm", "a", "--expect", str(told["changed"])]) == 0
    assert main.run(["kv", "get", "a"]) == 1
    assert "there is no key a" in capsys.readouterr().err
    assert main.run(["kv", "rm", "a"]) == 0
    assert "was not there" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["put", "/a", "1"], ["get", "a b"], ["rm", ""], ["put", "a", "@/no/such/file"], ["put", "a/", "1"], ["get", "../a"]]
)
def test_what_cannot_be_meant_is_refused(words: list[str], store: Store) -> None:
    assert main.run(["kv", *words]) == 2


def test_the_value_that_is_there_already_is_told_with_its_revision(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("a", "b", "a"):
        assert main.run(["kv", "put", key, "1"]) == 0
    capsys.readouterr()
    assert main.run(["kv", "put", "a", "1", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["changed"], told["revision"]) == (False, 1)
    assert main.run(["kv", "put", "a", "2", "--expect", "1"]) == 0


def test_a_write_that_nobody_answers_for_is_undecided(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change.change, "__kwdefaults__", {**(change.change.__kwdefaults__ or {}), "timeout": 0.05})
    store.cut_off = True
    assert main.run(["kv", "put", "app/a", "1"]) == 1
    said = capsys.readouterr().err
    assert "undecided" in said
    assert "no answer in time: 1 of 3 voters reachable" in said
    assert said.endswith("  fix: hmctl kv get --consistent app/a\n")


@pytest.mark.parametrize("words", [["get", "a"], ["ls"]])
def test_what_no_majority_confirms_is_told_so(words: list[str], store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.cut_off = True
    store.down = {"node3"}
    assert main.run(["kv", *words, "--consistent"]) == 1
    first, fix = capsys.readouterr().err.splitlines()
    assert first == "error: no majority can confirm it: no quorum: 1 of 3 voters reachable"
    assert "hmctl status" in fix


def test_a_file_that_cannot_be_read_is_told_once(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none"
    assert main.run(["kv", "put", "a", f"@{missing}"]) == 2
    first, fix = capsys.readouterr().err.splitlines()
    assert first == f"error: {missing} cannot be read: no such file or directory"
    assert fix.endswith(f"printf %s @{missing} | hmctl kv put a -")
    assert main.run(["kv", "put", "a", "@"]) == 2
    assert "behind the @ stands no file's name" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["file", "stdin", "word"])
def test_a_value_has_a_limit(
    by: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, code in ((MOST_VALUE, 0), (MOST_VALUE + 1, 2)):
        value = b"x" * size
        (tmp_path / "value").write_bytes(value)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(value)))
        store.asked.clear()
        assert main.run(["kv", "put", "a", {"file": f"@{tmp_path / 'value'}", "stdin": "-", "word": value.decode()}[by]]) == code
        assert bool(store.asked) is (code == 0)
    assert capsys.readouterr().err.startswith("error: the value is too large: 512 KiB (524288 bytes) is the limit of a value\n")


def test_the_help_names_arguments_limit_and_how_to_store_what_looks_like_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["kv", "put", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "hmctl kv put [OPTIONS] KEY [VALUE]" in said
    assert "512 KiB at most" in said
    assert "printf @x | hmctl kv put KEY -" in said


def test_a_value_that_begins_with_a_dash_comes_behind_two(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["kv", "put", "neg/one", "-5"]) == 2
    assert "comes behind --: hmctl kv put ... -- -5\n" in capsys.readouterr().err
    assert main.run(["kv", "put", "neg/one", "--", "-5"]) == 0
    assert store.state.keys["neg/one"].value == b"-5"


def test_what_is_true_now_is_asked_for(store: Store) -> None:
    store.write("a", b"1")
    assert main.run(["kv", "get", "a"]) == 0
    assert ("", "barrier") not in store.asked
    assert main.run(["kv", "get", "a", "--consistent"]) == 0
    assert main.run(["kv", "ls", "--consistent"]) == 0
    assert store.asked.count(("", "barrier")) == 2 * len(NAMES)


def test_a_long_list_is_of_one_moment(store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        store.write(f"app/{number:02}", b"x")
    store.write("sys/a", b"x")
    store.down = {"node2", "node3"}
    request = keys.KeysRequest
    monkeypatch.setattr(keys, "KeysRequest", lambda **given: request(**{**given, "limit": 10}))
    listing = store.keys.list

    async def while_others_write(request: Any) -> Any:
        reply = await listing(request)
        if not request.after:  # keys in the portion that was just told, and in one that comes
            store.write("app/00", b"changed")
            store.write("app/25", b"changed")
            store.write("sys/b", b"not ours")
        return reply

    monkeypatch.setattr(store.keys, "list", while_others_write)
    assert main.run(["kv", "ls", "app/", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["index"] == store.state.index
    held = {key: (each.changed, len(each.value)) for key, each in store.state.keys.items() if key.startswith("app/")}
    assert {each["key"]: (each["changed"], each["size"]) for each in told["keys"]} == held


def test_what_changed_meanwhile_is_put_on_top_of_what_was_told() -> None:
    found = {key: keys.KeyEntry(key=key, created=1, changed=1, size=1) for key in ("a", "b")}
    keys.put_on_top(found, [Entry(5, (Change("keys", "a", None), Change("keys", "c", _record(b"123", 5))))])
    assert {key: (each.changed, each.size) for key, each in found.items()} == {"b": (1, 1), "c": (5, 3)}


def _record(value: bytes, revision: int) -> bytes:
    import msgspec

    from hmcore.records import KeyValue

    return msgspec.msgpack.encode(KeyValue(value=value, created=revision, changed=revision))


def interrupt(_name: str = "") -> None:
    signal.raise_signal(signal.SIGINT)


def test_each_change_is_shown_once_though_nodes_fail(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def first(name: str) -> None:
        store.write("app/a", b"1")
        store.write("sys/a", b"not asked for")

    def lost(name: str) -> None:
        store.down = {name}  # its answer is one that we never get
        store.write("app/b", b"\xff")

    def then(name: str) -> None:
        assert name not in store.down
        store.put(encode(PutKey(key="app/c", value=b"3")), "c")

    def failing(name: str) -> None:
        lost(name)
        raise ConnectionLost("the connection ended", host=name)

    store.on_watch = [first, failing, then, interrupt]
    assert main.run(["kv", "watch", "app/", "-o", "json"]) == 0
    captured = capsys.readouterr()
    told = [json.loads(line) for line in captured.out.splitlines()]
    assert [(each["kind"], each["key"], each["value"], each["base64"]) for each in told] == [
        ("put", "app/a", "1", None),
        ("put", "app/b", None, "/w=="),
        ("put", "app/c", "3", None),
    ]
    assert "the connection ended" in captured.err
    assert "is followed now" in captured.err


def test_what_is_lost_is_said_and_then_all_that_there_is(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        store.write(f"app/{number}", b"0123456789")  # more than one portion
    store.history = History()
    store.history.restart(store.state.index)

    def later(name: str) -> None:
        store.write("app/0", b"new")

    store.on_watch = [lambda name: None, later, interrupt]
    assert main.run(["kv", "watch", "app/", "--since", "2", "-o", "json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["kind"], each["key"]) for each in told] == [
        ("resync", None),
        *(("present", f"app/{number}") for number in range(6)),
        ("put", "app/0"),
    ]
