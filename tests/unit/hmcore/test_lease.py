"""A holder's side of a lock, in virtual time, with a leader in memory that may be deaf, slow or another one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from hmcore.api import ChangeReply
from hmcore.errors import HyperMeshError, InvalidRequest, LeaseLost, LockHeld, LockUnavailable, NoQuorum
from hmcore.lease import Lease, held
from hmcore.locks import ACQUIRE, RELEASE, RENEW, AcquireReply, HeldLock, RenewReply
from hmcore.records import Lock


class Clock:
    """The loop's time jumps to the next timer at once. Half a second of it is half a second of every `clock()` here."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0.0  # the machine: nobody's timers go on, the boot clock does

    def boot(self) -> float:
        return self.now + self.slept

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.SelectorEventLoop()
        select = loop._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None) -> Any:
            self.now += timeout or 0.0
            return select(0)

        loop._selector.select = jump  # type: ignore[attr-defined]
        loop.time = lambda: self.now  # type: ignore[method-assign]
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main)


class Leader:
    """Gives the lock to whoever asks while nobody has it. `delay`: seconds that each answer takes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock: Lock | None = None
        self.tokens = 0
        self.delay = 0.0
        self.error: HyperMeshError | None = None
        self.calls: list[tuple[float, str]] = []
        self.requests: list[str] = []
        self.unavailable = ""

    def take(self, holder: str) -> int:
        self.tokens += 1
        self.lock = Lock(name="deploy", holder=holder, token=self.tokens, ttl=30.0)
        return self.tokens

    async def call(self, method: Any, request: Any, *, timeout: float) -> Any:
        self.calls.append((self.clock.now, method.name))
        async with asyncio.timeout(timeout):
            await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        if method is ACQUIRE:
            self.requests.append(request.id)
            if self.unavailable:
                return AcquireReply(index=1, unavailable=self.unavailable)
            if self.lock is not None and self.lock.holder != request.holder:
                return AcquireReply(index=1, held=HeldLock(lock=self.lock, expires_in=30.0))
            return AcquireReply(index=1, token=self.lock.token if self.lock else self.take(request.holder))
        if method is RENEW:
            if self.lock is None or self.lock.token != request.token:
                raise InvalidRequest("the lock deploy is no longer held with token 1: nobody holds it")
            return RenewReply(index=1)
        assert method is RELEASE
        self.requests.append(request.id)
        self.lock = None
        return ChangeReply(index=1, changed=True)

    def times(self, method: Any) -> list[float]:
        return [at for at, name in self.calls if name == method.name]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leader(clock) -> Leader:
    return Leader(clock)


def test_a_lease_counts_from_when_its_request_was_sent_and_ends_early(clock):
    lease = Lease("deploy", "ann", 1, 30.0, sent=2.0, clock=clock.boot)
    assert (lease.due, lease.until) == (12.0, 29.0)
    clock.now = 28.9
    lease.check()
    clock.now = 29.0
    with pytest.raises(LeaseLost, match="deploy was lost: it could not be renewed for 27 s"):
        lease.check()
    lease.renewed(28.0)  # an answer that comes too late
    assert not lease.held
    assert lease.lost.is_set()


def test_an_older_renewal_does_not_shorten_it(clock):
    lease = Lease("deploy", "ann", 1, 30.0, sent=0.0, clock=clock.boot)
    lease.renewed(10.0)
    lease.renewed(5.0)
    assert lease.until == 37.0


def test_it_is_renewed_thrice_a_term_and_given_back(clock, leader):
    async def main() -> None:
        async with held(leader, "deploy", holder="ann", clock=clock.boot) as lease:
            assert lease.token == 1
            await asyncio.sleep(95)
            lease.check()
            assert leader.lock is not None
        assert leader.lock is None
        assert not lease.held

    clock.run(main())
    assert leader.times(RENEW) == pytest.approx([10.0 * number for number in range(1, 10)], abs=0.1)
    first, last = leader.requests
    assert first.partition(":")[0] == last.partition(":")[0]
    assert int(first.partition(":")[2]) < int(last.partition(":")[2])


def test_it_survives_failures_that_end_before_the_term_does(clock, leader):
    async def main() -> None:
        async with held(leader, "deploy", holder="ann", clock=clock.boot) as lease:
            await asyncio.sleep(5)
            leader.error = NoQuorum("no quorum: 1 of 3 voters reachable")
            await asyncio.sleep(20)  # the first failed renewal was at 10
            assert lease.held
            leader.error = None
            await asyncio.sleep(100)
            assert lease.held

    clock.run(main())


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_it_is_lost_before_the_leader_may_end_it_and_for_ever(clock, leader, how):
    async def main() -> None:
        async with held(leader, "deploy", holder="ann", clock=clock.boot) as lease:
            await asyncio.sleep(15)  # renewed at 10
            if how == "refused":
                leader.error = NoQuorum("no quorum")
            else:
                leader.delay = 1000.0
            async with asyncio.timeout(60):
                await lease.lost.wait()
            assert clock.now == pytest.approx(10 + 27, abs=0.05)
            leader.error, leader.delay = None, 0.0
            await asyncio.sleep(30)
            with pytest.raises(LeaseLost):
                lease.check()

    clock.run(main())
    assert leader.times(RELEASE) == []  # not ours to give back


def test_it_is_lost_at_once_when_the_leader_says_so(clock, leader):
    async def main() -> None:
        async with held(leader, "deploy", holder="ann", clock=clock.boot) as lease:
            leader.lock = None
            await lease.lost.wait()
            assert clock.now == pytest.approx(10, abs=0.01)
            with pytest.raises(LeaseLost, match="no longer held with token 1: nobody holds it"):
                lease.check()

    clock.run(main())


def test_a_machine_that_slept_notices_when_it_wakes(clock, leader):
    async def main() -> None:
        async with held(leader, "deploy", holder="ann", clock=clock.boot) as lease:
            await asyncio.sleep(1.5)
            clock.slept = 3600.0
            assert not lease.held  # whoever asks is told at once; whoever waits, within the second
        async with held(leader, "deploy", holder="ann", clock=clock.boot) as lease:
            await asyncio.sleep(1.5)
            clock.slept += 3600.0
            began = clock.now
            await lease.lost.wait()
            assert clock.now - began <= 1.0

    clock.run(main())


def test_an_answer_that_took_the_whole_term_is_asked_for_again(clock, leader):
    async def main() -> None:
        leader.delay = 28.0

        async def soon() -> None:
            await asyncio.sleep(20)
            leader.delay = 0.0

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(soon())
            async with held(leader, "deploy", holder="ann", patience=60.0, clock=clock.boot) as lease:
                assert lease.held
                assert lease.token == 1  # told again
                assert lease.until == pytest.approx(clock.now + 27, abs=0.1)

    clock.run(main())
    assert leader.requests[0] != leader.requests[1]


def test_who_may_not_wait_is_told_who_holds_it(clock, leader):
    leader.take("bob@desk-2")

    async def main() -> None:
        with pytest.raises(LockHeld, match="deploy is held by bob@desk-2") as refused:
            async with held(leader, "deploy", holder="ann", clock=clock.boot):
                pass
        assert refused.value.held.lock.token == 1

    clock.run(main())
    assert len(leader.calls) == 1


def test_who_waits_has_it_soon_after_it_is_free_and_hears_of_each_holder_once(clock, leader):
    leader.take("bob@desk-2")
    heard: list[str] = []

    async def main() -> None:
        async def change() -> None:
            await asyncio.sleep(3.3)
            leader.take("eve@desk-3")
            await asyncio.sleep(3)
            leader.lock = None

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(change())
            async with held(
                leader, "deploy", holder="ann", wait=60.0, waiting=lambda other: heard.append(other.lock.holder), clock=clock.boot
            ):
                assert clock.now == pytest.approx(7, abs=0.5)

    clock.run(main())
    assert heard == ["bob@desk-2", "eve@desk-3"]
    assert len(set(leader.requests)) == len(leader.requests)


def test_who_waits_in_vain_is_told_at_the_deadline(clock, leader):
    leader.take("bob@desk-2")

    async def main() -> None:
        with pytest.raises(LockHeld):
            async with held(leader, "deploy", holder="ann", wait=4.5, clock=clock.boot):
                pass
        assert clock.now == pytest.approx(4.5, abs=0.1)

    clock.run(main())


def test_a_cluster_that_gives_no_locks_yet_says_why(clock, leader):
    leader.unavailable = "the cluster is at feature level 1"

    async def main() -> None:
        with pytest.raises(LockUnavailable, match="feature level 1"):
            async with held(leader, "deploy", holder="ann", clock=clock.boot):
                pass

    clock.run(main())


def test_what_fails_inside_comes_out_as_it_is_and_the_lock_is_free(clock, leader):
    async def main() -> None:
        with pytest.raises(ValueError, match="inside"):
            async with held(leader, "deploy", holder="ann", clock=clock.boot):
                raise ValueError("inside")
        assert leader.lock is None

        async def interrupted() -> None:
            async with held(leader, "deploy", holder="ann", clock=clock.boot):
                await asyncio.sleep(1000)

        task = asyncio.create_task(interrupted())
        await asyncio.sleep(1)
        assert leader.lock is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert leader.lock is None

    clock.run(main())


def test_a_release_that_nobody_hears_does_not_keep_anybody(clock, leader):
    async def main() -> None:
        async with held(leader, "deploy", holder="ann", clock=clock.boot):
            leader.delay = 1000.0
        assert clock.now <= 5.1

    clock.run(main())
