"""How fast this machine is just now: fixed pieces of work that have nothing of ours in them, measured by turns with our figures.

Peers for what no other tool does. A machine that is shared or slow makes both slower; a change of our code only ours.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

START = "Python's own start"  # the peer's name: a process that imports asyncio and ssl, and ends
PROGRAM = "import asyncio, ssl"
HELD = "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"  # wait4 tells our own, too
TIMER = "a timer of asyncio's, 20 times a second"

# Runs for SECONDS on a host and prints the processor time that it took, in seconds: some work for a loop that sleeps else.
TICKING = """
import asyncio, json, time
rows = [{"name": f"node{number}", "state": "running", "since": 1.5 * number} for number in range(30)]
async def main():
    end, before = time.monotonic() + SECONDS, time.process_time()
    while time.monotonic() < end:
        await asyncio.sleep(0.05)
        json.loads(json.dumps(rows))
    print(time.process_time() - before)
asyncio.run(main())
"""


@dataclass(frozen=True)
class Start:
    """`wall` and `cpu` (user and system) in seconds; `memory`: the most that it held, in MB."""

    wall: float
    cpu: float
    memory: float


def start() -> Start:
    """Raises RuntimeError when Python does not start."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-I", "-c", PROGRAM + HELD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        held = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{sys.executable} -I -c '{PROGRAM}' ended with {process.returncode}")
    return Start(wall, usage.ru_utime + usage.ru_stime, int(held) / 1000)


def typical(starts: list[Start]) -> Start:
    """The median wall time, the least processor time."""
    return Start(
        statistics.median(one.wall for one in starts), min(one.cpu for one in starts), statistics.median(one.memory for one in starts)
    )
