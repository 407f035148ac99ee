"""RaftNode: this control node's voice in the cluster's memory, on the agent's event loop. All decisions are Member's.

Ticks come when something arrived or when pysyncobj's next deadline has passed (ticker.py): an idle node costs next to nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from hmcore.errors import CommittedConflict, ConsensusError, HyperMeshError, InvalidRequest, NoQuorum, StorageDamaged
from hmcore.records import RaftReport
from hmcore.voters import RaftStatus
from node_agent.consensus.inspection import inspect
from node_agent.consensus.leading.handover import Handed
from node_agent.consensus.limits import DEFAULT_LIMITS, Limits
from node_agent.consensus.log.disk import Directory
from node_agent.consensus.member import Member
from node_agent.consensus.outlook import Figures
from node_agent.consensus.protocol import engine
from node_agent.consensus.protocol.engine import Timing
from node_agent.consensus.protocol.transport import Links
from node_agent.consensus.statemachine.checkpoints import Checkpoints
from node_agent.consensus.statemachine.commands import Proposal, Receipt
from node_agent.consensus.statemachine.history import History
from node_agent.consensus.statemachine.state import State
from node_agent.consensus.ticker import Ticker
from node_agent.consensus.voters import voterchange
from node_agent.consensus.voters.enrolment import FormationStatus
from node_agent.consensus.voters.reconfiguration import Add, Remove

logger = logging.getLogger(__name__)

_SLACK = 0.001  # seconds: pysyncobj's deadlines must have passed, not merely be reached
_NAP = 1.0  # seconds between ticks at most
_GRACE = 0.05  # seconds: whoever has a deadline of its own says better what went wrong

T = TypeVar("T")


class RaftNode:
    """Everything runs on the event loop's thread; nothing blocks it but the journal's fdatasync.

    `on_applied` gets every new state; `on_fatal` what made this node stop for good, which `run` raises, too. `on_sync` hears how many
    seconds each fdatasync of a file took.
    """

    def __init__(
        self,
        *,
        name: str,
        voters: Sequence[str],
        directory: Path,
        settings: Timing,
        links: Links,
        call_timeout: float,
        on_applied: Callable[[State], None],
        on_fatal: Callable[[BaseException], None],
        clock: Callable[[], float] = engine.now,
        wall_clock: Callable[[], float] = time.time,
        limits: Limits = DEFAULT_LIMITS,
        on_sync: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._name = name
        self._voters = voters
        self._directory = directory
        self._settings = settings
        self._links = links
        self._call_timeout = call_timeout
        self._on_applied = on_applied
        self._on_fatal = on_fatal
        self._clock = clock
        self._wall_clock = wall_clock
        self._limits = limits
        self._on_sync = on_sync
        self._ticked = asyncio.Event()
        self._ticker: Ticker | None = None
        self._connected: set[str] = set()  # outlives a restart of this component, as the connections do
        self._member: Member | None = None

    # --- life

    async def open(self) -> None:
        """Load snapshot and journal. Raises StorageDamaged, StorageFull, ConsensusError (the directory is in use)."""
        disk = Directory(self._directory, self._on_sync)
        ticker = Ticker(self._tick)
        member = Member(
            name=self._name,
            voters=self._voters,
            disk=disk,
            timing=self._settings,
            links=self._links,
            clock=self._clock,
            rng=random.Random(),
            wake=ticker.wake,
            on_applied=self._on_applied,
            limits=self._limits,
        )
        try:
            member.open()
        except BaseException as error:
            member.close()
            self._name_the_remedy(error)
            raise
        if member.journal.torn:
            logger.warning("%s: dropped %d bytes of a write that a crash interrupted", member.journal.path, member.journal.torn)
        if member.disregarded:
            logger.warning("%s", member.disregarded)
        self._member, self._ticker = member, ticker
        for peer in sorted(self._connected):
            member.peer_up(peer)

    async def run(self) -> None:
        """Take part until stop(). Raises what made this node stop by itself."""
        member = self._opened()
        assert self._ticker is not None
        await self._ticker.run()
        if member.failure is not None and self._member is member:
            self._name_the_remedy(member.failure)
            self._on_fatal(member.failure)
            raise member.failure

    def _tick(self) -> float | None:
        member = self._member
        if member is None or member.failure is not None:
            return None
        member.tick()
        ticked, self._ticked = self._ticked, asyncio.Event()
        ticked.set()
        if member.failure is not None:
            return None
        return min(_NAP, max(0.0, member.next_tick() - self._clock()) + _SLACK)

    def _name_the_remedy(self, error: BaseException) -> None:
        if isinstance(error, StorageDamaged | CommittedConflict):
            error.fix = f"hmctl raft reseed {self._name}"

    async def stop(self) -> None:
        """End `run` and let go of the files. Harmless if never opened, or twice."""
        member, self._member = self._member, None
        if self._ticker is not None:
            self._ticker.end()
        if member is not None:
            member.close()

    # --- the pool's callbacks

    def peer_up(self, peer: str) -> None:
        self._connected.add(peer)
        if self._member is not None:
            self._member.peer_up(peer)

    def peer_down(self, peer: str) -> None:
        self._connected.discard(peer)
        if self._member is not None:
            self._member.peer_down(peer)

    def receive(self, peer: str, payload: bytes) -> None:
        if self._member is not None:
            self._member.receive(peer, payload)
            if self._member.failure is not None and self._ticker is not None:
                self._ticker.wake()

    # --- formation

    def formation(self) -> FormationStatus:
        return self._opened().formation()

    def permit(self, bootstrap: str) -> None:
        """This node may form the cluster and vote. Durable when it returns. Raises FormationFailed, StorageFull."""
        self._opened().permit(bootstrap)

    def reseed(self) -> None:
        """This node's empty disk belongs to a cluster that exists: it follows, and votes only when that is safe again.

        Needed only if somebody else found out: a node with an empty disk asks the other voters by itself.
        """
        self._opened().reseed()

    # --- commands

    async def propose(self, command: bytes, *, request_id: str, timeout: float | None = None, author: str = "") -> tuple[int, bytes]:
        """(log index, encoded machine.Result) of a command, once it is committed and applied here.

        Raises NotLeader (ask `leader`), NoQuorum, StorageFull or InvalidRequest. After each of the first three the command may still have
        been applied; proposing it again under the same `request_id`, here or to another leader, is right: it is applied once, unless
        more than receipts.GENERATION other sessions (of an id without one: MAX_RECEIPTS other requests) have come between.
        """
        member = self._opened()
        limit = self._call_timeout if timeout is None else timeout
        proposal = Proposal(request_id, command, self._wall_clock(), author)
        receipt: Receipt = await self._outcome(member, lambda done: member.propose(proposal, done), limit, "not committed")
        return receipt.index, receipt.result

    # --- reads and the leadership

    async def barrier(self, timeout: float | None = None) -> int:
        """The log index of a state that holds every write acknowledged before the call: whoever reads from it, or from a later one, reads
        what is true now. This node's own state is that far. Raises NotLeader (ask `leader`), NoQuorum, StorageFull."""
        member = self._opened()
        limit = self._call_timeout if timeout is None else timeout
        return await self._outcome(member, lambda done: member.barrier(done, timeout=limit), limit, "not confirmed")

    async def transfer(self, to: str | None = None, timeout: float | None = None) -> Handed:
        """Hand the leadership to the voter `to`, or to the one that is furthest ahead. Takes `timeout` seconds, and an election timeout, at
        most. Raises NotLeader (ask `leader`), InvalidRequest, NoQuorum, TransferFailed (this node goes on leading, if it can)."""
        member = self._opened()
        limit = self._call_timeout if timeout is None else timeout
        return await self._outcome(member, lambda told: member.transfer(to, told, timeout=limit), limit + _GRACE, "not handed over")

    async def _outcome(self, member: Member, begin: Callable[[Callable[[T | HyperMeshError], None]], None], limit: float, what: str) -> T:
        """What `begin` has the member tell, within `limit` seconds. Raises NoQuorum, saying what was not done, after that."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def done(outcome: T | HyperMeshError) -> None:
            if future.done():
                return
            if isinstance(outcome, HyperMeshError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        def give_up() -> None:
            error = member.outlook.no_quorum()
            error.message = f"{error.message}; {what} within {limit:g} s"
            done(error)

        begin(done)
        late = loop.call_later(limit, give_up)  # an asyncio.timeout takes three times as long
        try:
            return await future
        finally:
            late.cancel()

    async def change_voters(
        self, *, add: str = "", remove: str = "", request_id: str, timeout: float | None = None, author: str = ""
    ) -> int:
        """Add or remove one voter; the log index of the configuration that did. Harmless to repeat, here or at another leader.

        Raises what voterchange.carry_out raises.
        """
        if bool(add) == bool(remove):
            raise InvalidRequest("one voter is added or removed at a time")
        limit = self._call_timeout if timeout is None else timeout
        wish = Add(add) if add else Remove(remove)
        member = self._opened()
        return await voterchange.carry_out(member, wish, request_id=request_id, author=author, timeout=limit, ticked=self._next_tick)

    async def _next_tick(self) -> None:
        await self._ticked.wait()

    # --- what others may know

    @property
    def checkpoints(self) -> Checkpoints:
        """Hashes of the states that were applied here."""
        return Checkpoints() if self._member is None else self._member.replica.checkpoints

    @property
    def state(self) -> State:
        """The latest applied."""
        return State() if self._member is None else self._member.replica.state

    @property
    def history(self) -> History:
        """How `state` came about, of late."""
        return History() if self._member is None else self._member.replica.history

    @property
    def is_leader(self) -> bool:
        return self._member is not None and self._member.is_leader

    @property
    def caught_up(self) -> bool:
        """Leads, and its state has all that was acknowledged before it did."""
        return self._member is not None and self._member.caught_up

    @property
    def leads_in(self) -> int | None:
        """The term in which this node leads; None while it does not."""
        return self._member.term if self._member is not None and self._member.is_leader else None

    @property
    def leader(self) -> str | None:
        return None if self._member is None else self._member.leader

    @property
    def settled(self) -> bool:
        """See Outlook."""
        return self._member is not None and self._member.outlook.settled

    @property
    def trouble(self) -> str | None:
        """Why this layer is degraded (no leader, no room on the disk, ...), or None."""
        return "not open" if self._member is None else self._member.outlook.trouble

    @property
    def no_quorum(self) -> NoQuorum | None:
        """That nothing can be decided for want of voters, once that is certain: no election under way will end it."""
        return None if self._member is None else self._member.outlook.lasting_no_quorum()

    def report(self) -> RaftReport:
        return self._opened().outlook.report()

    def status(self) -> RaftStatus | None:
        """How the log stands here, closely; None while it is not open."""
        return None if self._member is None else inspect(self._member, self._clock())

    @property
    def figures(self) -> Figures | None:
        return None if self._member is None else self._member.figures

    def _opened(self) -> Member:
        if self._member is None:
            raise ConsensusError(f"the consensus layer of {self._name} is not open")
        return self._member
