"""Latency of a call from one host to the agent of another, as it is between agents: QUIC, mutual TLS, uvloop, the shipped release."""

from __future__ import annotations

import json

from bed import Bed
from figures import Figure

from hmcore.pki import read_identity

CALLS = 3000

# Runs on node1 with the release that runs there. Credentials come in on stdin and stay in memory.
SCRIPT = """
import asyncio, json, sys, time, uvloop
from hmcore.api import PING, Empty
from hmcore.pki import Identity, Kind
from hmcore.stoq.endpoint import Credentials, Local, dial
from hmcore.stoq.rpc import invoke
given = json.load(sys.stdin)
async def main():
    credentials = Credentials(ca=given["ca"].encode(), certificate=given["certificate"].encode(), key=given["key"].encode())
    local = Local(identity=Identity(given["cluster"], Kind.OPERATOR, given["operator"]), role="operator", release="bench")
    peer = await dial(given["address"], given["port"], credentials=credentials, local=local,
                      server=Identity(given["cluster"], Kind.NODE, given["node"]), timeout=5)
    took = []
    for _ in range(given["calls"] + 200):
        began = time.perf_counter()
        await invoke(peer, PING, Empty(), timeout=5)
        took.append(time.perf_counter() - began)
    await peer.close()
    took = sorted(took[200:])
    print(json.dumps([took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3]))
uvloop.run(main())
"""


def measure(bed: Bed) -> list[Figure]:
    document = json.loads(bed.hmctl("config", "show", "-o", "json").stdout)
    store = next((bed.directory / "data" / "hypermesh").iterdir())
    certificate = (store / "operator.pem").read_text()
    target = next(host for host in document["hosts"] if host["name"] == "node2")
    given = {
        "ca": (store / "ca.pem").read_text(),
        "certificate": certificate,
        "key": (store / "operator.key").read_text(),
        "cluster": document["id"],
        "operator": read_identity(certificate.encode()).name,
        "address": target["address"],
        "port": target.get("port", 7443),
        "node": "node2",
        "calls": CALLS,
    }
    said = bed.on("node1", "env", "PYTHONPATH=/opt/hypermesh/current", "python3", "-c", SCRIPT, stdin=json.dumps(given))
    p50, p99 = json.loads(said)
    return [
        Figure("call between hosts, p50", p50, "ms", 2, note=f"{CALLS} sequential `node.ping`"),
        Figure("call between hosts, p99", p99, "ms", 5, note="the same calls"),
    ]
