"""Who may do what with a live agent, over the real network and on its own socket; and what strangers' bytes do to it: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from clusters import Cluster
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hmcore import pki
from hmcore.api import FORM, FORMATION, REPORT, Empty, FormRequest
from hmcore.config import yaml12
from hmcore.errors import HandshakeRefused, PermissionDenied
from hmcore.pki import Identity, KeyPair, Kind
from hmcore.stoq.endpoint import Connection, Credentials, Local, dial
from hmcore.stoq.rpc import invoke
from hmctl.state import OperatorStore

PORT = 7443
SOCKET = "/run/hypermesh/agent.sock"
PATIENCE = 10.0  # seconds for one connection or call on a busy machine
NOW = datetime.now(UTC)
EVERY = 10.0  # seconds: an agent writes down at most one stranger in so many (hmcore/stoq/complaints.py)


@dataclass(frozen=True)
class Gate:
    """One cluster as seen by whoever holds its CA, and by those who do not."""

    cluster: Cluster
    id: str
    authority: KeyPair

    def address(self, node: str) -> str:
        return next(host.address for host in self.cluster.lab.view().hosts if host.name == node)

    def credentials(self, name: str, kind: Kind, *, now: datetime = NOW, cluster: str | None = None) -> Credentials:
        pair = pki.issue(self.authority, Identity(cluster or self.id, kind, name), now)
        return Credentials(self.authority.certificate, pair.certificate, pair.key)

    async def dial(self, node: str, credentials: Credentials, name: str, kind: Kind) -> Connection:
        """As a client that does everything right, with whatever certificate."""
        local = Local(Identity(self.id, kind, name), kind.value, "r1")
        server = Identity(self.id, Kind.NODE, node)
        return await dial(self.address(node), PORT, credentials=credentials, local=local, server=server, timeout=PATIENCE)


@pytest.fixture(scope="module")
def gate(cluster: Cluster) -> Gate:
    """A healthy cluster."""
    cluster.until_healthy()
    document = yaml12.load(cluster.inventory.read_text(), "lab").value
    assert isinstance(document, dict)
    store = OperatorStore.open(document["id"], Path(cluster.hmctl.environ["XDG_DATA_HOME"]) / "hypermesh")
    return Gate(cluster, document["id"], store.authority())


# The wrong certificate


def of_a_strangers_ca(gate: Gate) -> Credentials:
    pair = pki.issue(pki.create_authority(gate.id, NOW), Identity(gate.id, Kind.OPERATOR, "mallory"), NOW)
    return Credentials(gate.authority.certificate, pair.certificate, pair.key)


def expired(gate: Gate) -> Credentials:
    return gate.credentials("mallory", Kind.OPERATOR, now=NOW - timedelta(days=400))


def of_another_cluster(gate: Gate) -> Credentials:
    return gate.credentials("mallory", Kind.OPERATOR, cluster="hm-0therc1uste")


@pytest.mark.parametrize(
    ("node", "certificate", "reason"),
    [
        ("node1", of_a_strangers_ca, "the certificate was signed by another CA"),
        ("node2", expired, r"the certificate expired on \d{4}-\d\d-\d\d"),
        ("node3", of_another_cluster, r"the certificate belongs to cluster hm-0therc1uste, this is hm-\w+"),
    ],
    ids=["a stranger's CA", "expired", "another cluster"],
)
def test_a_certificate_that_is_not_ours_is_refused_with_the_reason(
    gate: Gate, node: str, certificate: Callable[[Gate], Credentials], reason: str, eventually: Callable[..., None]
) -> None:
    pid, before = gate.cluster.agent_pid(node), len(gate.cluster.journal(node))

    def is_refused_and_written_down() -> object:
        with pytest.raises(HandshakeRefused, match=reason):
            asyncio.run(gate.dial(node, certificate(gate), "mallory", Kind.OPERATOR))
        said = gate.cluster.journal(node)[before:]
        return re.search(rf"no welcome for \S+.*: .*{reason}", said)

    # A line may be withheld for the sake of the stranger before; then the next one's is written.
    eventually(is_refused_and_written_down, within=3 * EVERY, every=0.5)
    assert gate.cluster.agent_pid(node) == pid


class Intruder(QuicConnectionProtocol):
    """A QUIC client that hmcore's own cannot be: without a certificate, or with garbage to say."""

    ended: asyncio.Future[ConnectionTerminated]

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result(event)


async def intrude(gate: Gate, node: str, credentials: Credentials | None, sends: bytes) -> str:
    """The reason with which the agent ended the connection of an intruder who sends this at once."""
    setup = QuicConfiguration(is_client=True, alpn_protocols=["stoq/1"], server_name=Identity(gate.id, Kind.NODE, node).dns)
    setup.cadata = gate.authority.certificate
    if credentials is not None:
        setup.certificate = x509.load_pem_x509_certificate(credentials.certificate)
        setup.private_key = load_pem_private_key(credentials.key, None)
    async with connect(gate.address(node), PORT, configuration=setup, create_protocol=Intruder, wait_connected=False) as peer:
        assert isinstance(peer, Intruder)
        peer.ended = asyncio.get_running_loop().create_future()
        peer._quic.send_stream_data(0, sends)
        peer.transmit()
        return (await asyncio.wait_for(peer.ended, PATIENCE)).reason_phrase


