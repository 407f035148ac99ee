"""A holder's side of a lock: taken, renewed while a block runs, released after it; and lost in time when it cannot be renewed.

    async with held(leader, "deploy", holder="ann@desk-3f9a", note="deploy") as lease:
        ...
        lease.check()  # before each step that only the holder may do; or wait for `lease.lost` beside the work

The lease counts from when the request that was answered was *sent*, and ends MARGIN before the lock's term has passed: the leader counts
from later and by a clock of its own (docs/adr/0074). What must not happen even if this process stands still at the wrong moment carries
`lease.token`, which whoever is written to compares (`lock` and `token` of a key's request).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from hmcore.api import Method
from hmcore.errors import HyperMeshError, InvalidRequest, LeaseLost, LockError, LockHeld, LockUnavailable
from hmcore.locks import ACQUIRE, RELEASE, RENEW, AcquireRequest, HeldLock, ReleaseRequest, RenewRequest

Req = TypeVar("Req")
Res = TypeVar("Res")

TTL = 30.0  # seconds: an operator's laptop may lose its network for that long, and nobody waits longer for one who has died
MARGIN = 0.1  # of the term: the leader's clock may run up to a ninth faster than ours (chrony corrects by 8.3 % at its fastest)
RENEWALS = 3  # in a term
PATIENCE = 15.0  # seconds for the leader to answer: its death and an election fit in
BETWEEN = 1.0  # seconds from one attempt to take a lock that another holds to the next
RETRY = 0.5  # seconds from a renewal that failed to the next, if the term is not so short
GLANCE = 1.0  # seconds between two looks at the clock: a machine that slept must notice when it wakes
FAREWELL = 5.0  # seconds for the release: it would end by itself


class Leader(Protocol):
    """Whoever leads the cluster when it is called."""

    async def call(self, method: Method[Req, Res], request: Req, *, timeout: float) -> Res:
        """Asks again under the same request while the leadership moves. Raises HyperMeshError."""


def boot_time() -> float:
    """Seconds of a clock that also goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """A lock that is ours while `held`. `lost` is set when it ends without us having given it back, which is for ever."""

    def __init__(self, name: str, holder: str, token: int, ttl: float, *, sent: float, clock: Callable[[], float] = boot_time) -> None:
        """`sent`: when the request that took it was, by `clock`."""
        self.name = name
        self.holder = holder
        self.token = token
        self.ttl = ttl
        self.lost = asyncio.Event()
        self.why = ""  # it was lost
        self._sent = sent
        self._clock = clock

    @property
    def until(self) -> float:
        """When it is over unless it is renewed, by the lease's clock."""
        return self._sent + self.ttl * (1 - MARGIN)

    @property
    def due(self) -> float:
        """When to renew it."""
        return self._sent + self.ttl / RENEWALS

    @property
    def held(self) -> bool:
        if not self.lost.is_set() and self._clock() >= self.until:
            self.lose(f"it could not be renewed for {self.ttl * (1 - MARGIN):g} s")
        return not self.lost.is_set()

    def check(self) -> None:
        """Raises LeaseLost unless the lock is ours now."""
        if not self.held:
            raise LeaseLost(f"the cluster's lock {self.name} was lost: {self.why}", fix="hmctl lock status")

    def renewed(self, sent: float) -> None:
        """A renewal that was sent at `sent` has been confirmed."""
        if self.held:
            self._sent = max(self._sent, sent)

    def lose(self, why: str) -> None:
        if not self.lost.is_set():
            self.why = why
            self.lost.set()


@asynccontextmanager
async def held(
    leader: Leader,
    name: str,
    *,
    holder: str,
    ttl: float = TTL,
    note: str = "",
    wait: float = 0.0,
    patience: float = PATIENCE,
    waiting: Callable[[HeldLock], None] = lambda other: None,
    clock: Callable[[], float] = boot_time,
) -> AsyncIterator[Lease]:
    """Hold the lock while the block runs. While another holds it, waits up to `wait` seconds; `waiting` hears of each other holder, once.

    Raises LockHeld, LockUnavailable, or what kept the leader from answering within `patience` seconds. Nothing is raised into the block.
    """
    session = uuid.uuid4().hex
    lease = await _take(leader, name, holder, ttl, note, wait, patience, waiting, clock, session)
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(_keep(lease, leader, clock), name=f"lock {name}")
        try:
            yield lease
        except BaseException as error:  # noqa: BLE001  raised below, as it is: a group would wrap it
            failure = error
        keeping.cancel()
    if lease.held:
        await _give_back(lease, leader, session)
    if failure is not None:
        raise failure


async def _take(
    leader: Leader,
    name: str,
    holder: str,
    ttl: float,
    note: str,
    wait: float,
    patience: float,
    waiting: Callable[[HeldLock], None],
    clock: Callable[[], float],
    session: str,
) -> Lease:
    deadline = clock() + wait
    attempt, known = 0, 0  # the token of the holder that was told of last
    while True:
        attempt += 1
        sent = clock()
        request = AcquireRequest(id=f"{session}:{attempt}", name=name, holder=holder, ttl=ttl, note=note)
        reply = await leader.call(ACQUIRE, request, timeout=patience)
        if reply.unavailable:
            raise LockUnavailable(reply.unavailable)
        if reply.token:
            lease = Lease(name, holder, reply.token, ttl, sent=sent, clock=clock)
            if lease.held:
                return lease
        other = reply.held
        if other is None and clock() >= deadline + patience:
            raise LockError(f"the cluster's lock {name} keeps changing hands", fix=f"hmctl lock status {name}")
        if other is not None and clock() >= deadline:
            raise LockHeld(f"the cluster's lock {name} is held by {other.lock.holder}", held=other, fix=f"hmctl lock status {name}")
        if other is not None and other.lock.token != known:
            known = other.lock.token
            waiting(other)
        await asyncio.sleep(max(0.0, min(BETWEEN, deadline - clock())) if other is not None else RETRY)


async def _keep(lease: Lease, leader: Leader, clock: Callable[[], float]) -> None:
    """Renew until it is lost."""
    due = lease.due
    while lease.held:
        now = clock()
        if now < due:
            await asyncio.sleep(min(GLANCE, due - now, lease.until - now))
            continue
        request = RenewRequest(name=lease.name, token=lease.token)
        try:
            async with asyncio.timeout(lease.until - now):
                await leader.call(RENEW, request, timeout=lease.ttl / RENEWALS)
        except InvalidRequest as error:
            lease.lose(error.message)
        except (HyperMeshError, TimeoutError):
            due = clock() + min(RETRY, lease.ttl / 20)
        else:
            lease.renewed(now)
            due = lease.due


async def _give_back(lease: Lease, leader: Leader, session: str) -> None:
    """Best effort: a lock that cannot be given back ends by itself."""
    request = ReleaseRequest(id=f"{session}:{1 << 40}", name=lease.name, token=lease.token)
    lease.lose("it was given back")
    try:
        async with asyncio.timeout(FAREWELL):
            await leader.call(RELEASE, request, timeout=FAREWELL)
    except (HyperMeshError, TimeoutError):
        return
