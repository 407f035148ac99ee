"""Calls between agents as a figure: a script that runs on a lab host, with the release that runs there, and calls another host's agent."""

from __future__ import annotations

import json
from typing import Any

from bed import Bed

from hmcore.pki import read_identity

# Credentials come in on stdin and stay in memory. `peer(n)` dials the n-th connection; what follows is the measurement's own.
PREAMBLE = """
import asyncio, json, resource, ssl, sys, time, uvloop
from hmcore.api import PING, STATE, Empty, StateRequest
from hmcore.pki import Identity, Kind
from hmcore.stoq.endpoint import Credentials, Local, dial
from hmcore.stoq.rpc import invoke
given = json.load(sys.stdin)
async def peer():
    credentials = Credentials(ca=given["ca"].encode(), certificate=given["certificate"].encode(), key=given["key"].encode())
    local = Local(identity=Identity(given["cluster"], Kind.OPERATOR, given["operator"]), role="operator", release="bench")
    return await dial(given["address"], given["port"], credentials=credentials, local=local,
                      server=Identity(given["cluster"], Kind.NODE, given["node"]), timeout=5)
"""


def run(bed: Bed, script: str, **given: object) -> Any:
    """What `script` prints on node1 as JSON. It finds in `given`: the way to node2's agent, and what is passed here."""
    document = json.loads(bed.hmctl("config", "show", "-o", "json").stdout)
    store = next((bed.directory / "data" / "hypermesh").iterdir())
    certificate = (store / "operator.pem").read_text()
    target = next(host for host in document["hosts"] if host["name"] == "node2")
    told = {
        "ca": (store / "ca.pem").read_text(),
        "certificate": certificate,
        "key": (store / "operator.key").read_text(),
        "cluster": document["id"],
        "operator": read_identity(certificate.encode()).name,
        "address": target["address"],
        "port": target.get("port", 7443),
        "node": "node2",
        **given,
    }
    argv = ("env", "PYTHONPATH=/opt/hypermesh/current", "python3", "-c", PREAMBLE + script)
    return json.loads(bed.on("node1", *argv, stdin=json.dumps(told)))
