"""Holders of locks beside a simulated cluster: what leases.py and lease.py decide, on real members, with clocks that run at other rates.

`Locks(world).begin()` before the world runs. A holder believes that it holds a lock from the answer on until its lease says otherwise. It
is checked whenever one begins to believe that nobody else does, by that one's own clock: two beliefs overlap only if one begins within
the other. Calls to nodes, and answers, take their time, get lost, and wait for a node that stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from raft_sim_checks import Violation
from raft_sim_machine import Machine
from raft_sim_world import World

from hmcore.errors import HyperMeshError
from hmcore.lease import Lease
from hmcore.records import Lock
from node_agent.consensus.statemachine.commands import AcquireLock, Applied, Command, Proposal, Receipt, ReleaseLock, decode_result, encode
from node_agent.orchestration.leases import Leases

TTL = 1.5
NAMES = ("deploy", "shop")
IMPATIENT = (0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 2.0)
PATIENT = (0.2, 3.0)
SLOWEST = 4.0  # seconds that a call, or its answer, takes


@dataclass(frozen=True)
class Rules:
    """What makes locks safe; each can be left out, to see that it is missed."""

    confirms: bool = True  # a renewal counts once a majority has confirmed, after it came, that the leader leads
    rearms: bool = True  # a new leader gives all locks a full term
    from_sent: bool = True  # a holder counts from when it sent
    drift: float = 0.05  # clocks run up to so much too fast or too slow


@dataclass
class Keeper:
    """A machine's part: what an agent keeps in memory, so another one after each start."""

    machine: Machine
    rate: float
    rules: Rules
    incarnation: int = -1
    leases: Leases = field(default_factory=Leases)
    tried: dict[tuple[str, int], float] = field(default_factory=dict)
    stands_until: float = 0.0
    waiting: list[Callable[[], None]] = field(default_factory=list)  # what it reads first when it goes on

    @property
    def now(self) -> float:
        """It goes on while the machine stands still: locks end earlier than they would."""
        return self.machine.world.now * self.rate

    @property
    def locks(self) -> dict[str, Lock]:
        member = self.machine.member
        return {} if member is None else dict(member.replica.state.locks)

    def lead(self) -> bool:
        """Whether this machine leads, as far as it knows. Its leases are those of the term then."""
        machine = self.machine
        if machine.member is None:
            return False
        if machine.incarnation != self.incarnation:
            self.incarnation, self.leases = machine.incarnation, Leases()
        if not self.rules.rearms:
            self.leases.lead(0)
            self.leases.due(self.locks, self.now)  # it counts all the time, from when it saw the lock
        if not machine.leads:
            return False
        if self.rules.rearms:
            self.leases.lead(machine.member.term)
        return True

    def renew(self, name: str, token: int) -> bool:
        return self.leases.renew(self.locks, name, token, self.now) is None


