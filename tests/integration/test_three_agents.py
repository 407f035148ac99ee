"""Three control nodes and a worker, as processes: what they must do together, and what must not disturb them.

The tests share one cluster. Each leaves it whole.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from cluster import BOOTSTRAP, CLUSTER, ROOT, ClusterOfProcesses, whole

from hmcore.api import FORM, FORMATION, PING, REPORT, STATE, Empty, FormRequest
from hmcore.config.agent import Voter
from hmcore.errors import HandshakeRefused, InvalidRequest, PeerUnreachable, PermissionDenied
from hmcore.pki import Identity, Kind, create_authority, issue
from hmcore.records import ComponentState as S
from hmcore.records import NodeState
from hmcore.stoq.endpoint import Credentials, Local, dial
from hmcore.stoq.local import connect_streams, connect_unix
from hmcore.stoq.rpc import invoke

SIZE = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[ClusterOfProcesses]:
    cluster = ClusterOfProcesses(tmp_path_factory.mktemp("cluster"), controls=3, workers=1)
    try:
        asyncio.run(cluster.bring_up())
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
async def undisturbed(cluster: ClusterOfProcesses) -> AsyncIterator[None]:
    await cluster.until(lambda reports: whole(reports, SIZE), what="whole before the test")
    yield
    await cluster.until(lambda reports: whole(reports, SIZE), what="whole after the test")


async def test_phases_begin_after_what_they_need_and_components_run(cluster):
    for report in (await cluster.reports()).values():
        phases = {phase.name: phase for phase in report.phases}
        assert set(phases) == {"identity", "transport", "consensus", "container", "orchestration", "api"}
        for name, need in [("transport", "identity"), ("consensus", "transport"), ("orchestration", "consensus"), ("api", "transport")]:
            assert phases[name].began_seconds >= phases[need].began_seconds + phases[need].seconds - 0.001
        assert {name: phase.outcome for name, phase in phases.items() if phase.outcome != "ok"} == {"container": "degraded"}
        states = {name: component.state for name, component in report.components.items()}
        assert states == {"transport": S.RUNNING, "consensus": S.RUNNING, "orchestration": S.RUNNING, "container": S.DEGRADED}
        assert report.reasons == [f"Docker is not installed: there is no {cluster.nodes[report.name].config.docker_socket} and no dockerd"]
        assert report.health_score == 0.9


async def test_all_nodes_hold_the_same_members(cluster):
    states = []
    for name in cluster.nodes:
        async with cluster.connect(name) as connection:
            states.append(await invoke(connection, STATE, Empty(), timeout=2))
    assert len({state.leader for state in states}) == 1
    control = [[node.name for node in state.nodes] for state in states]
    assert control == [["node1", "node2", "node3", "node4"]] * SIZE
    report = await cluster.report("node4")
    assert report is not None
    assert report.raft.role == "observer"
    assert {event.kind for event in states[0].events} >= {"cluster.formed", "node.joined"}


async def test_a_killed_leader_is_replaced_and_called_down_and_comes_back(cluster):
    leader = (await cluster.reports())["node1"].raft.leader
    assert leader is not None
    cluster.nodes[leader].kill()

    def noticed(reports):
        others = [report for report in reports.values() if report.raft.role in ("leader", "follower")]
        return len(others) == 2 and all(
            report.raft.leader not in (None, leader) and {node.name: node.state for node in report.members}[leader] is NodeState.DOWN
            for report in others
        )

    await cluster.until(noticed, what="a new leader that calls the old one down")
    cluster.nodes[leader].start()
    await cluster.until(lambda reports: whole(reports, SIZE), what="it came back")


async def test_kill_9_of_all_loses_nothing(cluster):
    async with cluster.connect("node1") as connection:
        before = await invoke(connection, STATE, Empty(), timeout=2)
    for node in cluster.nodes.values():
        assert node.process is not None
        node.process.kill()
    for node in cluster.nodes.values():
        node.kill()
    cluster.start()
    await cluster.until(lambda reports: whole(reports, SIZE), seconds=15, what="the same cluster again")
    async with cluster.connect("node1") as connection:
        after = await invoke(connection, STATE, Empty(), timeout=2)
        formation = await invoke(connection, FORMATION, Empty(), timeout=2)
    assert after.index > before.index
    assert after.term > before.term
    assert after.events[: len(before.events)] == before.events
    assert formation.formed


async def test_a_stopped_node_says_good_bye_and_exits_with_0(cluster):
    follower = next(report.name for report in (await cluster.reports()).values() if report.raft.role == "follower")
    assert cluster.nodes[follower].terminate() == 0

    def stopped(reports):
        states = [{node.name: (node.state, node.state_reason) for node in report.members} for report in reports.values()]
        return len(reports) == SIZE - 1 and all(state[follower] == (NodeState.DOWN, "stopped") for state in states if state)

    await cluster.until(stopped, what="everybody knows that it was stopped")
    assert not cluster.nodes[follower].config.socket.exists()
    cluster.nodes[follower].start()
    await cluster.until(lambda reports: whole(reports, SIZE), what="it came back")


async def test_a_survivor_without_quorum_stays_up_and_says_so(cluster):
    cluster.nodes["node2"].kill()
    cluster.nodes["node3"].kill()
    reports = await cluster.until(
        lambda reports: "node1" in reports and reports["node1"].components["consensus"].state is S.DEGRADED, what="no quorum"
    )
    assert "no quorum: 1 of 3 voters reachable" in reports["node1"].reasons
    assert reports["node1"].raft.leader is None
    cluster.nodes["node2"].start()
    cluster.nodes["node3"].start()
    await cluster.until(lambda reports: whole(reports, SIZE), what="the others came back")


async def test_a_node_whose_disk_was_emptied_is_filled_again_and_votes_again(cluster):
    cluster.nodes["node3"].kill()
    shutil.rmtree(cluster.nodes["node3"].config.data_dir)
    cluster.nodes["node3"].start()
    reports = await cluster.until(
        lambda reports: whole(reports, SIZE) and reports["node3"].raft.role in ("follower", "leader"), what="re-seeded"
    )
    assert reports["node3"].formed


@pytest.fixture
def edited(cluster):
    """node1 is down, and its agent.yaml is the operator's to edit; afterwards it is as it was."""
    node = cluster.nodes["node1"]
    original = node.config
    node.kill()
    yield node
    if node.process.poll() is None:
        node.kill()
    node.config = original
    node.start()


