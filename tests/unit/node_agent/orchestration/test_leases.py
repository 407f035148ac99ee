"""How long the leader lets a lock live; and the loop that does as it says."""

from __future__ import annotations

import asyncio

import pytest

from hmcore.errors import InvalidRequest, NoQuorum, NotLeader
from hmcore.records import Lock
from node_agent.consensus.statemachine.commands import AcquireLock, ExpireLock, FormCluster, Proposal, encode, encode_batch
from node_agent.consensus.statemachine.machine import apply_batch
from node_agent.consensus.statemachine.state import State
from node_agent.orchestration import lockkeeper
from node_agent.orchestration.leases import Due, Leases
from node_agent.orchestration.lockkeeper import LockKeeper

LOCKS = {
    "deploy": Lock(name="deploy", holder="ann", token=3, ttl=30.0, index=9),
    "shop": Lock(name="shop", holder="node2", token=4, ttl=10.0, index=11),
}
END_OF_SHOP = ExpireLock(name="shop", token=4)


def leading(term: int = 1) -> Leases:
    leases = Leases()
    leases.lead(term)
    return leases


def test_every_lock_has_a_full_term_from_when_it_is_seen_first():
    leases = leading()
    assert leases.due(LOCKS, 100.0) == Due((), 110.0)
    assert leases.due(LOCKS, 109.9) == Due((), 110.0)
    assert leases.due(LOCKS, 110.0) == Due((END_OF_SHOP,), 130.0)


def test_a_renewal_begins_the_term_anew():
    leases = leading()
    leases.due(LOCKS, 100.0)
    assert leases.renew(LOCKS, "shop", 4, 108.0) is None
    assert leases.due(LOCKS, 117.9).ended == ()
    assert leases.due(LOCKS, 118.0).ended == (END_OF_SHOP,)
    assert leases.left(LOCKS["deploy"], 110.0) == 20.0


def test_what_was_proposed_to_end_is_not_renewed_any_more_and_is_proposed_until_it_is_gone():
    leases = leading()
    leases.due(LOCKS, 0.0)
    leases.due(LOCKS, 10.0)
    assert leases.renew(LOCKS, "shop", 4, 10.1) == "it was not renewed for 10 s"
    assert leases.due(LOCKS, 10.2) == Due((END_OF_SHOP,), 30.0)
    assert leases.left(LOCKS["shop"], 10.2) == 0.0
    assert leases.due({"deploy": LOCKS["deploy"]}, 10.3) == Due((), 30.0)


def test_another_leadership_begins_all_terms_anew_and_forgets_what_it_wanted_to_end():
    leases = leading(term=1)
    leases.due(LOCKS, 0.0)
    assert leases.due(LOCKS, 10.0).ended == (END_OF_SHOP,)
    leases.lead(1)
    assert leases.due(LOCKS, 10.1).ended == (END_OF_SHOP,)
    leases.lead(3)
    assert leases.due(LOCKS, 12.0) == Due((), 22.0)
    assert leases.renew(LOCKS, "shop", 4, 13.0) is None
    assert leases.due(LOCKS, 22.9).ended == ()


def test_only_the_token_that_holds_it_renews():
    leases = leading()
    assert leases.renew(LOCKS, "shop", 3, 0.0) == "node2 holds it with token 4"
    assert leases.renew(LOCKS, "other", 3, 0.0) == "nobody holds it"


def test_who_takes_a_lock_after_another_has_a_term_of_its_own():
    leases = leading()
    leases.due(LOCKS, 0.0)
    leases.due(LOCKS, 10.0)
    taken = {"shop": Lock(name="shop", holder="node3", token=5, ttl=10.0)}
    assert leases.due(taken, 10.5) == Due((), 20.5)
    assert leases.renew(taken, "shop", 5, 12.0) is None


class Log:
    """A replicated log that accepts everything at once, while `quorum` lasts."""

    def __init__(self) -> None:
        self.state = State()
        self.leads_in: int | None = 1
        self.quorum = True
        self.attempts = 0
        self.put(encode(FormCluster(id="hm-a", bootstrap="b1", level=2)), "form")

    @property
    def locks(self):
        return self.state.locks

    def put(self, command: bytes, request: str) -> tuple[int, bytes]:
        self.state, (receipt,), _ = apply_batch(self.state, encode_batch([Proposal(request, command)]), self.state.index + 1)
        return receipt.index, receipt.result

    async def propose(self, command: bytes, *, request_id: str, timeout: float, author: str = "") -> tuple[int, bytes]:
        self.attempts += 1
        await asyncio.sleep(0)
        if not self.quorum:
            raise NoQuorum("no quorum: 1 of 3 voters reachable")
        return self.put(command, request_id)


