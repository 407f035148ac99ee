"""Writers: operators that write and read a cluster's keys while something happens to it, and record every outcome.

Each has a session and one request under way. It asks whoever is said to lead, and asks again under the same id when it was refused or
not answered, until its patience ends: then it goes on, not knowing what came of it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from keys_model import Delete, Found, Get, Missing, Put, Refused, Unchanged, Wrote
from recorded_history import History

from hmcore.api import REPORT, TRANSFER, ChangeReply, Method, ReportRequest, TransferReply, TransferRequest
from hmcore.config.inventory import Host
from hmcore.errors import CallRefused, HyperMeshError, InvalidRequest, NotAsExpected, NotLeader, PermissionDenied, TransportError
from hmcore.records import KeyValue, NodeReport
from hmcore.store import (
    DELETE_KEY,
    GET_KEY,
    LIST_KEYS,
    PUT_KEY,
    DeleteKeyRequest,
    KeyEntry,
    KeyRequest,
    KeysReply,
    KeysRequest,
    PutKeyRequest,
)
from hmctl.client import Access, AgentClient, Via, connect

Req = TypeVar("Req")
Res = TypeVar("Res")
Request = Put | Delete | Get

PATIENCE = 10.0  # seconds for one request with all its retries: what `calls.timeout` gives it
TRY = 1.0  # seconds that one node has to answer, before another one is asked
THINKING = 0.01  # seconds between requests of one writer, about: a few hundred a second of all, which leaves the machine to the cluster
PAUSE = 0.05  # seconds before the next node is asked, when nobody is known to lead
CONTENDED = ("red", "green", "blue")  # keys that all of them write


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write: called and answered at these moments (time.monotonic), by this node."""

    called: float
    answered: float
    node: str
    writer: str


@dataclass
class Record:
    """What was asked and told, of all writers. `mine`: key, value and revision of the acknowledged writes that were alone on their key.
    `refusals`: what else they were told, by type and words."""

    prefix: str
    history: History = field(default_factory=History)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    mine: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    unknown: int = 0  # writes of which nobody knows what came of them
    reads: int = 0


class Lines:
    """One writer's connections, each made when it is needed."""

    def __init__(self, hosts: Mapping[str, Host], access: Access) -> None:
        self._hosts, self._access = hosts, access
        self._lines: dict[str, AgentClient] = {}
        self._dialling = {node: asyncio.Lock() for node in hosts}

    async def call(self, node: str, method: Method[Req, Res], request: Req, *, timeout: float) -> Res:
        """Raises what AgentClient.call raises. A connection on which anything failed is given up."""
        async with self._dialling[node]:
            if node not in self._lines:
                self._lines[node] = await connect(self._hosts[node], self._access, via=Via.QUIC, timeout=timeout)
            line = self._lines[node]
        try:
            return await line.call(method, request, timeout=timeout)
        except TransportError:
            if self._lines.get(node) is line:
                del self._lines[node]
            await line.close()
            raise

    async def close(self) -> None:
        for node in list(self._lines):
            await self._lines.pop(node).close()


