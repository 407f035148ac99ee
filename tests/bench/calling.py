"""Latency of a call from one host to the agent of another, as it is between agents: QUIC, mutual TLS, uvloop, the shipped release.

Beside it, in the same process and by turns: an echo over TCP and TLS 1.3 on that host's loopback, the least that a call could cost.
"""

from __future__ import annotations

import statistics

import caller
from bed import Bed
from figures import Figure, Kind

BLOCKS, CALLS = 10, 600

PEER = "TLS echo"
P50 = Kind("call between hosts, p50", "ms", 2, PEER)
P99 = Kind("call between hosts, p99", "ms", 5, PEER, tolerance=1.8)
FIGURES = (P50, P99)

SCRIPT = """
async def main():
    to = await peer()
    server, [line] = await echo(1)
    blocks = []
    for block in range(given["blocks"] + 1):
        took, base = [], []
        for _ in range(given["calls"]):
            began = time.perf_counter()
            await invoke(to, PING, Empty(), timeout=5)
            took.append(time.perf_counter() - began)
            began = time.perf_counter()
            await echoed(line)
            base.append(time.perf_counter() - began)
        blocks.append([at(row, part) for part in (0.5, 0.99) for row in (took, base)])
    line[1].close(); server.close(); await to.close()
    print(json.dumps(blocks[1:]))
uvloop.run(main())
"""


def measure(bed: Bed) -> list[Figure]:
    blocks = caller.run(bed, SCRIPT, blocks=BLOCKS, calls=CALLS)
    p50, echo50, p99, echo99 = zip(*blocks, strict=True)
    how = f"`node.ping` one after the other, the median of {BLOCKS} blocks of {CALLS}; echo on one host's loopback, by turns"
    best = "the same calls, the best of the blocks: what others do on the machine is in the worst"
    return [P50.of(statistics.median(p50), statistics.median(echo50), how), P99.of(min(p99), min(echo99), best)]