class Confirmations:
    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error


class Bed:
    def __init__(self) -> None:
        self.log = Log()
        self.barrier = Confirmations()
        self.now = 100.0
        self.keeper = LockKeeper(
            log=self.log, barrier=self.barrier, propose_timeout=1.0, request_prefix=lambda: "node1-7", clock=lambda: self.now
        )

    def take(self, name: str, ttl: float = 10.0) -> None:
        self.log.put(encode(AcquireLock(name=name, holder="ann", ttl=ttl)), f"take-{name}-{self.log.state.index}")
        self.keeper.state_changed()

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  # of objects that do not tell
                await asyncio.sleep(0.005)


@pytest.fixture
async def bed():
    bed = Bed()
    running = asyncio.create_task(bed.keeper.run())
    yield bed
    running.cancel()
    await asyncio.wait([running])


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_leader_ends_what_nobody_renews(bed):
    bed.take("deploy")
    bed.take("shop", ttl=20.0)
    await settle()
    bed.now += 10.0
    bed.keeper.poke()
    await bed.until(lambda: "deploy" not in bed.log.locks)
    assert "shop" in bed.log.locks
    assert bed.log.state.events[-1].kind == "lock.expired"


@pytest.mark.long
async def test_a_lock_with_a_shorter_term_is_looked_at_in_time(bed):
    bed.take("deploy", ttl=3600.0)
    await settle()
    bed.take("shop", ttl=1.0)
    await settle()
    bed.now += 1.0
    await bed.until(lambda: "shop" not in bed.log.locks)  # nobody pokes it


async def test_who_does_not_lead_ends_nothing_and_gives_all_a_full_term_when_it_does(bed):
    bed.log.leads_in = None
    bed.take("deploy")
    bed.now += 100.0
    bed.keeper.poke()
    await settle()
    assert bed.log.attempts == 0
    assert bed.keeper.left(bed.log.locks["deploy"]) is None
    bed.log.leads_in = 2
    bed.keeper.poke()
    await settle()
    assert bed.log.attempts == 0
    assert bed.keeper.left(bed.log.locks["deploy"]) == 10.0


async def test_a_renewal_counts_once_it_is_confirmed(bed):
    bed.take("deploy")
    await settle()
    token = bed.log.locks["deploy"].token
    bed.now += 6.0
    bed.barrier.error = NoQuorum("no quorum: 1 of 3 voters reachable")
    with pytest.raises(NoQuorum):
        await bed.keeper.renew("deploy", token)
    assert bed.keeper.left(bed.log.locks["deploy"]) == 4.0
    bed.barrier.error = None
    await bed.keeper.renew("deploy", token)
    assert bed.keeper.left(bed.log.locks["deploy"]) == 10.0
    assert bed.barrier.asked == 2
    with pytest.raises(InvalidRequest, match="deploy is no longer held with token 9: ann holds it with token 1"):
        await bed.keeper.renew("deploy", 9)


async def test_who_lost_the_leadership_meanwhile_renews_nothing(bed):
    bed.take("deploy")
    await settle()
    renewing = asyncio.create_task(bed.keeper.renew("deploy", 1))
    await asyncio.sleep(0)
    bed.log.leads_in = None
    with pytest.raises(NotLeader):
        await renewing


async def test_without_a_quorum_an_end_is_tried_again_without_hurry(bed, monkeypatch, caplog):
    monkeypatch.setattr(lockkeeper, "RETRY", 0.02)
    bed.take("deploy")
    await settle()
    bed.log.quorum = False
    bed.now += 10.0
    bed.keeper.poke()
    await bed.until(lambda: bed.log.attempts >= 3)
    assert caplog.text.count("cannot record that a lock has ended") == 1
    with pytest.raises(InvalidRequest, match="it was not renewed for 10 s"):  # each of those attempts may still be committed
        await bed.keeper.renew("deploy", 1)
    bed.log.quorum = True
    await bed.until(lambda: not bed.log.locks)
