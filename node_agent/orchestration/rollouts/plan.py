"""Which replicas of one service stop and which start, now. Nothing is remembered from one look to the next: what is under way can be seen.

Two rules keep it within its bounds, whatever happened before. A slot is *busy* while its replica is not there, not settled, or not alone;
`parallelism` slots may be, and only then is another replica touched. And no replica is started while as many containers may run as may ever
run at a time: `replicas`, and `parallelism` more where the new one starts first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from node_agent.orchestration.rollouts.service import Aim, Replica, Service, Slot, by_slot
from node_agent.orchestration.rollouts.situation import Start, Stop


@dataclass(frozen=True, slots=True)
class Moves:
    """`wait`: what the rest waits for, in words."""

    starts: tuple[Start, ...] = ()
    stops: tuple[Stop, ...] = ()
    wait: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """A slot with a replica. `current` is the one that shall stay; `former`: those that it has replaced, or another has yet to replace,
    the best first. `leaving`: something that was stopped there may still run."""

    slot: Slot
    current: Replica | None
    former: tuple[Replica, ...]
    spare: tuple[Replica, ...]  # neither, by some mishap
    leaving: bool


def plan(service: Service, gate: str, now: float) -> Moves:
    """`gate`: what the service waits for before replicas of this generation are started; empty: for nothing."""
    live = by_slot(service, (replica for replica in service.replicas if replica.live))
    leaving = {service.slot(r) for r in service.replicas if not r.live and r.may_run(service.exclusive)}
    surplus = surplus_slots(service, live)
    held = service.paused or bool(gate)
    holdings = [_hold(service, slot, there, slot in leaving, held) for slot, there in live.items() if slot not in surplus]
    missing = _missing(service, live, len(holdings))
    stops = [_stop(service, replica, surplus=True) for slot in surplus for replica in live[slot]]
    stops += [_stop(service, replica, surplus=False) for holding in holdings for replica in _superseded(service, holding, held)]

    starts = _Starts(service, gate, len(holdings), live, leaving)
    starts.fill(missing)
    free = (
        (service.how.parallelism or len(live) + len(missing))
        - len(missing)
        - sum(_busy(service, holding, held, now) for holding in holdings)
    )
    for holding in sorted((h for h in holdings if _replaceable(h) and starts.possible), key=_urgency)[: max(free, 0)]:
        if service.start_first:
            starts.beside(holding)
        else:
            stops += [_stop(service, replica, surplus=False) for replica in holding.former]
    for holding in holdings if service.roams else ():
        if holding.current is not None and holding.current.stuck and not (holding.former or holding.spare or holding.leaving):
            starts.elsewhere(holding.current)
    if free <= 0 and not starts.wait and any(map(_replaceable, holdings)):
        left = [r for r in service.replicas if not r.live and service.slot(r) in leaving and r.may_run(service.exclusive)]
        starts.wait = _still(service, left) if left else ""
    return Moves(tuple(starts.made), tuple(stops), starts.wait or (gate if missing or _outdated(service, holdings) else ""))


def surplus_slots(service: Service, live: Mapping[Slot, tuple[Replica, ...]]) -> tuple[Slot, ...]:
    """Slots that shall be no more. The worst first: what is not fit, then the newest. While paused, only what must leave its node."""
    if service.is_global:
        strange = (slot for slot in live if slot[1] not in service.places)
        return tuple(slot for slot in strange if not service.paused or any(replica.misplaced for replica in live[slot]))
    if service.paused:
        return ()
    best_first = sorted(live, key=lambda slot: (slot[0] < 1, not live[slot][0].fit, slot))
    numbered = sum(number >= 1 for number, _ in live)
    return tuple(reversed(best_first[min(service.spec.replicas, numbered) :]))


def _missing(service: Service, live: Mapping[Slot, tuple[Replica, ...]], held: int) -> list[Slot]:
    """Slots without a replica that shall have one: the lowest numbers that are free."""
    if service.is_global:
        return [(0, node) for node in sorted(service.places) if (0, node) not in live]
    count = service.spec.replicas - held
    free = ((number, "") for number in range(1, service.spec.replicas + len(live) + 1))
    return [slot for slot in free if slot not in live][: max(count, 0)]


def _hold(service: Service, slot: Slot, there: tuple[Replica, ...], leaving: bool, held: bool) -> Holding:
    """While held, any revision will do, and only what must leave its node is replaced."""
    stays = [r for r in there if not r.misplaced and (held or service.current(r))]
    goes = [r for r in there if r not in stays]
    if held:
        failed = [r for r in stays if service.failed(r) and len(there) > 1]  # what started beside it, and was not to be
        stays = [r for r in stays if r not in failed]
        return Holding(slot, stays[0] if stays else None, tuple(goes), (), leaving)
    return Holding(slot, stays[0] if stays else None, tuple(goes[:1]), (*stays[1:], *goes[1:]), leaving)


def _superseded(service: Service, holding: Holding, held: bool) -> tuple[Replica, ...]:
    """Of a slot with more than one replica, those that are not needed any more."""
    current = holding.current
    if current is None:
        return holding.spare
    returned = service.rolling_back and not service.new(current)  # it was there before what is being taken back
    useless = not any(replica.fit for replica in holding.former)
    over = current.good or (not held and (service.failed(current) or returned or service.exclusive or useless))
    return (*holding.spare, *(holding.former if over else ()))


def _busy(service: Service, holding: Holding, held: bool, now: float) -> bool:
    current = holding.current
    if holding.leaving or holding.spare or (current is not None and holding.former):
        return True
    if current is None:
        return any(replica.unsure for replica in holding.former)
    if current.unsure:
        return True
    if not held and not service.new(current):
        return False
    if not service.settled(current):
        return True
    if service.failed(current):
        return now < (now if current.seen.failed is None else current.seen.failed) + service.how.delay
    return not current.ended and (not current.fit or (current.seen.good is not None and now < current.seen.good + service.how.delay))


def _replaceable(holding: Holding) -> bool:
    if holding.current is not None or holding.leaving or holding.spare:
        return False
    return bool(holding.former) and not any(replica.unsure for replica in holding.former)


def _urgency(holding: Holding) -> tuple[bool, bool, Slot]:
    """What does no good goes first, then what must leave its node."""
    best = holding.former[0]
    return best.status is None or best.fit, not best.misplaced, holding.slot


def _outdated(service: Service, holdings: Iterable[Holding]) -> bool:
    return any(h.current is not None and not service.current(h.current) for h in holdings)


def _stop(service: Service, replica: Replica, *, surplus: bool) -> Stop:
    allocation = replica.allocation
    if replica.misplaced:
        reason = f"{allocation.node} runs no apps" if replica.closed else f"{allocation.node} is to be empty"
    elif surplus:
        reason = f"{allocation.node} is not for it" if service.is_global else f"{service.spec.replicas} of {service.name} are wanted"
    elif allocation.generation != service.aim.generation:
        reason = f"replaced by generation {service.aim.generation}"
    else:
        reason = "replaced by another" if service.current(replica) else "replaced: it was to be restarted"
    return Stop(replica.id, reason)


class _Starts:
    """Gathers what is started in one look, as long as there is room."""

    def __init__(self, service: Service, gate: str, held: int, live: Mapping[Slot, tuple[Replica, ...]], leaving: Iterable[Slot]) -> None:
        self.made: list[Start] = []
        self.wait = ""
        self._service = service
        self._leaving = frozenset(leaving)
        self._aim = _aim(service, gate)
        self._limit = service.count - held if gate and not service.paused and not service.is_global else None
        running = sum(replica.may_run(service.exclusive) for replica in service.replicas)
        extra = (service.how.parallelism or service.spec.replicas) if service.start_first else 0
        self._room = None if service.is_global else service.spec.replicas + extra - running

    @property
    def possible(self) -> bool:
        """Whether what is stopped can be followed by something."""
        return self._aim is not None

    def fill(self, missing: Collection[Slot]) -> None:
        there: dict[Slot, list[Replica]] = {slot: [] for slot in missing}
        for replica in self._service.replicas if missing else ():
            if (slot := self._service.slot(replica)) in there:
                there[slot].append(replica)
        for slot, before in there.items():
            if slot in self._leaving:
                self.wait = _still(self._service, [r for r in before if r.may_run(self._service.exclusive)])
            elif self._limit is None or len(self.made) < self._limit:
                self._start(slot, before)

    def beside(self, holding: Holding) -> None:
        former = tuple(_stop(self._service, replica, surplus=False) for replica in holding.former)
        self._start(holding.slot, list(holding.former), former, leaving=any(replica.misplaced for replica in holding.former))

    def elsewhere(self, stuck: Replica) -> None:
        """It is not there yet, so nothing is lost if it stops; but only where another would be taken."""
        aim, allocation = self._aim, stuck.allocation
        if aim is not None and allocation.revision == aim.revision:
            stop = Stop(stuck.id, f"it cannot be started on {allocation.node}")
            self.made.append(
                Start(
                    self._service.name,
                    allocation.slot,
                    "",
                    aim.generation,
                    aim.revision,
                    f"in place of {allocation.located}",
                    (stop,),
                    after=True,
                    shunned=self._service.shunned.get(aim.revision, ()),
                )
            )

    def _start(self, slot: Slot, before: list[Replica], former: tuple[Stop, ...] = (), *, leaving: bool = False) -> None:
        if self._aim is None:
            return
        if self._room is not None and len(self.made) >= self._room:
            self.wait = self.wait or "containers that were stopped still run"
            return
        last = max(before, key=lambda replica: (replica.allocation.generation, replica.allocation.index), default=None)
        reason = "wanted" if last is None else f"in place of {last.allocation.located}"
        shunned = () if self._service.is_global else self._service.shunned.get(self._aim.revision, ())
        self.made.append(
            Start(
                self._service.name,
                slot[0],
                slot[1],
                self._aim.generation,
                self._aim.revision,
                reason,
                former,
                leaving=leaving,
                shunned=shunned,
            )
        )


def _aim(service: Service, gate: str) -> Aim | None:
    """What replicas are made of that are started now. None: none are."""
    if service.paused and service.fallback is not None:
        return service.fallback
    if gate:
        return service.fallback
    return service.aim


def _still(service: Service, there: Iterable[Replica]) -> str:
    return "; ".join(f"{r.allocation.replica} may still run on {r.allocation.node}{_because(r)}" for r in there)


def _because(replica: Replica) -> str:
    if replica.lost:
        return ", which is not fenced yet"
    return f": {replica.status.error}" if replica.status is not None and replica.status.error else ""
