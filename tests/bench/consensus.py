"""Writes through consensus, beside etcd's in the same run: latency, throughput, the gap that a lost leader makes, and 100,000 keys.

Not on the lab's hosts: three agents and three members of etcd as processes of this machine, on loopback, with directories on one file
system. Both sync what they acknowledge, with their own defaults. Callers are the same on both sides: so many, each with one key and one
call outstanding, on as many connections to the leader; by turns. Ours speak QUIC with certificates both ways, etcd's gRPC without TLS.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import consensus_sides as sides
import uvloop
from bed import Bed
from consensus_load import Load, typical
from consensus_turns import after_crash, after_transfer, fill, largest, restarted, writers
from figures import Figure, Kind

ROUNDS, SECONDS = 5, 3.0
CRASHES = 5
KEYS = 100_000
FILLERS = 256
CONNECTIONS = {1: 1, 64: 4, 1000: 16}  # by callers

PEER = "etcd"
AS_FAST = "as fast as etcd"
P50 = Kind("consensus: write, one after the other, p50", "ms", None, PEER)
P50_OVER = Kind("consensus: write, one after the other, p50 over etcd's", "x", 2.5, AS_FAST)
P99 = Kind("consensus: write, one after the other, p99", "ms", None, PEER, tolerance=1.8)
RATE_1 = Kind("consensus: writes a second, 1 caller", "/s", None, PEER, at_least=True)
RATE_64 = Kind("consensus: writes a second, 64 callers", "/s", None, PEER, at_least=True)
RATE_64_OVER = Kind("consensus: writes a second, 64 callers, over etcd's", "x", 1, AS_FAST, at_least=True)
RATE_1000 = Kind("consensus: writes a second, 1000 callers", "/s", None, PEER, at_least=True)
CRASH = Kind("consensus: leader killed to next write, balanced", "s", 3, PEER, tolerance=1.8)
CRASH_FAST = Kind("consensus: leader killed to next write, high-performance", "s", 1.5, PEER, tolerance=1.8)
TRANSFER = Kind("consensus: leader transferred to next write", "s", 1, PEER, tolerance=1.8)
RESTART = Kind("consensus: restart with 100,000 keys", "s", 5, PEER, tolerance=1.8)
MEMORY = Kind("consensus: memory with 100,000 keys", "MB RSS", 250, PEER, tolerance=1.3)
FIGURES = (P50, P50_OVER, P99, RATE_1, RATE_64, RATE_64_OVER, RATE_1000, CRASH, CRASH_FAST, TRANSFER, RESTART, MEMORY)

Sides = tuple[sides.Side, sides.Side]  # ours, etcd


def measure(bed: Bed) -> list[Figure]:
    """`bed` is where the other benchmarks are; these have processes of their own. Raises EtcdUnavailable, Unacknowledged."""
    with tempfile.TemporaryDirectory(prefix="hypermesh-consensus-") as directory:
        return uvloop.run(_measure(Path(directory)))


async def _measure(directory: Path) -> list[Figure]:
    async with sides.etcd(directory / "etcd") as etcd:
        async with sides.agents(directory / "balanced") as agents:
            figures = await _writes((agents, etcd))
            ours, theirs = await _crashes(agents), await _crashes(etcd)
            how = f"the longest of {CRASHES}; SIGKILL to the leader, both survivors tried at once; election timeouts 1-2 s on both sides"
            figures.append(CRASH.of(max(ours), max(theirs), how))
            ours, moved = await _transfers(agents), await _transfers(etcd)
            how = f"the longest of {CRASHES}; from the order to the leader until the new one acknowledges a write"
            figures.append(TRANSFER.of(max(ours), max(moved), how))
        async with sides.agents(directory / "high-performance", "high-performance") as agents:
            how = "the same with election timeouts of 0.5-1 s; etcd's as above"
            figures.append(CRASH_FAST.of(max(await _crashes(agents)), max(theirs), how))
        async with sides.agents(directory / "full") as agents:
            figures += await _full((agents, etcd))
    return figures


async def _writes(both: Sides) -> list[Figure]:
    found = {callers: await _turns(both, callers) for callers in CONNECTIONS}

    def pair(callers: int, what: Callable[[Load], float]) -> tuple[float, float]:
        ours, theirs = found[callers]
        return typical(ours, what), typical(theirs, what)

    def how(callers: int) -> str:
        (our_client, our_servers), (client, servers) = (
            [statistics.median(costs) for costs in zip(*(each.cost for each in loads), strict=True)] for loads in found[callers]
        )
        lines = CONNECTIONS[callers]
        return (
            f"median of {ROUNDS} turns of {SECONDS:g} s on {lines} connection{'s' * (lines > 1)}; processor time of a write: client "
            f"{our_client:.0f} µs, servers {our_servers:.0f} µs; etcd {client:.0f} µs and {servers:.0f} µs"
        )

    p50, p99 = pair(1, lambda load: load.at(0.5)), pair(1, lambda load: load.at(0.99))
    rates = {callers: pair(callers, lambda load: load.rate) for callers in CONNECTIONS}
    return [
        P50.of(*p50, how(1)),
        P50_OVER.of(p50[0] / p50[1], 1.0, "the same"),
        P99.of(*p99, "the same"),
        RATE_1.of(*rates[1], "the same"),
        RATE_64.of(*rates[64], how(64)),
        RATE_64_OVER.of(rates[64][0] / rates[64][1], 1.0, "the same"),
        RATE_1000.of(*rates[1000], how(1000)),
    ]


async def _turns(both: Sides, callers: int) -> tuple[list[Load], list[Load]]:
    ours: list[Load] = []
    theirs: list[Load] = []
    for _ in range(ROUNDS):
        for side, loads in zip(both, (ours, theirs), strict=True):
            loads.append(await writers(side, callers=callers, connections=CONNECTIONS[callers], seconds=SECONDS))
    return ours, theirs


async def _crashes(side: sides.Side) -> list[float]:
    return [await after_crash(side) for _ in range(CRASHES)]


async def _transfers(side: sides.Side) -> list[float]:
    return [await after_transfer(side) for _ in range(CRASHES)]


async def _full(both: Sides) -> list[Figure]:
    seconds, megabytes = [], []
    for side in both:
        await fill(side, KEYS, callers=FILLERS, connections=CONNECTIONS[64])
        seconds.append(await restarted(side, f"fill/{KEYS - 1}"))
        megabytes.append(largest(side))
    how = "a follower's process, killed and started again, until it answers with the last of 100,000 keys of 200 bytes"
    return [RESTART.of(*seconds, how), MEMORY.of(*megabytes, "the largest of the three, the one that was started again included")]


async def main(directory: Path) -> None:
    for figure in await _measure(directory):
        target = "" if figure.kind.target is None else f", target {figure.kind.target:g}"
        print(f"{figure.name}: {figure.value:.4g} {figure.kind.unit} (beside it {figure.peer_value:.4g}{target}) {figure.note}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="hypermesh-consensus-") as directory:
        uvloop.run(main(Path(directory)))
    sys.exit()
