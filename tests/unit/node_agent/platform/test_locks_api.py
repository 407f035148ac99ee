"""Locks as they are asked for: by operators and nodes, where the leader is."""

from __future__ import annotations

import asyncio

import pytest

from hmcore.errors import InvalidRequest, NotLeader, PermissionDenied
from hmcore.locks import AcquireRequest, LocksRequest, ReleaseRequest, RenewRequest
from hmcore.pki import Identity, Kind
from hmcore.store import PutKeyRequest
from node_agent.consensus.statemachine import receipts
from node_agent.consensus.statemachine.commands import ExpireLock, FormCluster, Proposal, Receipt, encode, encode_batch
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration.lockkeeper import LockKeeper
from node_agent.platform.changes import Changes
from node_agent.platform.keys import Keys
from node_agent.platform.locks import Locks

ANN = Identity("hm-abc123defg", Kind.OPERATOR, "ann")
BOB = Identity("hm-abc123defg", Kind.OPERATOR, "bob")
NODE2 = Identity("hm-abc123defg", Kind.NODE, "node2")


class Log:
    """A replicated log that accepts everything at once."""

    def __init__(self, level: int = 2) -> None:
        self.state = State()
        self.leads_in: int | None = 1
        self.no_quorum = None
        self.leader = "node1"
        self.asked = 0
        self.put(encode(FormCluster(id="hm-a", bootstrap="b1", level=level)), "form")

    is_leader = property(lambda self: self.leads_in is not None)
    caught_up = True
    cluster = property(lambda self: self.state.cluster)
    locks = property(lambda self: self.state.locks)

    def put(self, command: bytes, request_id: str, author: str = "") -> Receipt:
        batch = encode_batch([Proposal(request_id, command, 0.0, author)])
        self.state, (receipt,), _ = apply_batch(self.state, batch, self.state.index + 1)
        return receipt

    def receipt(self, request_id: str) -> Receipt | None:
        return receipts.find(self.state, request_id)

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        self.asked += 1
        await asyncio.sleep(0)
        receipt = self.put(command, request_id, author)
        return receipt.index, receipt.result

    async def barrier(self) -> None:
        await asyncio.sleep(0)
        if not self.is_leader:
            raise NotLeader("node1 does not lead", leader=self.leader)


class Bed:
    def __init__(self, level: int = 2) -> None:
        self.log = Log(level)
        self.now = 0.0
        self.changes = Changes("node1", self.log, self.log, timeout=1.0)  # type: ignore[arg-type]
        self.keeper = LockKeeper(
            log=self.log,
            barrier=self.log.barrier,
            propose_timeout=1.0,
            request_prefix=lambda: "node1-7",
            clock=lambda: self.now,
        )
        self.locks = Locks(
            "node1",
            self.changes,
            self.keeper,
            locks=lambda: (self.log.state.index, self.log.state.locks),
            leader=lambda: self.log.leader,
            barrier=self.log.barrier,
        )

    async def acquire(self, holder: str, author: Identity = ANN, *, name: str = "deploy", id: str = "session-1:1", note: str = ""):
        return await self.locks.acquire(AcquireRequest(id=id, name=name, holder=holder, ttl=30.0, note=note), author)


async def test_the_second_is_told_who_holds_it_for_how_long_and_what_for():
    bed = Bed()
    reply = await bed.acquire("ann@desk-1", note="deploy")
    assert reply.token == 1
    bed.now = 12.0
    asked = bed.log.asked
    other = await bed.acquire("bob@desk-2", BOB, id="session-2:1")
    assert (other.token, other.unavailable) == (0, "")
    assert other.held is not None
    assert (other.held.lock.holder, other.held.lock.note, other.held.lock.author) == ("ann@desk-1", "deploy", "ann")
    assert other.held.expires_in == 18.0
    assert bed.log.asked == asked  # nothing of that is in the log


async def test_when_it_is_free_the_next_has_a_larger_token_and_the_former_holder_may_not_renew():
    bed = Bed()
    await bed.acquire("ann@desk-1")
    await bed.locks.renew(RenewRequest(name="deploy", token=1), ANN)
    reply = await bed.locks.release(ReleaseRequest(id="session-1:2", name="deploy", token=1), ANN)
    assert reply.changed
    assert (await bed.acquire("bob@desk-2", BOB, id="session-2:1")).token == 2
    with pytest.raises(InvalidRequest, match="no longer held with token 1: bob@desk-2 holds it with token 2"):
        await bed.locks.renew(RenewRequest(name="deploy", token=1), ANN)
    again = await bed.locks.release(ReleaseRequest(id="session-1:3", name="deploy", token=1), ANN)
    assert not again.changed  # it is bob's now


async def test_its_holder_gets_a_new_token_and_a_full_term_and_what_was_on_its_way_of_the_old_one_does_nothing():
    bed = Bed()
    await bed.acquire("node2", NODE2, name="shop")
    bed.now = 20.0
    assert (await bed.acquire("node2", NODE2, name="shop", id="session-9:1")).token == 2
    assert (await bed.acquire("node2", NODE2, name="shop", id="session-9:1")).token == 2  # the same request
    late = await bed.locks.release(ReleaseRequest(id="session-1:2", name="shop", token=1), NODE2)
    assert not late.changed
    bed.log.put(encode(ExpireLock(name="shop", token=1)), "late end")
    reply = await bed.locks.list(LocksRequest())
    assert [(held.lock.name, held.lock.token, held.expires_in) for held in reply.locks] == [("shop", 2, 30.0)]
    assert reply.leader


