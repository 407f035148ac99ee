"""Keys: written where the leader is, read from a control node, in order and in portions."""

from __future__ import annotations

import msgspec
import pytest

from hmcore.errors import InvalidRequest, NoQuorum, NotAsExpected, NotLeader
from hmcore.pki import Identity, Kind
from hmcore.store import MOST_KEYS, DeleteKeyRequest, KeyRequest, KeysRequest, PutKeyRequest
from node_agent.consensus.statemachine import receipts
from node_agent.consensus.statemachine.commands import (
    AcquireLock,
    FormCluster,
    Proposal,
    Receipt,
    Refused,
    encode,
    encode_batch,
    encode_result,
)
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State
from node_agent.platform.changes import Changes
from node_agent.platform.keys import Keys

ANN = Identity("hm-abc123defg", Kind.OPERATOR, "ann")


class Log:
    """A replicated log that accepts everything at once."""

    def __init__(self) -> None:
        self.state = State()
        self.is_leader = self.caught_up = True
        self.leader = "node1"
        self.no_quorum = None
        self.asked = 0
        self.put(encode(FormCluster(id="hm-a", bootstrap="b1", level=2)), "form")

    def put(self, command: bytes, request_id: str) -> Receipt:
        self.state, (receipt,), _ = apply_batch(self.state, encode_batch([Proposal(request_id, command)]), self.state.index + 1)
        return receipt

    def receipt(self, request_id: str) -> Receipt | None:
        return receipts.find(self.state, request_id)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        receipt = self.put(command, request_id)
        return receipt.index, receipt.result

    async def barrier(self) -> None:
        self.asked += 1
        if not self.is_leader:
            raise NoQuorum("no quorum: 1 of 3 voters reachable")


def keys_of(log: Log, *, worker: bool = False) -> Keys:
    changes = Changes("node1", log, log, timeout=1.0)  # type: ignore[arg-type]
    held = None if worker else log
    return Keys(
        "node1",
        changes,
        keys=lambda: None if held is None else (held.state.index, held.state.keys),
        leader=lambda: log.leader,
        barrier=log.barrier,
    )


def put(
    key: str, value: bytes = b"1", *, id: str = "session:1", expect: int | None = None, lock: str = "", token: int = 0
) -> PutKeyRequest:
    return PutKeyRequest(id=id, key=key, value=value, expect=expect, lock=lock, token=token)


async def test_what_was_put_is_read_with_the_index_that_put_it_until_it_is_deleted():
    log = Log()
    keys = keys_of(log)
    reply = await keys.put(put("app/web"), ANN)
    got = await keys.get(KeyRequest(key="app/web"))
    assert got.item is not None
    assert (got.item.value, got.item.created, got.item.changed) == (b"1", reply.revision, reply.revision)
    assert got.index == log.state.index
    again = await keys.put(put("app/web", b"2", id="session:2", expect=reply.revision), ANN)
    got = await keys.get(KeyRequest(key="app/web"))
    assert got.item is not None
    assert (got.item.value, got.item.created, got.item.changed) == (b"2", reply.revision, again.revision)
    await keys.delete(DeleteKeyRequest(id="session:3", key="app/web"), ANN)
    assert (await keys.get(KeyRequest(key="app/web"))).item is None
    assert log.state.keys_size == 0


async def test_a_key_that_is_not_as_expected_is_left_alone():
    keys = keys_of(Log())
    reply = await keys.put(put("a", expect=0), ANN)
    for request in (put("a", b"2", id="session:2", expect=0), put("a", b"2", id="session:3", expect=reply.revision + 1)):
        with pytest.raises(NotAsExpected, match=f"a was changed last by revision {reply.revision}"):
            await keys.put(request, ANN)
    with pytest.raises(NotAsExpected, match="does not exist"):
        await keys.delete(DeleteKeyRequest(id="session:4", key="b", expect=3), ANN)


async def test_a_value_that_is_there_already_is_told_with_the_revision_that_put_it():
    keys = keys_of(Log())
    first = await keys.put(put("a"), ANN)
    await keys.put(put("b", id="session:2"), ANN)
    again = await keys.put(put("a", id="session:3"), ANN)
    assert (again.changed, again.revision) == (False, first.revision)
    assert (await keys.put(put("a", b"2", id="session:4", expect=again.revision), ANN)).changed
    nothing = await keys.delete(DeleteKeyRequest(id="session:5", key="c"), ANN)
    assert (nothing.changed, nothing.revision) == (False, 0)