class Holder:
    """Wants one lock, again and again."""

    def __init__(self, locks: Locks, name: str, lock: str, rate: float) -> None:
        self.name = name
        self.lock = lock
        self.lease: Lease | None = None
        self.giver: Keeper | None = None
        self._locks = locks
        self._rnd = locks.world.rnd
        self._rate = rate
        self._hold = 0  # each is a session of its own, as in hmcore.lease.held: receipts protect none from another
        self._number = 0
        self._waits_until = 0.0  # for an answer
        self._asked = 0  # calls to take it so far: the answer to one that was given up is heard by nobody
        self._silent = False

    def clock(self) -> float:
        return self._locks.world.now * self._rate

    @property
    def believes(self) -> bool:
        return self.lease is not None and self.lease.held

    def act(self) -> None:
        if not self._locks.over:
            self._act()
            self._locks.world.after(self._rnd.uniform(0.02, 0.1), self.act)

    def _act(self) -> None:
        now, lease = self.clock(), self.lease
        if lease is not None and not lease.held:
            self._locks.world.seen["lease lost"] += 1
            self._begin_anew()
        elif lease is None:
            if now >= self._waits_until:
                self._waits_until = now + self._rnd.choice(self._locks.patience)
                if self._rnd.random() < 0.7:
                    self._number += 1  # else it is the same request again
                self._asked += 1
                self._locks.acquire(self, self._request(), now, self._asked)
        elif self._rnd.random() < 0.005:
            self._silent = True  # it believes on until its time is over
        elif self._rnd.random() < 0.01:
            self._number += 1
            self._locks.release(self, lease.token, self._request())
            self._begin_anew()
        elif not self._silent and now >= max(lease.due, self._waits_until):
            self._waits_until = now + 0.3
            self._locks.renew(self, lease, now)

    def _request(self) -> str:
        return f"{self.name}-{self._hold}:{self._number}"

    def _begin_anew(self) -> None:
        self.lease, self._silent, self._waits_until = None, False, 0.0
        self._asked += 1
        self._hold += 1
        self._number = 0

    def refused(self, asked: int) -> None:
        if asked == self._asked and self.lease is None:
            self._waits_until = self.clock() + 0.1

    def got(self, token: int, sent: float, asked: int, keeper: Keeper) -> None:
        if asked != self._asked:
            return
        sent = sent if self._locks.rules.from_sent else self.clock()
        lease = Lease(self.lock, self.name, token, TTL, sent=sent, clock=self.clock)
        if self.lease is None and lease.held:
            self._locks.begins(self, token)
            self.lease, self.giver = lease, keeper
            self._waits_until = 0.0