async def test_nobody_enters_without_a_certificate(gate: Gate) -> None:
    assert "a certificate of the cluster is required" in await intrude(gate, "node1", None, b"")


async def test_a_name_that_the_certificate_does_not_bear_is_refused(gate: Gate) -> None:
    with pytest.raises(HandshakeRefused, match="hello names mallory"):
        await gate.dial("node1", gate.credentials("alice", Kind.OPERATOR), "mallory", Kind.OPERATOR)


# The right certificate, and what it is not good for


async def test_a_viewer_sees_all_and_changes_nothing(gate: Gate, eventually: Callable[..., None]) -> None:
    node = "node2"
    viewer = await gate.dial(node, gate.credentials("victor", Kind.VIEWER), "victor", Kind.VIEWER)
    try:
        report = await invoke(viewer, REPORT, Empty(), timeout=PATIENCE)
        assert (report.name, report.formed) == (node, True)
        term = (await invoke(viewer, FORMATION, Empty(), timeout=PATIENCE)).term
        with pytest.raises(PermissionDenied, match=r"viewer victor may not call cluster\.form"):
            await invoke(viewer, FORM, FormRequest(bootstrap="0" * 32, voters=[node]), timeout=PATIENCE)
        assert (await invoke(viewer, FORMATION, Empty(), timeout=PATIENCE)).term == term
    finally:
        await viewer.close()
    eventually(lambda: "refused: viewer victor may not call cluster.form" in gate.cluster.journal(node), within=PATIENCE, every=0.2)


def test_the_socket_is_roots_alone(gate: Gate) -> None:
    knock = f"import socket; socket.socket(socket.AF_UNIX).connect({SOCKET!r})"
    gate.cluster.inside("node1", "python3", "-c", knock)
    refused = gate.cluster.lab.exec("node1", ["runuser", "-u", "ops", "--", "python3", "-c", knock])
    assert refused.returncode == 1
    assert b"PermissionError" in refused.stderr
    assert gate.cluster.inside("node1", "stat", "-c", "%a %U", SOCKET).split() == ["600", "root"]


# Bytes that are none of our protocol's

GARBAGE = {
    "a length past all bounds": b"\xff\xff\xff\xff" + b"x" * 64,
    "no msgpack": b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1",
    "another protocol": b"GET / HTTP/1.1\r\nHost: node1\r\n\r\n",
}


@pytest.mark.parametrize("sends", GARBAGE.values(), ids=GARBAGE.keys())
async def test_an_operator_who_speaks_garbage_is_hung_up_on(gate: Gate, sends: bytes) -> None:
    pid = gate.cluster.agent_pid("node3")
    assert await intrude(gate, "node3", gate.credentials("alice", Kind.OPERATOR), sends)
    assert gate.cluster.agent_pid("node3") == pid


def flood(address: str, seconds: float) -> int:
    """Datagrams sent: noise of any size, and what begins like a first QUIC packet, as fast as a busy machine bears."""
    dice, sent, until = random.Random(7443), 0, time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, PORT))
        while time.monotonic() < until:
            for _ in range(25):
                noise = dice.randbytes(dice.choice((0, 1, 7, 40, 1200, 1400)))
                first = (
                    b"\xc0\x00\x00\x00\x01\x08" + dice.randbytes(8) + b"\x08" + dice.randbytes(8) + b"\x00\x44\xb0" + dice.randbytes(1200)
                )
                for datagram in (noise, first):
                    with contextlib.suppress(OSError):  # the kernel has no room for it
                        sock.send(datagram)
                        sent += 1
            time.sleep(0.01)
    return sent


async def test_a_flood_of_noise_leaves_the_agent_as_it_was(gate: Gate) -> None:
    node = gate.cluster.names[1]
    pid, size = gate.cluster.agent_pid(node), len(gate.cluster.journal(node))
    operator = await gate.dial(node, gate.credentials("alice", Kind.OPERATOR), "alice", Kind.OPERATOR)
    try:
        flooding = asyncio.get_running_loop().run_in_executor(None, flood, gate.address(node), 2.0)
        answers = 0
        while not flooding.done():
            assert (await invoke(operator, REPORT, Empty(), timeout=PATIENCE)).name == node
            answers += 1
        assert await flooding > 500
        assert answers > 1, "nobody was served during the flood"
    finally:
        await operator.close()
    gate.cluster.until_healthy()
    assert gate.cluster.agent_pid(node) == pid
    assert len(gate.cluster.journal(node)) - size < 10_000, "strangers can fill the journal"