async def test_an_edited_file_adds_no_voter(cluster, edited):
    worker = cluster.nodes["node4"].config
    more = Voter(name="node4", address=worker.address, port=worker.port)
    edited.config = edited.config.model_copy(update={"voters": (*edited.config.voters, more)})
    edited.start()
    reports = await cluster.until(
        lambda reports: (
            "node1" in reports and any("agent.yaml names other voters (node4)" in reason for reason in reports["node1"].reasons)
        ),
        what="node1 says what is wrong",
    )
    assert all(report.raft.voters == ["node1", "node2", "node3"] for report in reports.values())
    assert reports["node1"].raft.leader is not None
    assert reports["node1"].components["consensus"].state is S.DEGRADED


async def test_an_edited_file_takes_no_vote_away(cluster, edited):
    """Alone in its file, node1 would be a majority of itself."""
    before = edited.log
    edited.config = edited.config.model_copy(update={"voters": tuple(voter for voter in edited.config.voters if voter.name == "node1")})
    edited.start()
    assert await asyncio.to_thread(edited.process.wait, 10) != 0
    assert "agent.yaml does not name node2, node3" in edited.log.removeprefix(before)


async def test_forming_again_changes_nothing(cluster):
    await cluster.form("node1")
    async with cluster.connect("node1") as connection:
        with pytest.raises(InvalidRequest, match="set up to form with node1, node2, node3, and is asked to form with node1"):
            await invoke(connection, FORM, FormRequest(bootstrap=BOOTSTRAP, voters=["node1"]), timeout=2)
        with pytest.raises(InvalidRequest, match="set up for another formation"):
            await invoke(connection, FORM, FormRequest(bootstrap="another", voters=cluster.voters), timeout=2)
    async with cluster.connect("node4") as connection:
        with pytest.raises(InvalidRequest, match="worker"):
            await invoke(connection, FORM, FormRequest(bootstrap=BOOTSTRAP, voters=cluster.voters), timeout=2)


async def test_a_viewer_reads_but_may_not_change_and_the_refusal_is_logged(cluster):
    async with cluster.connect("node1", Kind.VIEWER) as connection:
        assert (await invoke(connection, REPORT, Empty(), timeout=2)).name == "node1"
        with pytest.raises(PermissionDenied, match=r"viewer tester may not call cluster\.form"):
            await invoke(connection, FORM, FormRequest(bootstrap=BOOTSTRAP, voters=cluster.voters), timeout=2)
    assert "refused: viewer tester may not call cluster.form" in cluster.nodes["node1"].log


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
