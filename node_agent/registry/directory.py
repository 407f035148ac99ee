"""Calls inside the platform go to a service, not to a node: to an instance of it that is fit, and to the next when that is out of reach.

What is learned on the way, how long each instance takes and which ones failed lately, is this node's own and chooses the next one.
Only the questions with which a cluster is formed do not come this way: there is no registry before there is a cluster.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol, TypeVar

from hmcore.api import Method
from hmcore.errors import HyperMeshError, PeerUnreachable
from hmcore.pool import Locality
from hmcore.records import InstanceHealth
from hmcore.selection import Filter, Strategy, choose
from node_agent.registry.registry import Catalogue

Req = TypeVar("Req")
Res = TypeVar("Res")

NEW_SHARE = 0.2  # of the moving average that the latest call makes
STALE = 60.0  # seconds after which a measured latency says nothing any more: the instance is tried again
COOL_DOWN = 5.0  # seconds for which an instance that failed is asked only after all others
MOST = 2048  # instances whose calls are remembered


class Call(Protocol):
    """See node_agent.transport.layer.TransportLayer.call."""

    async def __call__(self, peer: str, method: Method[Req, Res], request: Req, *, timeout: float) -> Res: ...


@dataclass(slots=True)
class Record:
    """What this node's own calls to an instance have shown. `latency` in seconds, a moving average; `failures` in a row."""

    latency: float | None = None
    measured: float = float("-inf")
    failures: int = 0
    failed: float = float("-inf")


class Directory:
    """Health-aware calls, from `me`. All times are of `clock`, in seconds."""

    def __init__(
        self,
        me: str,
        *,
        catalogue: Callable[[], Catalogue],
        call: Call,
        connected: Callable[[], frozenset[str]],
        fresh: Callable[[], bool] = lambda: True,
        locality: Locality | None = None,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`connected`: the nodes that a call would reach now; to others it would only wait. `fresh`: whether the catalogue is of now."""
        self._me = me
        self._catalogue = catalogue
        self._call = call
        self._connected = connected
        self._fresh = fresh
        self._locality = locality or Locality(node=me)
        self._chance = chance
        self._clock = clock
        self._turns = count()
        self._records: dict[str, Record] = {}
        self._resting: dict[str, str] = {}  # instances that have just failed, and their services

    async def call(
        self,
        service: str,
        method: Method[Req, Res],
        request: Req,
        *,
        timeout: float,
        strategy: Strategy = Strategy.WEIGHTED,
        key: str = "",
        node: str = "",
        allow_unknown: bool = False,
        repeatable: bool = False,
        bootstrap: Sequence[str] = (),
        insist: bool = False,
        held: Callable[[Res], float] = lambda _: 0.0,
    ) -> Res:
        """Call `method` of a fit instance of `service`, each one for `timeout` seconds at most.

        `node`: of the one there only. An instance that was never reached is followed by the next; with `repeatable` (asking twice does
        no harm) one that failed otherwise, too. `bootstrap`: nodes to be asked, in this order, while no fit instance is within reach; while
        what we know is fresh, only those of which it knows nothing bad. `insist`: these nodes are asked even so.
        `held`: seconds for which an answer was held back as we asked, which say nothing of how fast the instance is.
        Raises PeerUnreachable when there is none, else what the last one's call raised.
        """
        tried: set[str] = set()
        failure: HyperMeshError | None = None
        asked = Filter(node=node)
        while (found := self._next(service, asked, tried, strategy, key, allow_unknown, bootstrap, insist)) is not None:
            instance, peer = found
            tried.add(instance)
            try:
                return await self._measured(service, instance, peer, method, request, timeout, held)
            except PeerUnreachable as error:
                failure = error
            except HyperMeshError as error:
                if not repeatable:
                    raise
                failure = error
        raise failure or PeerUnreachable(f"no fit instance of {service} is within reach", host=node or None)

    def latency_ms(self) -> dict[str, float]:
        """By instance: the moving averages of this node's own calls that still say something."""
        return {id: round(seconds * 1000, 3) for id, seconds in self._latencies().items()}

    def failures(self) -> dict[str, int]:
        """By instance: calls that failed in a row, lately."""
        return {id: record.failures for id, record in self._records.items() if record.failures}

    def _next(
        self,
        service: str,
        asked: Filter,
        tried: Collection[str],
        strategy: Strategy,
        key: str,
        allow_unknown: bool,
        bootstrap: Sequence[str],
        insist: bool,
    ) -> tuple[str, str] | None:
        """The next instance and its node."""
        catalogue, connected = self._catalogue(), self._connected()
        latency = self._latencies() if strategy is Strategy.LEAST_LATENCY else None
        for but in (self._just_failed(service).union(tried), frozenset(tried)):
            pool = catalogue.pool(service, asked, locality=self._locality, allow_unknown=allow_unknown, reach=connected, but=but)
            chosen = choose(pool, strategy, chance=self._chance(), turn=next(self._turns), latency=latency, key=key)
            if chosen is not None:
                return chosen.instance.id, chosen.instance.node
        component = service.rpartition("/")[2]
        avoided = frozenset[str]() if insist or not bootstrap or not self._fresh() else _unfit(catalogue, service)
        for name in bootstrap:
            if name in connected and name not in avoided and f"{name}/{component}" not in tried:
                return f"{name}/{component}", name
        return None

    def _just_failed(self, service: str) -> frozenset[str]:
        """The service's instances that rest."""
        if not self._resting:
            return frozenset()
        rested = self._clock() - COOL_DOWN
        for instance in [each for each in self._resting if each not in self._records or rested >= self._records[each].failed]:
            del self._resting[instance]
        return frozenset(instance for instance, of in self._resting.items() if of == service)

    async def _measured(
        self,
        service: str,
        instance: str,
        peer: str,
        method: Method[Req, Res],
        request: Req,
        timeout: float,
        held: Callable[[Res], float],
    ) -> Res:
        record = self._record(instance)
        began = self._clock()
        try:
            answer = await self._call(peer, method, request, timeout=timeout)
        except HyperMeshError:
            record.failures += 1
            record.failed = self._clock()
            self._resting[instance] = service
            raise
        now = self._clock()
        took, before = max(0.0, now - began - held(answer)), record.latency
        record.latency = took if before is None or now >= record.measured + STALE else before + NEW_SHARE * (took - before)
        record.measured, record.failures = now, 0
        self._resting.pop(instance, None)
        return answer

    def _record(self, instance: str) -> Record:
        record = self._records.pop(instance, None) or Record()
        if len(self._records) >= MOST:
            del self._records[next(iter(self._records))]  # the one that was called longest ago
        self._records[instance] = record
        return record

    def _latencies(self) -> Mapping[str, float]:
        oldest = self._clock() - STALE
        return {id: record.latency for id, record in self._records.items() if record.latency is not None and record.measured >= oldest}


def _unfit(catalogue: Catalogue, service: str) -> frozenset[str]:
    """The nodes whose instance of `service` is known to be unhealthy, or in maintenance."""
    candidates = catalogue.lookup(service, Filter(include_maintenance=True))
    return frozenset(
        each.instance.node for each in candidates if each.maintenance is not None or each.instance.health is InstanceHealth.UNHEALTHY
    )