async def test_a_refusal_that_expects_nothing_is_encoded_as_before():
    assert encode_result(Refused("no")) == msgspec.msgpack.encode({"type": "refused", "reason": "no"})


async def test_a_retry_is_carried_out_once():
    log = Log()
    keys = keys_of(log)
    first = await keys.put(put("a"), ANN)
    await keys.put(put("a", b"2", id="other-session:1"), ANN)
    assert await keys.put(put("a"), ANN) == first
    assert log.state.keys["a"].value == b"2"


async def test_who_has_lost_the_lock_writes_no_more():
    log = Log()
    keys = keys_of(log)
    log.put(encode(AcquireLock(name="deploy", holder="ann", ttl=10)), "lock")
    await keys.put(put("a", lock="deploy", token=1), ANN)
    with pytest.raises(InvalidRequest, match="no longer held with token 7"):
        await keys.put(put("a", b"2", id="session:2", lock="deploy", token=7), ANN)
    with pytest.raises(InvalidRequest, match="nobody holds it"):
        await keys.delete(DeleteKeyRequest(id="session:3", key="a", lock="other", token=1), ANN)


async def test_keys_are_listed_in_order_in_portions():
    keys = keys_of(Log())
    names = [f"a/{number:03}" for number in range(25)]
    for number, name in enumerate(reversed([*names, "b"])):
        await keys.put(put(name, b"%d" % number, id=f"session:{number}"), ANN)
    told: list[str] = []
    more, after = True, ""
    while more:
        reply = await keys.list(KeysRequest(prefix="a/", after=after, limit=10))
        told += [item.key for item in reply.items]
        assert all(item.value == b"" and item.size > 0 for item in reply.items)
        more, after = reply.more, told[-1]
    assert told == names
    assert (await keys.list(KeysRequest(prefix="b", values=True))).items[0].value == b"0"


async def test_an_answer_holds_a_bounded_number_of_bytes():
    keys = keys_of(Log())
    for number in range(12):
        await keys.put(put(f"k{number:02}", bytes(500 << 10), id=f"session:{number}"), ANN)
    reply = await keys.list(KeysRequest(values=True))
    assert 0 < len(reply.items) < 12
    assert reply.more
    assert len((await keys.list(KeysRequest(values=True, after=reply.items[-1].key))).items) == 12 - len(reply.items)


@pytest.mark.parametrize("key", ["", "/a", "a b", "a\n", "ä", "x" * 513, "a/", "a//b", ".", "..", "../a", "a/./b", "a/..", "a/b/../c"])
async def test_what_is_no_key_is_refused(key):
    with pytest.raises(InvalidRequest, match="is no key"):
        await keys_of(Log()).put(put(key), ANN)


@pytest.mark.parametrize("key", ["a", "a/b", ".a", "a/.b", "...", "a/..b/c.", "x" * 512, "a/" * 255 + "b"])
async def test_what_is_a_key_is_put(key):
    assert (await keys_of(Log()).put(put(key), ANN)).changed


@pytest.mark.parametrize("limit", [0, -1, MOST_KEYS + 1])
async def test_a_list_has_bounds(limit):
    with pytest.raises(InvalidRequest):
        await keys_of(Log()).list(KeysRequest(limit=limit))


async def test_a_consistent_read_waits_until_this_node_knows_all_that_was_acknowledged():
    log = Log()
    keys = keys_of(log)
    await keys.get(KeyRequest(key="a"))
    assert log.asked == 0
    await keys.get(KeyRequest(key="a", consistent=True))
    assert log.asked == 1
    log.is_leader = False
    with pytest.raises(NoQuorum, match="1 of 3"):
        await keys.get(KeyRequest(key="a", consistent=True))
    with pytest.raises(NoQuorum):
        await keys.list(KeysRequest(consistent=True))
    assert (await keys.get(KeyRequest(key="a"))).item is None


async def test_a_worker_names_the_leader():
    with pytest.raises(NotLeader, match="is a worker") as refused:
        await keys_of(Log(), worker=True).get(KeyRequest(key="a"))
    assert refused.value.leader == "node1"
