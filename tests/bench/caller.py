"""Calls between agents as a figure: a script that runs on a lab host, with the release that runs there, and calls another host's agent."""

from __future__ import annotations

import json
from typing import Any

from bed import Bed

from hmcore.pki import read_identity

# Credentials come in on stdin and stay in memory. `peer()` dials a connection, `echo(n)` makes the peer:
# n connections to an echo over TCP and TLS 1.3 in the same process. What follows is the measurement's own.
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
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def echo(count):
    import pathlib, tempfile
    with tempfile.TemporaryDirectory() as directory:
        pem = pathlib.Path(directory, "both.pem")
        pem.touch(mode=0o600)
        pem.write_text(given["certificate"] + given["key"])
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); serving.load_cert_chain(pem)
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); asking.check_hostname = False; asking.verify_mode = ssl.CERT_NONE
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=serving)
    return server, [await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=asking) for _ in range(count)]
async def echoed(line):
    reader, writer = line
    writer.write(b"x" * 64)
    await reader.readexactly(64)
def at(row, part):
    return sorted(row)[int((len(row) - 1) * part)] * 1e3
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