async def test_a_retry_of_what_has_ended_meanwhile_is_not_told_the_old_token():
    bed = Bed()
    await bed.acquire("ann@desk-1")
    bed.log.put(encode(ExpireLock(name="deploy", token=1)), "end")
    reply = await bed.acquire("ann@desk-1")
    assert (reply.token, reply.held) == (0, None)
    assert (await bed.acquire("ann@desk-1", id="session-1:2")).token == 2


async def test_below_the_level_no_lock_is_given_and_that_is_said():
    bed = Bed(level=1)
    reply = await bed.acquire("ann@desk-1")
    assert (reply.token, reply.held) == (0, None)
    assert reply.unavailable == "the cluster is at feature level 1, and gives locks from level 2 on"
    assert bed.log.asked == 0


async def test_a_node_speaks_for_itself_only_and_an_operator_for_all():
    bed = Bed()
    for holder in ("node1", "node20", "ann@desk-1"):
        with pytest.raises(PermissionDenied, match="a node holds locks in its own name"):
            await bed.acquire(holder, NODE2)
    assert (await bed.acquire("node2/shop-1", NODE2, name="shop")).token == 1
    assert (await bed.acquire("ann@desk-1", name="deploy", id="session-2:1")).token == 2
    await bed.locks.renew(RenewRequest(name="shop", token=1), NODE2)
    with pytest.raises(PermissionDenied):
        await bed.locks.renew(RenewRequest(name="deploy", token=2), NODE2)
    with pytest.raises(PermissionDenied):
        await bed.locks.release(ReleaseRequest(id="session-3:1", name="deploy", token=2), NODE2)
    reply = await bed.locks.release(ReleaseRequest(id="session-4:1", name="shop", token=1, reason="it hangs"), ANN)
    assert reply.changed
    event = bed.log.state.events[-1]
    assert (event.kind, event.subject, event.message, event.author) == ("lock.released", "shop", "it hangs", "ann")


@pytest.mark.parametrize(
    ("name", "holder", "ttl", "words"),
    [
        ("", "ann", 30.0, "is no lock"),
        ("a b", "ann", 30.0, "is no lock"),
        ("x" * 257, "ann", 30.0, "is no lock"),
        ("deploy", "ann\n", 30.0, "is no holder"),
        ("deploy", "ann", 0.0, "1 to 3600 s"),
        ("deploy", "ann", float("nan"), "1 to 3600 s"),
        ("deploy", "ann", float("inf"), "1 to 3600 s"),
    ],
)
async def test_what_is_no_lock_is_refused_before_it_is_in_the_log(name, holder, ttl, words):
    bed = Bed()
    with pytest.raises(InvalidRequest, match=words):
        await bed.locks.acquire(AcquireRequest(id="session-1:1", name=name, holder=holder, ttl=ttl), ANN)
    assert bed.log.asked == 0


async def test_who_does_not_lead_names_the_one_who_does():
    bed = Bed()
    await bed.acquire("ann@desk-1")
    bed.log.leads_in, bed.log.leader = None, "node3"
    for asked in (
        bed.acquire("bob@desk-2", BOB),
        bed.locks.renew(RenewRequest(name="deploy", token=1), ANN),
        bed.locks.release(ReleaseRequest(id="session-1:2", name="deploy", token=1), ANN),
    ):
        with pytest.raises(NotLeader) as refused:
            await asked
        assert refused.value.leader == "node3"
    reply = await bed.locks.list(LocksRequest(name="deploy"))
    assert ([held.lock.holder for held in reply.locks], reply.leader) == (["ann@desk-1"], False)
    assert reply.locks[0].expires_in is None
    assert (await bed.locks.list(LocksRequest(name="other"))).locks == []


async def test_a_worker_knows_of_no_locks():
    changes = Changes("node5", Log(), None, timeout=1.0)  # type: ignore[arg-type]
    locks = Locks("node5", changes, None, locks=lambda: None, leader=lambda: "node1", barrier=Log().barrier)
    with pytest.raises(NotLeader) as refused:
        await locks.list(LocksRequest())
    assert refused.value.leader == "node1"


async def test_the_late_write_of_a_deposed_holder_is_refused():
    bed = Bed()
    keys = Keys("node1", bed.changes, keys=lambda: (0, {}), leader=lambda: "node1", barrier=bed.log.barrier)
    await bed.acquire("ann@desk-1")
    mine = PutKeyRequest(id="session-1:2", key="version", value=b"1", lock="deploy", token=1)
    assert (await keys.put(mine, ANN)).changed
    bed.log.put(encode(ExpireLock(name="deploy", token=1)), "end")
    with pytest.raises(InvalidRequest, match="no longer held with token 1: nobody holds it"):
        await keys.put(PutKeyRequest(id="session-1:3", key="version", value=b"2", lock="deploy", token=1), ANN)
    assert (await bed.acquire("bob@desk-2", BOB, id="session-2:1")).token == 2
    with pytest.raises(InvalidRequest, match="no longer held with token 1: bob@desk-2 holds it with token 2"):
        await keys.put(PutKeyRequest(id="session-1:4", key="version", value=b"2", lock="deploy", token=1), ANN)
    assert bed.log.state.keys["version"].value == b"1"
