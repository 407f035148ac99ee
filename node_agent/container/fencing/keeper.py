"""The agent's side of the fence: keeps the node's lease while there is something exclusive here, writes down until when it lasts, and lets
containers through their gates. chain.py decides."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from hmcore.apps.calls import LeaseReply, LeaseRequest
from hmcore.errors import HyperMeshError, NoLease
from node_agent.container.fencing.chain import RENEW, Chain, Permit, answered, permit
from node_agent.container.fencing.fence import LEASE, watched
from node_agent.container.fencing.gates import Gates
from node_agent.container.fencing.lease import Lease, boot_clock, boot_id, encode
from node_agent.container.info import ALIVE, EXCLUSIVE, ContainerInfo
from node_agent.waiting import woken

AGAIN = 0.25  # seconds from a question that was not answered to the next
PATIENCE = 1 / 3  # of a lease, in which a question must be answered

log = logging.getLogger(__name__)


class Keeper:
    """See executor.Fencing. `trouble`: why nothing exclusive may run, or be started, here, though there is something."""

    def __init__(
        self,
        root: Path,
        ask: Callable[[LeaseRequest], Awaitable[LeaseReply]],
        *,
        lease: float,
        known: Callable[[], int],
        on_change: Callable[[], None],
        clock: Callable[[], float] = boot_clock,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        """`root`: the fence's folder. `ask` the leader; raises HyperMeshError. `lease`: its length in seconds. `known`: the log index as of
        which this node knows the state. `on_change`: what may run here, or be started, is otherwise than before."""
        self._root = root
        self._gates = Gates(root)
        self._ask = ask
        self._lease = lease
        self._known = known
        self._on_change = on_change
        self._clock = clock
        self._boot = boot
        self._chain: Chain | None = None
        self._told: Permit | None = None
        self._behind = False
        self._failures = 0
        self._needed = asyncio.Event()
        self._poked = asyncio.Event()
        self.trouble: str | None = None

    # --- what others say

    def need(self, exclusive: bool, *, forsaken: bool = False) -> None:
        """Whether anything exclusive is to run here, or to end. What may still run behind a gate counts, too. `forsaken`: all of it is to
        end, and Docker does not answer. Then the fence has to end it: the lease is not asked for any more."""
        if not forsaken and (exclusive or self._gates.any):
            self._needed.set()
        else:
            self._needed.clear()
            self.trouble = None

    def poke(self) -> None:
        """The leader is another one."""
        self._poked.set()

    def state_changed(self) -> None:
        """It has gone on."""
        if self._behind and self._chain is not None and self._known() >= self._chain.index:
            self._notice()

    # --- what may run

    def permit(self) -> Permit:
        now = self._clock()
        return permit(self._chain, known=self._known(), watched=watched(self._root, self._boot(), now), lease=self._lease, now=now)

    def cover(self, containers: Mapping[str, ContainerInfo]) -> None:
        """What runs behind no gate (somebody has cleared the folder) is put behind one, or the fence would not know of it. Where that fails
        there is no lease."""
        running = [c for c in containers.values() if c.labels.get(EXCLUSIVE) == "1" and c.allocation and c.state in ALIVE]
        if not running or self._chain is None or not self._chain.lasts(self._clock()):
            return  # the second: it is to be killed, and no gate must be opened
        try:
            listed = self._gates.listed(shut=False) | self._gates.listed(shut=True)
            for container in running:
                if container.id not in listed:
                    self._gates.open(container.allocation)
                    self._gates.list(container.allocation, container.id)
        except OSError as error:
            log.warning("what is exclusive cannot be put behind gates in %s: %s", self._root, error.strerror)
            self._chain = None

    # --- gates, from the threads that talk to Docker

    def open(self, allocation: str, lease: int) -> None:
        """Before a container of it is made, or started. `lease`: Permit.lease, when that was decided. Raises NoLease."""
        self._require(lease)
        try:
            self._gates.open(allocation)
        except OSError as error:
            raise NoLease(f"its gate cannot be opened: {error.strerror}", fix=f"ls -l {self._root}") from error

    def enter(self, allocation: str, container: str, lease: int) -> None:
        """The last step before it is started. It is looked at the lease once more: a gate that is open now, the fence shuts at its end, and
        knows by what is listed what to kill. Raises NoLease."""
        try:
            self._gates.list(allocation, container)
        except FileNotFoundError as error:
            raise NoLease("its gate has been shut") from error
        except OSError as error:
            raise NoLease(f"its gate cannot be written: {error.strerror}", fix=f"ls -l {self._root}") from error
        self._require(lease)

    def leave(self, allocation: str, container: str) -> None:
        """It was removed."""
        try:
            self._gates.remove(allocation, container)
        except OSError as error:
            raise NoLease(f"its gate cannot be removed: {error.strerror}", fix=f"ls -l {self._root}") from error

    def _require(self, lease: int) -> None:
        now = self.permit()
        why = now.barred or now.held or ("" if now.lease == lease else "the lease under which it was to be started has ended")
        if why:
            raise NoLease(why)

    # --- the lease

    async def run(self) -> None:
        """Until cancelled: then the lease ends by itself."""
        due = self._clock()
        while True:
            await self._needed.wait()
            self._poked.clear()
            if self._clock() >= due:
                due = await self._renew()
            self._notice()
            end = self._chain.until if self._chain is not None and self._chain.lasts(self._clock()) else due
            await self._nap(min(due, end) - self._clock())
            if self._chain is None or not self._chain.lasts(self._clock()):
                due = min(due, self._clock())  # whatever woke us may let the leader answer now

    async def _renew(self) -> float:
        """Ask. When to ask again."""
        sent = self._clock()
        anew = self._chain is None or not self._chain.lasts(sent)
        try:
            async with asyncio.timeout(PATIENCE * self._lease):
                reply = await self._ask(LeaseRequest(anew=anew))
        except TimeoutError:
            return self._failed("the leader does not answer in time")
        except HyperMeshError as error:
            return self._failed(error.message)
        chain = answered(self._chain, reply, anew=anew, sent=sent, longest=self._lease, now=self._clock())
        if chain is None:
            self._chain = None
            return self._failed("the leader's answer came too late")
        try:
            self._write(chain)
        except OSError as error:
            return self._failed(f"{self._root / LEASE} cannot be written: {error.strerror}")
        self._chain, self._failures = chain, 0
        return sent + RENEW * self._lease

    def _failed(self, why: str) -> float:
        self._failures += 1
        if self._failures == 1:
            log.info("the lease for exclusive containers is not renewed: %s", why)
        return self._clock() + min(AGAIN * 2.0 ** min(self._failures - 1, 10), RENEW * self._lease)

    def _write(self, chain: Chain) -> None:
        """Before anything is started under it; whole or not at all."""
        self._gates.prepare()
        beside = self._root / f"{LEASE}.new"
        beside.write_bytes(encode(Lease(self._boot(), chain.until)))
        os.replace(beside, self._root / LEASE)

    def _notice(self) -> None:
        """Tell of what is otherwise now."""
        now = self.permit()
        self._behind = self._chain is not None and self._known() < self._chain.index
        if self._needed.is_set():
            self.trouble = now.barred or now.held or None
        if now != self._told:
            self._told = now
            self._on_change()

    async def _nap(self, seconds: float) -> None:
        await woken(self._poked, max(seconds, 0.01))
