"""Latency of a call from one host to the agent of another, as it is between agents: QUIC, mutual TLS, uvloop, the shipped release.

Beside it, in the same process and by turns: an echo over TCP and TLS 1.3 on that host's loopback, the least that a call could cost.
"""

from __future__ import annotations

import caller
from bed import Bed
from figures import Figure

CALLS = 3000

SCRIPT = """
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def echo():
    import pathlib, tempfile
    with tempfile.TemporaryDirectory() as directory:
        pem = pathlib.Path(directory, "both.pem")
        pem.touch(mode=0o600)
        pem.write_text(given["certificate"] + given["key"])
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); serving.load_cert_chain(pem)
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); asking.check_hostname = False; asking.verify_mode = ssl.CERT_NONE
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=serving)
    return server, await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=asking)
async def main():
    to = await peer()
    server, (reader, writer) = await echo()
    took, base = [], []
    for number in range(given["calls"] + 200):
        began = time.perf_counter()
        await invoke(to, PING, Empty(), timeout=5)
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
        writer.write(b"x" * 64)
        await reader.readexactly(64)
        base.append(time.perf_counter() - began)
    writer.close(); server.close(); await to.close()
    took, base = sorted(took[200:]), sorted(base[200:])
    print(json.dumps([[row[int(len(row) * part)] * 1e3 for part in (0.5, 0.99)] for row in (took, base)]))
uvloop.run(main())
"""


def measure(bed: Bed) -> list[Figure]:
    (p50, p99), (echo50, echo99) = caller.run(bed, SCRIPT, calls=CALLS)
    peer = "TLS echo"
    return [
        Figure("call between hosts, p50", p50, "ms", 2, peer, echo50, note=f"{CALLS} sequential `node.ping`; echo on one host's loopback"),
        Figure("call between hosts, p99", p99, "ms", 5, peer, echo99, note="the same calls", tolerance=4.0),
    ]