class Writer:
    """`name` is the session's. `said` is called after each acknowledged write."""

    def __init__(self, name: str, hosts: Mapping[str, Host], access: Access, record: Record, said: Callable[[Acknowledged], None]) -> None:
        self.name = name
        self._record, self._said = record, said
        self._lines = Lines(hosts, access)
        self._turns = itertools.cycle(random.sample(sorted(hosts), len(hosts)))
        self._leader: str | None = None
        self._session, self._count = f"{name}-{uuid.uuid4().hex[:8]}", itertools.count(1)
        self._changed: dict[str, int] = {}  # revision of a key's last change, as this writer heard last

    async def work(self, stop: asyncio.Event) -> None:
        """One request after another, of all kinds. Ends when it has its answer after `stop` was set."""
        while not stop.is_set():
            key, kind = f"{self._record.prefix}/{random.choice(CONTENDED)}", random.random()
            if kind < 0.4:
                await self.add()
            elif kind < 0.65:
                await self.read(key)
            else:
                expect = random.choice((None, self._changed.get(key, 0)))
                await (self.delete(key, expect) if kind > 0.95 else self.put(key, expect))
            await asyncio.sleep(random.uniform(0, 2 * THINKING))

    async def add(self) -> None:
        """A key of its own, written once."""
        id = self._next()
        key = f"{self._record.prefix}/once/{id}"
        answer = await self._write(id, Put(key, id.encode(), expect=0), PUT_KEY, PutKeyRequest(id=id, key=key, value=id.encode(), expect=0))
        if isinstance(answer, Wrote):
            self._record.mine[key] = id.encode(), answer.index

    async def put(self, key: str, expect: int | None) -> None:
        id = self._next()
        value = id.encode().ljust(100, b".")
        await self._write(id, Put(key, value, expect), PUT_KEY, PutKeyRequest(id=id, key=key, value=value, expect=expect))

    async def delete(self, key: str, expect: int | None) -> None:
        id = self._next()
        await self._write(id, Delete(key, expect), DELETE_KEY, DeleteKeyRequest(id=id, key=key, expect=expect))

    async def read(self, key: str) -> None:
        """Linearizable, from any node."""
        id, history = self._next(), self._record.history
        history.call(id, self.name, Get(key), time.monotonic())
        told = await self._ask(GET_KEY, KeyRequest(key=key, consistent=True), first=next(self._turns))
        if told is not None:
            answer = found(told[0].item)
            history.answer(id, answer, time.monotonic())
            self._learn(key, answer)
            self._record.reads += 1

    async def ask_once(self, node: str, *, timeout: float) -> tuple[HyperMeshError | None, float]:
        """Add a key at `node` and nowhere else: how that failed, and after how many seconds."""
        id = self._next()
        key = f"{self._record.prefix}/once/{id}"
        began = time.monotonic()
        self._record.history.call(id, self.name, Put(key, id.encode(), 0), began)
        try:
            reply = await self._lines.call(node, PUT_KEY, PutKeyRequest(id=id, key=key, value=id.encode(), expect=0), timeout=timeout)
        except HyperMeshError as error:
            return error, time.monotonic() - began
        self._answered(id, Put(key, id.encode(), 0), Wrote(reply.revision), began, node)
        return None, time.monotonic() - began

    async def read_there(self, node: str, key: str, *, timeout: float) -> str:
        """Linearizable, from `node` alone, over a connection that there is already if there can be: what came of it, in words."""
        id, history = self._next(), self._record.history
        history.call(id, self.name, Get(key), time.monotonic())
        try:
            reply = await self._lines.call(node, GET_KEY, KeyRequest(key=key, consistent=True), timeout=timeout)
        except HyperMeshError as error:
            return f"{type(error).__name__}: {error.message}"
        history.answer(id, found(reply.item), time.monotonic())
        return "answered"

    async def transfer(self, node: str) -> TransferReply:
        """Have `node`, which leads, hand over to whoever is furthest ahead."""
        return await self._lines.call(node, TRANSFER, TransferRequest(), timeout=PATIENCE)

    async def keys(self, node: str, prefix: str) -> tuple[set[int], list[KeyEntry]]:
        """What `node` itself holds, and the log indexes at which it told: more than one if something was applied in between."""
        indexes: set[int] = set()
        items: list[KeyEntry] = []
        while True:
            request = KeysRequest(prefix=prefix, after=items[-1].key if items else "", values=True)
            reply: KeysReply = await self._lines.call(node, LIST_KEYS, request, timeout=PATIENCE)
            indexes.add(reply.index)
            items += reply.items
            if not reply.more:
                return indexes, items

    async def report(self, node: str) -> NodeReport | None:
        """What the node says of itself; None if it does not answer."""
        try:
            return await self._lines.call(node, REPORT, ReportRequest(members=False), timeout=TRY)
        except TransportError:
            return None

    async def close(self) -> None:
        await self._lines.close()

    def _next(self) -> str:
        return f"{self._session}:{next(self._count)}"

    async def _write(
        self, id: str, request: Put | Delete, method: Method[Req, ChangeReply], message: Req
    ) -> Wrote | Unchanged | Refused | None:
        called = time.monotonic()
        self._record.history.call(id, self.name, request, called)
        try:
            told = await self._ask(method, message, first=self._leader)
        except NotAsExpected:
            self._record.history.answer(id, Refused(), time.monotonic())
            self._changed.pop(request.key, None)
            return Refused()
        if told is None:
            self._record.unknown += 1
            return None
        reply, node = told
        answer = Wrote(reply.revision) if reply.changed else Unchanged()
        self._answered(id, request, answer, called, node)
        return answer

    def _answered(self, id: str, request: Request, answer: Wrote | Unchanged, called: float, node: str) -> None:
        now = time.monotonic()
        self._record.history.answer(id, answer, now)
        self._learn(request.key, Missing() if isinstance(request, Delete) else answer)
        self._said(Acknowledged(called, now, node, self.name))

    def _learn(self, key: str, answer: object) -> None:
        match answer:
            case Wrote(index) | Found(changed=index):
                self._changed[key] = index
            case Missing():
                self._changed[key] = 0

    async def _ask(self, method: Method[Req, Res], request: Req, *, first: str | None) -> tuple[Res, str] | None:
        """The answer, and whose it is; None if there was none for as long as anybody would wait. Raises InvalidRequest."""
        end = time.monotonic() + PATIENCE
        node, asked = first, None
        while (left := end - time.monotonic()) > 0:
            before, node = asked, node or next(self._turns)
            asked = node
            try:
                answer = await self._lines.call(node, method, request, timeout=min(TRY, left))
            except (InvalidRequest, PermissionDenied):
                raise
            except NotLeader as error:
                named = error.leader if error.leader != node else None
            except (CallRefused, TransportError) as error:
                named = None
                self._record.refusals[f"{type(error).__name__}: {error.message}"] += 1
            else:
                if method is not GET_KEY:
                    self._leader = node
                return answer, node
            self._leader = node = named
            if named in (None, before):  # two that name one another will know better before long
                await asyncio.sleep(PAUSE)
        return None


def found(item: KeyValue | None) -> Found | Missing:
    return Missing() if item is None else Found(item.value, item.created, item.changed)


def longest_silence(moments: Iterable[float]) -> float:
    """Seconds between two of them in a row, at most."""
    return max((later - earlier for earlier, later in itertools.pairwise(sorted(moments))), default=0.0)
