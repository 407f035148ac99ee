"""Writers at work behind a test's back: in a thread of their own while the test breaks things, and judged afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from clusters import Cluster
from keys_model import Keys
from linearizability import Outcome, check
from writers import CONTENDED, TRY, Acknowledged, Record, Writer, longest_silence

from hmcore.api import TransferReply
from hmcore.config.inventory import load_inventory
from hmcore.errors import HyperMeshError, InternalFault
from hmcore.records import NodeReport
from hmctl.client import Access
from hmctl.state import OperatorStore

T = TypeVar("T")

WRITERS = 4
CALL_TIMEOUT = 10.0  # seconds: `calls.timeout` of the lab's preset
STEPS = 3_000_000  # of the checker, for a key: some seconds


class Writing:
    """Made by `writing`. What it is asked, it is asked by the test's thread."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self._inventory, self._environ = cluster.inventory, cluster.hmctl.environ
        inventory, _ = load_inventory(self._inventory, self._environ)
        store = OperatorStore.open(inventory.id, Path(cluster.hmctl.environ["XDG_DATA_HOME"]) / "hypermesh")
        self._hosts = {host.name: host for host in inventory.hosts}
        self._access = Access.of(store)
        self.record = Record(prefix)
        self._news = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writers")

    # --- the thread's life

    def start(self) -> None:
        self._thread.start()
        with self._news:
            self._expect(self._news.wait_for(lambda: self._loop is not None or self._failure is not None, 10), "the writers are at work")

    def finish(self) -> None:
        """Once each writer has had its last answer. Raises what ended any of them."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        if self._failure is not None:
            raise self._failure
        assert not self._thread.is_alive(), "the writers do not end"

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:
            with self._news:
                self._failure = error
                self._news.notify_all()

    async def _work(self) -> None:
        stop = asyncio.Event()
        with self._news:
            self._stop, self._loop = stop, asyncio.get_running_loop()
            self._news.notify_all()
        async with asyncio.TaskGroup() as tasks:
            for number in range(WRITERS):
                tasks.create_task(self._one(self._writer(f"writer{number}"), stop), name=f"writer{number}")

    async def _one(self, writer: Writer, stop: asyncio.Event) -> None:
        try:
            await writer.work(stop)
        finally:
            await writer.close()

    def _writer(self, name: str) -> Writer:
        return Writer(name, self._hosts, self._access, self.record, self._heard)

    def _heard(self, write: Acknowledged) -> None:
        with self._news:
            self.record.acknowledged.append(write)
            self._news.notify_all()

    # --- while they work

    @property
    def leader(self) -> str:
        """Who acknowledged the latest write."""
        with self._news:
            return self.record.acknowledged[-1].node

    def until_acknowledged(self, within: float, since: float | None = None, *, writers: int = 1, by: str | None = None) -> float:
        """Seconds from `since` (else now) until so many writers had a write acknowledged that they began after it (`by`: by this node)."""
        since = time.monotonic() if since is None else since
        told: dict[str, float] = {}

        def enough() -> bool:
            for write in reversed(self.record.acknowledged):
                if write.answered < since:
                    break
                if write.called >= since and by in (None, write.node):
                    told[write.writer] = write.answered
            return len(told) >= writers or self._failure is not None

        with self._news:
            what = f"{writers} writers of {WRITERS} have a write acknowledged{f' by {by}' if by else ''}"
            self._expect(self._news.wait_for(enough, within), f"within {within:g} s {what}")
        return sorted(told.values())[writers - 1] - since

    def _expect(self, holds: bool, what: str) -> None:
        if self._failure is not None:
            raise self._failure
        if not holds:
            pytest.fail(f"not so: {what}; they were told:\n{self.told()}")

    def ask(self, node: str, *, timeout: float = CALL_TIMEOUT + 2) -> tuple[HyperMeshError | None, float]:
        """One write at this node alone: how it failed, and after how many seconds."""

        return self._by_another(lambda writer: writer.ask_once(node, timeout=timeout), timeout + 5)

    def until_report(self, node: str, condition: Callable[[NodeReport], object], within: float, what: str) -> NodeReport:
        """The first report of the node in which it is so. `condition` is asked by the writers' thread, and must be quick."""

        async def wait(writer: Writer) -> NodeReport:
            end = time.monotonic() + within
            report = None
            while report is None or not condition(report):
                if time.monotonic() > end:
                    pytest.fail(f"not within {within:g} s: {what}\n{report}")
                await asyncio.sleep(0.05)
                report = await writer.report(node) or report
            return report

        return self._by_another(wait, within + 5)

    def hand_over(self, node: str) -> TransferReply:
        """`node` leads; another is to."""
        return self._by_another(lambda writer: writer.transfer(node), CALL_TIMEOUT + 5)

    @contextmanager
    def witness(self, node: str) -> Iterator[Callable[[], Callable[[], list[str]]]]:
        """Has a connection to the node while it is well. What it yields sends reads there, and returns what waits for what came of them."""
        assert self._loop is not None
        loop, writer = self._loop, self._writer("witness")
        keys = [f"{self.record.prefix}/{key}" for key in CONTENDED]

        async def read() -> list[str]:
            return await asyncio.gather(*(writer.read_there(node, key, timeout=CALL_TIMEOUT) for key in keys))

        def send() -> Callable[[], list[str]]:
            future = asyncio.run_coroutine_threadsafe(read(), loop)
            return lambda: future.result(CALL_TIMEOUT + 5)

        try:
            self._expect(self._by_another(lambda _: writer.read_there(node, keys[0], timeout=TRY), 10) == "answered", f"{node} is well")
            yield send
        finally:
            asyncio.run_coroutine_threadsafe(writer.close(), loop).result(5)

    def _by_another(self, work: Callable[[Writer], Coroutine[Any, Any, T]], seconds: float) -> T:
        """What a writer does that is not one of those at work."""

        async def one() -> T:
            writer = self._writer("another")
            try:
                return await work(writer)
            finally:
                await writer.close()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(one(), self._loop).result(seconds)

    def silence(self, since: float) -> float:
        """The longest time without an acknowledged write from `since` to now, in seconds."""
        now = time.monotonic()
        with self._news:
            return longest_silence([since, now, *(write.answered for write in self.record.acknowledged if write.answered > since)])

    # --- afterwards

    def told(self) -> str:
        """What was refused, for a person."""
        said = "\n".join(f"  {count} x {words}" for words, count in self.record.refusals.most_common(12))
        return f"  {len(self.record.acknowledged)} acknowledged, {self.record.unknown} unknown, {self.record.reads} reads\n{said}"

    def judge(self) -> None:
        """After `finish`: reads every key once more, from each node; all that was told must fit together."""
        asyncio.run(self._judge())

    async def _judge(self) -> None:
        reader = self._writer("reader")
        try:
            for key in CONTENDED:
                await reader.read(f"{self.record.prefix}/{key}")
            held = await self._same_everywhere(reader)
        finally:
            await reader.close()
        untyped = [words for words in self.record.refusals if words.startswith(InternalFault.__name__)]
        assert not untyped, f"what kept a node from answering has no type: {untyped}"
        lost = {key: value for key, (value, index) in self.record.mine.items() if held.get(key) != (value, index, index)}
        assert not lost, f"acknowledged, and not there: {lost}"
        verdict = check(Keys(), self.record.history.operations(), STEPS)
        assert verdict.outcome is Outcome.OK, verdict.explain()

    def _keepers(self) -> list[str]:
        """Who holds the keys by now: roles may have changed meanwhile."""
        inventory, _ = load_inventory(self._inventory, self._environ)
        return [host.name for host in inventory.control_hosts]

    async def _same_everywhere(self, reader: Writer, within: float = 20.0) -> dict[str, tuple[bytes, int, int]]:
        """What all nodes hold at the same log index: it must be the same. All of it is asked again while something is still applied."""
        deadline = time.monotonic() + within
        while True:
            told = {node: await reader.keys(node, f"{self.record.prefix}/") for node in self._keepers()}
            if len(set.union(*(indexes for indexes, _ in told.values()))) == 1:
                break
            assert time.monotonic() < deadline, f"the nodes do not come to the same log index: { {n: i for n, (i, _) in told.items()} }"
            await asyncio.sleep(0.1)
        contents = {node: {item.key: (item.value, item.created, item.changed) for item in items} for node, (_, items) in told.items()}
        first = next(iter(contents.values()))
        assert all(content == first for content in contents.values()), f"at the same log index they hold different keys: {contents}"
        return first


@contextmanager
def writing(cluster: Cluster, what: str) -> Iterator[Writing]:
    """Writers work while the block runs, from before it begins until after it has ended; then all that they were told is judged."""
    prefix = f"{''.join(letter if letter.isalnum() else '-' for letter in what)}-{datetime.now(UTC):%H%M%S}"
    work = Writing(cluster, prefix)
    work.start()
    try:
        work.until_acknowledged(20, writers=WRITERS)
        yield work
        work.until_acknowledged(20, writers=WRITERS)
    finally:
        work.finish()
        print(work.told())
    work.judge()
