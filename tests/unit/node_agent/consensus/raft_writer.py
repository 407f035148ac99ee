"""A process to be killed: three voters in one process, writing as fast as they can, and saying what was acknowledged.

python raft_writer.py DIRECTORY PREFIX; prints a request id a line, after its acknowledgement."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from raft_cluster import running

from hmcore.errors import CallRefused
from hmcore.records import Node, Role
from node_agent.consensus.statemachine import machine


async def main(directory: Path, prefix: str) -> None:
    async with running(directory) as cluster:
        await cluster.write(f"{prefix}-form", machine.FormCluster(id="hm-a", bootstrap="b1"))

        async def client(number: int) -> None:
            for count in range(1_000_000):
                request = f"{prefix}-{number}-{count}"
                node = Node(name=f"w{number}", address="198.18.0.9", port=7443, role=Role.WORKER, release=request)
                try:
                    await cluster.write(request, machine.PutNode(node=node))
                except CallRefused:
                    continue
                print(request, flush=True)

        async with asyncio.TaskGroup() as clients:
            for number in range(4):
                clients.create_task(client(number), name=f"client-{number}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
