"""The lock of the cluster as deploy, config apply and reset take it: who is at work is said, and no repair is kept waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from hmcore.errors import HyperMeshError, InvalidRequest, LeaseLost, LockHeld, LockUnavailable, NoQuorum, PeerUnreachable
from hmcore.lease import Lease
from hmcore.locks import HeldLock
from hmcore.records import Lock
from hmctl.actions.claim import Claim

OTHER = HeldLock(lock=Lock(name="deploy", holder="bob@desk-1", token=4, ttl=30.0, note="config apply", unix_time=1_000_000.0))


class Cluster:
    """Gives the lock, or says why not."""

    def __init__(self, error: HyperMeshError | None = None) -> None:
        self.error = error
        self.asked = 0
        self.given_back = 0
        self.lease = Lease("deploy", "ann@desk-2", 7, 30.0, sent=0.0, clock=lambda: 1.0)
        self.said: list[str] = []
        self.warned: list[str] = []

    @asynccontextmanager
    async def hold(self, waiting: Callable[[HeldLock], None]) -> AsyncIterator[Lease]:
        self.asked += 1
        if self.error is not None:
            waiting(OTHER)
            raise self.error
        yield self.lease
        self.given_back += int(self.lease.held)

    def claim(self, wait: float = 0.0) -> Claim:
        return Claim(self.hold, wait=wait, say=self.said.append, warn=self.warned.append)


async def test_it_is_taken_once_and_given_back():
    cluster = Cluster()
    async with cluster.claim() as claim:
        claim.check()  # nothing was taken, nothing is guarded
        await claim.take()
        await claim.take()
        claim.check()
        assert cluster.given_back == 0
    assert (cluster.asked, cluster.given_back) == (1, 1)


async def test_the_second_is_told_who_is_at_work_since_when_and_what_for():
    cluster = Cluster(LockHeld("held", held=OTHER))
    async with cluster.claim() as claim:
        with pytest.raises(LockHeld, match=r"bob@desk-1 is changing this cluster \(`hmctl config apply`, since \d\d:") as refused:
            await claim.take()
    assert "--lock-wait" in (refused.value.fix or "")
    assert "ends within 30 s" in (refused.value.fix or "")
    assert cluster.said == []


async def test_who_waits_says_for_whom():
    cluster = Cluster(LockHeld("held", held=OTHER))
    async with cluster.claim(wait=60.0) as claim:
        with pytest.raises(LockHeld):
            await claim.take()
    assert len(cluster.said) == 1
    assert "waiting up to 1m" in cluster.said[0]


@pytest.mark.parametrize("error", [NoQuorum("no quorum: 1 of 3 voters reachable"), PeerUnreachable("no control node answers")])
async def test_a_cluster_that_cannot_give_it_keeps_no_repair_waiting(error):
    cluster = Cluster(error)
    async with cluster.claim() as claim:
        await claim.take()
        claim.check()
    assert len(cluster.warned) == 1
    assert error.message in cluster.warned[0]
    assert "only the hosts are locked" in cluster.warned[0]


@pytest.mark.parametrize("error", [LockUnavailable("the cluster is at feature level 1"), InvalidRequest("no method 'locks.acquire' here")])
async def test_an_older_cluster_is_deployed_to_as_ever(error):
    cluster = Cluster(error)
    async with cluster.claim() as claim:
        await claim.take()
        claim.check()
    assert (cluster.warned, cluster.said) == ([], [])


async def test_a_lock_that_was_lost_stops_what_it_guards():
    cluster = Cluster()
    async with cluster.claim() as claim:
        await claim.take()
        cluster.lease.lose("eve@desk-3 holds it with token 8")
        with pytest.raises(LeaseLost, match="deploy was lost: eve@desk-3 holds it with token 8"):
            claim.check()
    assert cluster.given_back == 0


async def test_with_the_cluster_goes_its_lock():
    cluster = Cluster()
    async with cluster.claim() as claim:
        await claim.take()
        claim.abandon()
        claim.check()
    assert cluster.given_back == 0
