"""Many calls at once, and for a while: throughput and latency beside an echo's as many callers, by turns; and whether anything creeps."""

from __future__ import annotations

import statistics

import caller
from bed import Bed
from figures import Figure, Kind

CALLERS = 64
CONNECTIONS = 4
SECONDS = 30

PEER = "TLS echo, as many callers"
RATE = Kind("calls a second, many at once", "/s", None, PEER, at_least=True, tolerance=1.8)
LATENCY = Kind("sustained load: p99 at the end", "ms", None, PEER, tolerance=1.8)
CREEP = Kind("sustained load: p99 at the end over that at the begin", "x", 1.5, "no creep", tolerance=1.8)
MEMORY = Kind("sustained load: memory", "MB RSS", 90, "before it", tolerance=1.3)
HEALTHY = Kind("sustained load: still healthy", "", 1, at_least=True, slack=1.0)
FIGURES = (RATE, LATENCY, CREEP, MEMORY, HEALTHY)

# Loads node2's agent with state and ping calls, in four quarters with a short load of the echo around each.
SCRIPT = """
async def during(seconds, one):
    took, end = [], time.perf_counter() + seconds
    async def load(number):
        while (now := time.perf_counter()) < end:
            await one(number)
            took.append(time.perf_counter() - now)
    async with asyncio.TaskGroup() as tasks:
        for number in range(given["callers"]): tasks.create_task(load(number))
    return len(took) / seconds, at(took, 0.99)
async def main():
    links = [await peer() for _ in range(given["connections"])]
    server, lines = await echo(given["callers"])
    async def call(number):
        if number % 8:
            await invoke(links[number % len(links)], PING, Empty(), timeout=10)
        else:
            await invoke(links[number % len(links)], STATE, StateRequest(), timeout=10)
    async def beside(number):
        await echoed(lines[number])
    quarters, echoes = [], [await during(given["seconds"] / 30, beside)]
    for _ in range(4):
        quarters.append(await during(given["seconds"] / 4, call))
        echoes.append(await during(given["seconds"] / 30, beside))
    for _, writer in lines: writer.close()
    server.close()
    for link in links: await link.close()
    print(json.dumps([quarters, echoes]))
uvloop.run(main())
"""

RSS = "for pid in $(systemctl show -p MainPID --value hypermesh-agent); do awk '/^VmRSS/{print $2 / 1024}' /proc/$pid/status; done"


def measure(bed: Bed) -> list[Figure]:
    caller.run(bed, SCRIPT, callers=CALLERS, connections=CONNECTIONS, seconds=3)  # warm: what a first load allocates is kept
    before = float(bed.on("node2", "sh", "-c", RSS))
    quarters, echoes = caller.run(bed, SCRIPT, callers=CALLERS, connections=CONNECTIONS, seconds=SECONDS)
    after = float(bed.on("node2", "sh", "-c", RSS))
    rates, latencies = zip(*quarters, strict=True)
    echo_rates, echo_latencies = zip(*echoes, strict=True)
    how = f"{CALLERS} callers on {CONNECTIONS} connections for {SECONDS} s, seven pings to one `cluster.state`; echo around each quarter"
    return [
        RATE.of(sum(rates) / 4, statistics.median(echo_rates), how),
        LATENCY.of(latencies[-1], statistics.median(echo_latencies), "last quarter of it"),
        CREEP.of(latencies[-1] / latencies[0], 1.0, "last and first quarter of it"),
        MEMORY.of(after, before, "of the agent that is called"),
        HEALTHY.of(float(bed.status()["health"] == "healthy"), note="1: by `hmctl status`"),
    ]
