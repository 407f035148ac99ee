"""Callers that each have one call outstanding, and what they took: the same for both sides of the benchmarks of consensus.

All callers live in this one process, on one event loop, since client and servers share the machine's processors: what a call costs the
client is measured, too, beside what it costs the servers.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Call = Callable[[int], Awaitable[None]]  # by the caller's number; raises what made the call fail

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """`latencies` in seconds, ascending, of the calls that were acknowledged. `failed`: the others, by their error.

    `client` and `servers`: seconds of processor time.
    """

    seconds: float
    latencies: tuple[float, ...]
    failed: Counter[str]
    client: float
    servers: float

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def at(self, part: float) -> float:
        """A percentile in milliseconds."""
        return self.latencies[int((len(self.latencies) - 1) * part)] * 1e3

    @property
    def cost(self) -> tuple[float, float]:
        """Microseconds of processor time a call, of the client and of all servers together."""
        return self.client / len(self.latencies) * 1e6, self.servers / len(self.latencies) * 1e6


async def load(call: Call, *, callers: int, seconds: float, servers: Sequence[int]) -> Load:
    """So many callers for so long, each with its next call as soon as the one before is answered. A call that failed is counted and not
    repeated. `servers`: process ids."""
    took: list[float] = []
    failed: Counter[str] = Counter()
    before, used = _processor(), sum(map(processor_of, servers))
    began = time.perf_counter()
    end = began + seconds

    async def caller(number: int) -> None:
        while (now := time.perf_counter()) < end:
            try:
                await call(number)
            except Exception as error:  # whatever it was, the call was not acknowledged: it is counted
                failed[f"{type(error).__name__}: {error}"] += 1
                await asyncio.sleep(0)  # an error that comes at once must not keep the loop
                continue
            took.append(time.perf_counter() - now)

    async with asyncio.TaskGroup() as tasks:
        for number in range(callers):
            tasks.create_task(caller(number), name=f"caller {number}")
    elapsed = time.perf_counter() - began
    return Load(elapsed, tuple(sorted(took)), failed, _processor() - before, sum(map(processor_of, servers)) - used)


def typical(loads: Sequence[Load], what: Callable[[Load], float]) -> float:
    return statistics.median(what(each) for each in loads)


def processor_of(pid: int) -> float:
    """Seconds of processor time that a process has taken (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid: int) -> float:
    """Megabytes in memory."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