class Locks:
    def __init__(
        self, world: World, rules: Rules | None = None, holders: int = 3, *, pauses: bool = False, patience: Sequence[float] = IMPATIENT
    ) -> None:
        """`holders` of each lock. `patience`: seconds that one may wait for an answer before it asks somebody else.

        `pauses`: leaders stand still so often that others replace them behind their backs, and holders renew only where they were given
        the lock: whoever renews elsewhere, too, makes good what a deposed leader promised.
        """
        self.world = world
        self.rules = rules or Rules()
        self.over = False
        self.patience = patience
        self._pauses = pauses
        self._granted: dict[str, tuple[int, str]] = {}  # by lock: the largest token that anybody was told, and whom
        self._requests = 0
        rnd, drift = world.rnd, self.rules.drift
        rates = (1 - drift, 1 + drift)
        self._keepers = {name: Keeper(machine, rnd.choice(rates), self.rules) for name, machine in world.machines.items()}
        self._holders = [Holder(self, f"{lock}{i}", lock, rnd.choice(rates)) for lock in NAMES for i in range(holders)]

    def begin(self) -> None:
        self.world.after(0.5, self._round)
        for holder in self._holders:
            self.world.after(self.world.rnd.uniform(1.0, 2.0), holder.act)
        self.world.epilogue.append(self._end)
        if self._pauses:
            self.world.after(2.0, self._pause)

    def begins(self, holder: Holder, token: int) -> None:
        """`holder` has reason to believe that it holds its lock."""
        self.world.seen["lease"] += 1
        for other in self._holders:
            if other is not holder and other.lock == holder.lock and other.believes:
                raise Violation("two holders of a lock")
        before, whose = self._granted.get(holder.lock, (0, ""))
        if token < before or (token == before and whose != holder.name):
            raise Violation("a token was not larger than those before")
        self._granted[holder.lock] = (token, holder.name)

    def _end(self) -> None:
        """Nobody renews any more: all locks must end, in time."""
        self.over = True
        self.world.until(self.world.now + SLOWEST)  # what is on its way still arrives, and may take a lock
        self.world.until(self.world.now + TTL / (1 - self.rules.drift) + 1.0)  # there is a leader, which looks twenty times a second
        if any(keeper.locks for keeper in self._keepers.values() if keeper.machine.leads):
            raise Violation("a lock outlives its term")

    def _pause(self) -> None:
        if self.world.faulty:
            for keeper in self._keepers.values():
                if keeper.machine.leads and keeper.machine.responsive:
                    seconds = self.world.rnd.uniform(0.9, 1.6)
                    keeper.stands_until = keeper.machine.paused_until = self.world.now + seconds
                    self.world.after(seconds, partial(self._go_on, keeper))  # before it ticks, and learns that it leads no more
            self.world.after(self.world.rnd.uniform(1.5, 3.0), self._pause)

    def _go_on(self, keeper: Keeper) -> None:
        waiting, keeper.waiting = keeper.waiting, []
        for arrive in waiting:
            arrive()

    # --- leaders

    def _round(self) -> None:
        for keeper in self._keepers.values():
            if keeper.machine.responsive and keeper.lead():
                for command in keeper.leases.due(keeper.locks, keeper.now).ended:
                    key = (command.name, command.token)
                    if keeper.now >= keeper.tried.get(key, 0.0):
                        keeper.tried[key] = keeper.now + 0.3
                        self.world.seen["end proposed"] += 1
                        self._propose(keeper.machine, command, "", lambda outcome: None)
        self.world.after(0.05, self._round)

    def _propose(self, machine: Machine, command: Command, id: str, done: Callable[[Receipt | HyperMeshError], None]) -> None:
        self._requests += 1
        proposal = Proposal(id or f"end-{self._requests}", encode(command))
        machine.step(lambda member: member.propose(proposal, done))

    # --- calls

    def acquire(self, holder: Holder, id: str, sent: float, asked: int) -> None:
        command = AcquireLock(name=holder.lock, holder=holder.name, ttl=TTL)

        def arrived(keeper: Keeper) -> None:
            other = keeper.locks.get(holder.lock)
            if other is None or other.holder == holder.name:
                self._propose(keeper.machine, command, id, lambda outcome: applied(keeper, outcome))
            else:
                self._later(lambda: holder.refused(asked))

        def applied(keeper: Keeper, outcome: Receipt | HyperMeshError) -> None:
            match decode_result(outcome.result) if isinstance(outcome, Receipt) else None:
                case Applied(token=token) if keeper.lead() and keeper.renew(holder.lock, token):
                    self._later(lambda: holder.got(token, sent, asked, keeper))
                case _:
                    self._later(lambda: holder.refused(asked))

        self._call(arrived)

    def renew(self, holder: Holder, lease: Lease, sent: float) -> None:
        def arrived(keeper: Keeper) -> None:
            if self.rules.confirms:
                keeper.machine.step(lambda member: member.barrier(lambda outcome: confirmed(keeper, outcome), timeout=2.0))
            else:
                confirmed(keeper, 0)

        def confirmed(keeper: Keeper, outcome: int | HyperMeshError) -> None:
            if isinstance(outcome, HyperMeshError) or not keeper.lead():
                return
            if keeper.renew(holder.lock, lease.token):
                self.world.seen["renewed"] += 1
                self._later(lambda: lease.renewed(sent if self.rules.from_sent else holder.clock()))
            else:
                self.world.seen["renewal refused"] += 1
                self._later(lambda: lease.lose("refused"))

        self._call(arrived, holder.giver if self._pauses else None)

    def release(self, holder: Holder, token: int, id: str) -> None:
        command = ReleaseLock(name=holder.lock, token=token)
        self._call(lambda keeper: self._propose(keeper.machine, command, id, lambda outcome: None))

    def _call(self, arrived: Callable[[Keeper], None], chosen: Keeper | None = None) -> None:
        """Somebody who says that it leads is asked, mostly; or the one that was chosen."""
        keepers = list(self._keepers.values())
        leading = [keeper for keeper in keepers if keeper.machine.leads]
        keeper = chosen or self.world.rnd.choice(leading if leading and self.world.rnd.random() < 0.9 else keepers)

        def arrive() -> None:
            if self.world.now < keeper.stands_until:
                keeper.waiting.append(arrive)
            elif not keeper.machine.responsive:
                self.world.after(keeper.machine.paused_until - self.world.now, arrive)  # before or after all else that waited
            elif keeper.lead():
                arrived(keeper)

        self._later(arrive)

    def _later(self, action: Callable[[], None]) -> None:
        """After the network's time, or never."""
        rnd = self.world.rnd
        if rnd.random() < 0.95:
            self.world.after(rnd.uniform(0.3, SLOWEST) if rnd.random() < 0.1 else rnd.uniform(0.001, 0.02), action)
