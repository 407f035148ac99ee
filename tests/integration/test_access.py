"""Who may speak to an agent, and by which ways."""

from __future__ import annotations

import asyncio
import sys

import pytest
from cluster import BOOTSTRAP, CLUSTER, ROOT

from hmcore.api import FORM, PING, REPORT, Empty, FormRequest
from hmcore.apps.streams import EXEC, LOGS, ExecRequest, LogPresent, LogsRequest
from hmcore.errors import HandshakeRefused, InvalidRequest, PeerUnreachable, PermissionDenied
from hmcore.pki import Identity, Kind, create_authority, issue
from hmcore.stoq.dialogue import open_talk
from hmcore.stoq.endpoint import Credentials, Local, dial
from hmcore.stoq.local import connect_streams, connect_unix
from hmcore.stoq.rpc import invoke


async def test_a_viewer_reads_but_may_not_change_and_the_refusal_is_logged(cluster):
    async with cluster.connect("node1", Kind.VIEWER) as connection:
        assert (await invoke(connection, REPORT, Empty(), timeout=2)).name == "node1"
        with pytest.raises(PermissionDenied, match=r"viewer tester may not call cluster\.form"):
            await invoke(connection, FORM, FormRequest(bootstrap=BOOTSTRAP, voters=cluster.voters), timeout=2)
    assert "refused: viewer tester may not call cluster.form" in cluster.nodes["node1"].log


async def test_a_viewer_reads_logs_and_runs_no_commands_at_an_agent_and_at_its_socket_an_operator_may_both(cluster):
    run = ExecRequest(allocation="shop/web.1.1", command=["sh"])
    async with cluster.connect("node4", Kind.VIEWER) as viewer:
        async with await open_talk(viewer, LOGS, LogsRequest(app="shop"), timeout=2) as talk:
            assert (await talk.receive(), await talk.receive()) == (LogPresent(), None)
        async with await open_talk(viewer, EXEC, run, timeout=2) as talk:
            with pytest.raises(PermissionDenied, match=r"viewer tester may not open apps\.exec"):
                await talk.receive()
    assert "refused: viewer tester may not open apps.exec" in cluster.nodes["node4"].log
    operator = await connect_unix(str(cluster.nodes["node4"].config.socket))
    async with await open_talk(operator, LOGS, LogsRequest(app="shop"), timeout=2) as talk:
        assert await talk.receive() == LogPresent()
    async with await open_talk(operator, EXEC, run, timeout=2) as talk:
        with pytest.raises(InvalidRequest, match="there is no container of it here"):
            await talk.receive()
    await operator.close()


async def test_a_stranger_gets_no_answer(cluster):
    stranger = create_authority(CLUSTER, cluster.now)
    identity = Identity(CLUSTER, Kind.OPERATOR, "tester")
    proof = issue(stranger, identity, cluster.now)
    with pytest.raises((HandshakeRefused, PeerUnreachable)):
        await dial(
            "127.0.0.1",
            cluster.nodes["node1"].config.port,
            credentials=Credentials(cluster.authority.certificate, proof.certificate, proof.key),
            local=Local(identity, "client", "test"),
            server=Identity(CLUSTER, Kind.NODE, "node1"),
            timeout=2,
        )


async def test_the_socket_serves_the_same_calls_and_the_relay_leads_to_it(cluster):
    path = str(cluster.nodes["node1"].config.socket)
    connection = await connect_unix(path)
    assert (await invoke(connection, PING, Empty(), timeout=2)).name == "node1"
    await connection.close()

    relay = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "node_agent",
        "relay",
        "--socket",
        path,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert relay.stdin is not None
    assert relay.stdout is not None
    connection = await connect_streams(relay.stdout, relay.stdin)
    assert (await invoke(connection, REPORT, Empty(), timeout=2)).name == "node1"
    await connection.close()
    assert await asyncio.wait_for(relay.wait(), 5) == 0
