"""Many calls at once, and for a while: throughput beside one caller's in the same run, and whether anything creeps."""

from __future__ import annotations

import caller
from bed import Bed
from figures import Figure

CALLERS = 64
CONNECTIONS = 4
SECONDS = 30

# Loads node2's agent with state and ping calls; tells calls a second alone, at once, and how the latency went by quarters.
SCRIPT = """
async def main():
    links = [await peer() for _ in range(given["connections"])]
    alone, end = 0, time.perf_counter() + 3
    while time.perf_counter() < end:
        await invoke(links[0], PING, Empty(), timeout=5); alone += 1
    took, began = [], time.perf_counter()
    end = began + given["seconds"]
    async def load(number):
        while (now := time.perf_counter()) < end:
            if number % 8:
                await invoke(links[number % len(links)], PING, Empty(), timeout=10)
            else:
                await invoke(links[number % len(links)], STATE, StateRequest(), timeout=10)
            took.append((now - began, time.perf_counter() - now))
    async with asyncio.TaskGroup() as tasks:
        for number in range(given["callers"]): tasks.create_task(load(number))
    for link in links: await link.close()
    quarter = given["seconds"] / 4
    def p99(first, last):
        row = sorted(spent for at, spent in took if first <= at < last)
        return row[int(len(row) * 0.99)] * 1e3
    print(json.dumps([alone / 3, len(took) / given["seconds"], p99(0, quarter), p99(3 * quarter, 4 * quarter)]))
uvloop.run(main())
"""

RSS = "for pid in $(systemctl show -p MainPID --value hypermesh-agent); do awk '/^VmRSS/{print $2 / 1024}' /proc/$pid/status; done"


def measure(bed: Bed) -> list[Figure]:
    caller.run(bed, SCRIPT, callers=CALLERS, connections=CONNECTIONS, seconds=3)  # warm: what a first load allocates is kept
    before = float(bed.on("node2", "sh", "-c", RSS))
    alone, rate, first, last = caller.run(bed, SCRIPT, callers=CALLERS, connections=CONNECTIONS, seconds=SECONDS)
    after = float(bed.on("node2", "sh", "-c", RSS))
    how = f"{CALLERS} callers on {CONNECTIONS} connections for {SECONDS} s, seven pings to one `cluster.state`"
    return [
        Figure("calls a second, many at once", rate, "/s", None, "one caller", alone, at_least=True, note=how),
        Figure(
            "sustained load: p99 at the end", last, "ms", None, "at its begin", first, note="last and first quarter of it", tolerance=2.0
        ),
        Figure("sustained load: memory", after, "MB RSS", None, "before it", before, note="of the agent that is called", tolerance=1.3),
        Figure(
            "sustained load: still healthy", float(bed.status()["health"] == "healthy"), "", 1, at_least=True, note="1: by `hmctl status`"
        ),
    ]
