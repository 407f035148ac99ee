"""Agents over real QUIC on loopback, and over a relay's byte streams: calls, silence, refusals and parallel asking."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hmcore import api, pki
from hmcore.apps.calls import APPS, AppsReply, AppsRequest
from hmcore.apps.records import App, Generation
from hmcore.apps.spec import AppSpec, ContainerSpec, ServiceSpec
from hmcore.config.inventory import Host, Inventory, SshTarget
from hmcore.config.presets import settings_for
from hmcore.errors import (
    AnotherNode,
    HandshakeRefused,
    HyperMeshError,
    NoQuorum,
    PeerUnreachable,
    PermissionDenied,
    PkiError,
    Unreachable,
    UsageError,
)
from hmcore.pki import Identity, Kind
from hmcore.records import ComponentReport, ComponentState, Node, NodeReport, RaftReport, Role
from hmcore.stoq.endpoint import Listener, serve
from hmcore.stoq.greeting import Local, Peer
from hmcore.stoq.local import serve_unix
from hmcore.stoq.mtls import Credentials
from hmcore.stoq.rpc import Router
from hmctl.actions import agents
from hmctl.actions.status import Answer, Health, Silence
from hmctl.actions.survey import survey
from hmctl.client import Access, AgentClient, Via, ask_all, connect, connect_remote
from hmctl.remote.base import Completed
from hmctl.state import OperatorStore

CLUSTER = "hm-abc123defg"
DEADLINE = 10.0


def report_of(name: str) -> NodeReport:
    return NodeReport(
        cluster=CLUSTER,
        name=name,
        address="127.0.0.1",
        role=Role.CONTROL,
        release="r1",
        uptime_seconds=1.0,
        health_score=1.0,
        reasons=[],
        containers=0,
        components={"transport": ComponentReport(state=ComponentState.RUNNING)},
        raft=RaftReport(role="leader", leader=name, term=1, voters=[name], reachable_voters=[name]),
        formed=True,
        members=[Node(name=name, address="127.0.0.1", port=1, role=Role.CONTROL, release="r1")],
        unix_time=time.time(),
    )


def router(name: str, reaches: Sequence[str] = (), apps: AppsReply | HyperMeshError | None = None) -> Router:
    """`reaches`: whose reports it passes on. `apps`: what it tells of them; None: it is of a release that knows of none."""

    async def reports(peer: Peer, request: api.ReportsRequest) -> api.ReportsReply:
        found = [report_of(name) for name in request.nodes if name in reaches]
        return api.ReportsReply(reports=[api.ForwardedReport(report=each, ahead_least=-0.1, ahead_most=0.0) for each in found])

    async def report(peer: Peer, request: api.Empty) -> NodeReport:
        return report_of(name)

    async def form(peer: Peer, request: api.FormRequest) -> api.Formation:
        return api.Formation(bootstrap=request.bootstrap, voters=request.voters, empty=True, permitted=True, formed=False)

    async def ping(peer: Peer, request: api.Empty) -> api.PingReply:
        return api.PingReply(name=name, unix_time=time.time())

    async def list_apps(peer: Peer, request: AppsRequest) -> AppsReply:
        if isinstance(apps, AppsReply):
            return apps
        assert apps is not None
        raise apps

    everyone, operators = frozenset(Kind), frozenset({Kind.OPERATOR})
    return Router(
        {
            api.PING: (everyone, ping),
            api.REPORT: (everyone, report),
            api.REPORTS: (everyone, reports),
            api.FORM: (operators, form),
            api.FORMATION: (frozenset({Kind.NODE}), report),
        }
        | ({} if apps is None else {APPS: (operators, list_apps)})
    )


@pytest.fixture
def store(tmp_path: Path) -> OperatorStore:
    store = OperatorStore.open(CLUSTER, tmp_path / "operator")
    store.create_authority(datetime.now(UTC))
    return store


@asynccontextmanager
async def agent(
    store: OperatorStore, name: str, reaches: Sequence[str] = (), apps: AppsReply | HyperMeshError | None = None
) -> AsyncIterator[Listener]:
    identity = Identity(CLUSTER, Kind.NODE, name)
    pair = pki.issue(store.authority(), identity, datetime.now(UTC))
    credentials = Credentials(ca=store.ca_certificate(), certificate=pair.certificate, key=pair.key)
    local, service = Local(identity, "control", "r1"), router(name, reaches, apps)
    listener = await serve("127.0.0.1", 0, credentials=credentials, local=local, service=service)
    try:
        yield listener
    finally:
        await listener.close()


def host(name: str, port: int, role: Role = Role.CONTROL) -> Host:
    return Host(name=name, ssh=SshTarget("127.0.0.1", port=1), address="127.0.0.1", port=port, role=role)


def silent_port() -> int:
    """A UDP port that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def inventory(*hosts: Host) -> Inventory:
    return Inventory(CLUSTER, "lab", "balanced", settings_for("balanced", {}), hosts, "install", "cluster.yaml")


async def test_typed_calls_over_quic(store: OperatorStore) -> None:
    async with agent(store, "node1") as listener, await connect(host("node1", listener.port), store, via=Via.QUIC) as client:
        assert (await client.report()).name == "node1"
        assert (await client.form(api.FormRequest(bootstrap="b1", voters=["node1"]))).bootstrap == "b1"
        assert client.via is Via.QUIC
        assert client.rtt is not None
        assert 0 < client.rtt < 1
        with pytest.raises(PermissionDenied):
            await client.formation()


async def test_another_node_at_the_address_is_refused(store: OperatorStore) -> None:
    async with agent(store, "node1") as listener:
        with pytest.raises(AnotherNode) as refused:
            await connect(host("node2", listener.port), store, via=Via.QUIC)
        assert (refused.value.found, refused.value.host) == ("node1", "node2")


async def test_without_a_certificate_nobody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(PkiError) as error:
        await connect(host("node1", 1), OperatorStore.open(CLUSTER, tmp_path), via=Via.QUIC)
    assert "hmctl ca import" in (error.value.fix or "")


async def test_through_ssh_no_certificate_is_needed(tmp_path: Path) -> None:
    bare = OperatorStore.open(CLUSTER, tmp_path)
    found = await survey(inventory(host("node1", silent_port())), bare, via=Via.SSH, timeout=1.0)
    assert isinstance(found.answers["node1"], Silence)
    assert [check.status for check in found.status.checks if check.name == "certificate"] == ["warn"]


async def test_the_leader_tells_of_apps_along_with_its_report(store: OperatorStore) -> None:
    shop = App(name="shop", generation=2)
    spec = AppSpec(services={"web": ServiceSpec(container=ContainerSpec(image="web:1"), replicas=3)})
    made = Generation(app="shop", number=2, spec=spec, digest="")
    told = AppsReply(index=9, apps=[shop], generations=[made])
    for apps, counted, said in (
        (told, ["shop"], ["ok"]),
        (NoQuorum("too few voters"), [], ["warn"]),
        (None, [], []),
    ):
        async with agent(store, "node1", apps=apps) as listener:
            found = (await survey(inventory(host("node1", listener.port)), store, timeout=DEADLINE)).status
        assert [app.name for app in found.apps] == counted
        assert [check.status for check in found.checks if check.name == "apps"] == said


async def test_a_dead_node_never_delays_the_rest(store: OperatorStore) -> None:
    answered: dict[str, float] = {}
    began = asyncio.get_running_loop().time()

    async def ask(host: Host) -> str:
        if host.name == "dead":
            await asyncio.Event().wait()
        answered[host.name] = asyncio.get_running_loop().time() - began
        return host.name

    found = await ask_all([host("dead", 1), host("node1", 1), host("node2", 1)], ask, timeout=0.2)
    assert list(found) == ["dead", "node1", "node2"]
    assert isinstance(found["dead"], PeerUnreachable)
    assert (found["node1"], found["node2"]) == ("node1", "node2")
    assert max(answered.values()) < 0.15


async def silent_but(host: Host) -> str:
    """Hosts whose name says so never answer; the others do so at once."""
    if host.name.startswith("dead"):
        await asyncio.Event().wait()
    return host.name


@pytest.mark.long
@pytest.mark.parametrize(
    ("names", "soon"),
    [
        pytest.param(["dead", "node1", "node2"], True, id="most answered"),
        pytest.param(["dead1", "dead2", "node1"], False, id="most are silent"),
        pytest.param(["dead", "node1"], False, id="half is not most"),
    ],
)
async def test_once_most_have_answered_the_rest_is_not_waited_for_much_longer(names: list[str], soon: bool) -> None:
    began = time.monotonic()
    found = await ask_all([host(name, 1) for name in names], silent_but, timeout=1.0, patience=0.1)
    assert (time.monotonic() - began < 0.6) is soon
    assert {name for name, answer in found.items() if isinstance(answer, PeerUnreachable)} == {name for name in names if "dead" in name}


async def test_hosts_whose_turn_comes_late_get_no_less_patience(store: OperatorStore) -> None:
    """The others' answers are in when the last host's turn comes; it needs a moment, and has it."""

    async def ask(host: Host) -> str:
        if host.name == "last":
            moment = asyncio.Event()
            asyncio.get_running_loop().call_later(0.05, moment.set)
            await moment.wait()
        return await silent_but(host)

    hosts = [host(name, 1) for name in ("node1", "node2", "node3", "dead1", "last")]
    found = await ask_all(hosts, ask, timeout=5.0, patience=0.2, at_once=1)
    assert found["last"] == "last"
    assert isinstance(found["dead1"], PeerUnreachable)


async def test_hosts_beyond_the_limit_get_their_full_time(store: OperatorStore) -> None:
    busy: list[int] = [0, 0]

    async def ask(host: Host) -> None:
        busy[0] += 1
        busy[1] = max(busy)
        await asyncio.sleep(0)
        busy[0] -= 1

    hosts = [host(f"node{number}", 1) for number in range(50)]
    found = await ask_all(hosts, ask, timeout=DEADLINE, at_once=4)
    assert len(found) == 50
    assert not any(isinstance(answer, HyperMeshError) for answer in found.values())
    assert busy[1] == 4


def block(seconds: float) -> None:
    """This machine has no CPU for us: for so long, our loop does not turn."""
    asyncio.get_running_loop().call_soon(time.sleep, seconds)


@pytest.mark.long
async def test_time_that_our_own_loop_was_late_for_is_not_held_against_a_node_and_delays_nobody_else() -> None:
    """Each answer takes several turns of the loop, as a handshake does, and each turn most of the deadline."""
    turns = 0

    async def ask(host: Host) -> str:
        nonlocal turns
        if host.name == "dead":
            await asyncio.Event().wait()
        for _ in range(5):
            block(0.15)
            turns += 1
            await asyncio.sleep(0.01)
        return host.name

    began = time.monotonic()
    found = await ask_all([host("node1", 1), host("dead", 1)], ask, timeout=0.3)
    assert (found["node1"], turns) == ("node1", 5)
    assert isinstance(found["dead"], PeerUnreachable)
    assert time.monotonic() - began < 5 * 0.15 + 0.6, "the dead one gets what its deadline lost, and no more"


async def test_a_healthy_cluster_is_not_called_critical_because_we_had_no_cpu(
    store: OperatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmctl.actions.survey.DEADLINE", 0.3)
    async with agent(store, "node1") as listener:
        asyncio.get_running_loop().call_later(0.005, time.sleep, 0.6)  # the handshake is under way
        found = await survey(inventory(host("node1", listener.port)), store)
    assert found.via is Via.QUIC
    assert isinstance(found.answers["node1"], Answer)


async def test_nor_is_ssh_tried_for_agents_that_answer_as_soon_as_we_listen(store: OperatorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "DEADLINE", 0.3)
    async with agent(store, "node1") as listener, agents.Agents([host("node1", listener.port)], Access.of(store)) as asked:
        asyncio.get_running_loop().call_later(0.005, time.sleep, 0.6)
        found = await asked.ask_all(lambda client: client.ping())
    assert isinstance(found["node1"], api.PingReply), found


async def test_whoever_would_follow_more_agents_than_ssh_has_connections_for_is_told_what_would_do(store: OperatorStore) -> None:
    dead = [Host(f"node{n}", SshTarget("127.0.0.1", port=1), "127.0.0.1", silent_port(), Role.CONTROL) for n in (1, 2)]
    async with agents.Agents(dead, Access.of(store), timeout=0.1, standing=True, limit=1) as asked:
        with pytest.raises(UsageError, match="no agent answers over QUIC, and through SSH no more than 1 ") as error:
            await asked.ask_all(lambda client: client.ping())
    assert "too few to follow 2 nodes" in error.value.message
    assert "--node" in (error.value.fix or "")


async def test_a_bug_in_the_question_is_not_taken_for_silence() -> None:
    async def ask(host: Host) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        await ask_all([host("node1", 1)], ask, timeout=1.0)


async def test_survey_of_one_live_and_one_silent_node_takes_the_timeout_and_no_longer(store: OperatorStore) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, socket.create_server(("127.0.0.1", 0)) as ssh:
        silent.bind(("127.0.0.1", 0))  # takes what comes, answers nothing: a host that is down
        ssh.setblocking(False)
        dead = Host("node2", SshTarget("127.0.0.1", port=ssh.getsockname()[1]), "127.0.0.1", silent.getsockname()[1], Role.CONTROL)
        async with agent(store, "node1") as listener:
            began = time.monotonic()
            found = await survey(inventory(host("node1", listener.port), dead), store, timeout=0.5)
            took = time.monotonic() - began
        with pytest.raises(BlockingIOError):
            ssh.accept()  # nobody tried SSH: UDP is open, as the other node shows
    assert 0.5 <= took < 1.0
    assert found.via is Via.QUIC
    assert isinstance(found.answers["node1"], Answer)
    silence = found.answers["node2"]
    assert isinstance(silence, Silence)
    assert not silence.reached
    assert found.status.health is Health.WARNING
    assert [str(node.state) for node in found.status.nodes] == ["ready", "unreachable"]
    assert abs(found.answers["node1"].offset_seconds) < 0.5


async def test_of_a_large_cluster_only_witnesses_are_dialled_and_whom_control_nodes_do_not_reach(
    store: OperatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmctl.actions.survey.FEW", 3)
    monkeypatch.setattr("hmctl.actions.survey.OTHER_WITNESSES", 1)
    nowhere = silent_port()  # it would be refused at once there
    async with (
        agent(store, "node1", reaches=["far1", "far2", "asked"]) as control,
        agent(store, "alone") as alone,
        agent(store, "asked") as asked,
    ):
        hosts = [
            host("node1", control.port),
            host("far1", nowhere, Role.WORKER),  # the first worker: a witness, asked directly
            *(host(name, port, Role.WORKER) for name, port in (("far2", nowhere), ("alone", alone.port), ("dead", nowhere))),
            host("asked", asked.port, Role.WORKER),
        ]
        found = await survey(inventory(*hosts), store, closely=["asked"])
    through = {name: answer.through if isinstance(answer, Answer) else "silent" for name, answer in found.answers.items()}
    assert through == {"node1": None, "far1": "silent", "far2": "node1", "alone": None, "dead": "silent", "asked": None}
    assert [node.through for node in found.status.nodes] == [None, None, "node1", None, None, None]
    assert list(found.answers) == [each.name for each in hosts], "in the order of the inventory"


async def test_far_away_whoever_is_left_to_be_dialled_gets_as_much_more_time(store: OperatorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The witnesses took their time; a node that no control node reaches is no faster."""
    monkeypatch.setattr("hmctl.actions.survey.FEW", 2)
    monkeypatch.setattr("hmctl.actions.survey.OTHER_WITNESSES", 1)
    monkeypatch.setattr("hmctl.actions.survey.PATIENCE", 0.05)
    slow = 0.2  # seconds for an answer, more than our patience

    async def answer(name: str) -> NodeReport:
        moment = asyncio.Event()
        asyncio.get_running_loop().call_later(slow, moment.set)
        await moment.wait()
        return report_of(name)

    monkeypatch.setattr(AgentClient, "report", lambda client, members=True: answer(client.name))
    async with agent(store, "node1") as control, agent(store, "near") as near, agent(store, "left") as left:
        hosts = [host("node1", control.port), host("near", near.port, Role.WORKER), host("left", left.port, Role.WORKER)]
        found = await survey(inventory(*hosts), store)
    assert isinstance(found.answers["left"], Answer)


async def test_control_nodes_of_an_earlier_release_pass_nothing_on_and_everybody_is_asked(
    store: OperatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmctl.actions.survey.FEW", 1)
    monkeypatch.setattr("hmctl.actions.survey.OTHER_WITNESSES", 0)
    monkeypatch.setattr(api, "REPORTS", api.Method("cluster.unheard-of", api.ReportsRequest, api.ReportsReply))
    async with agent(store, "node1", reaches=["node2"]) as control, agent(store, "node2") as worker:
        monkeypatch.undo()
        monkeypatch.setattr("hmctl.actions.survey.FEW", 1)
        monkeypatch.setattr("hmctl.actions.survey.OTHER_WITNESSES", 0)
        found = await survey(inventory(host("node1", control.port), host("node2", worker.port, Role.WORKER)), store)
    assert [answer.through for answer in found.answers.values() if isinstance(answer, Answer)] == [None, None]


async def test_a_node_that_refuses_us_is_not_asked_again_over_ssh(store: OperatorStore, tmp_path: Path) -> None:
    stranger = OperatorStore.open(CLUSTER, tmp_path / "stranger")
    stranger.create_authority(datetime.now(UTC))
    async with agent(stranger, "node1") as listener:
        found = await survey(inventory(host("node1", listener.port)), store, timeout=2.0)
    silence = found.answers["node1"]
    assert isinstance(silence, Silence)
    assert silence.reached
    assert found.status.health is Health.CRITICAL


async def test_with_udp_closed_ssh_is_tried_and_its_failure_said(store: OperatorStore) -> None:
    found = await survey(inventory(host("node1", silent_port())), store, via=Via.SSH, timeout=1.0)
    silence = found.answers["node1"]
    assert isinstance(silence, Silence)
    assert not silence.reached
    assert found.via is Via.SSH
    assert found.status.exit_code == 4


async def test_what_ssh_finds_out_about_an_agent_is_said_and_what_ssh_itself_lacks_is_not(
    store: OperatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UDP's silence has many causes; a host that can be logged into tells the true one."""
    found: dict[Via, dict[str, HyperMeshError]] = {
        Via.QUIC: {name: PeerUnreachable("no answer") for name in ("node1", "node2")},
        Via.SSH: {"node1": PeerUnreachable("no agent is installed", fix="hmctl deploy"), "node2": Unreachable("no route")},
    }

    async def ask(hosts: object, access: object, via: Via, timeout: float, closely: object) -> dict[str, HyperMeshError]:
        return found[via]

    monkeypatch.setattr("hmctl.actions.survey._ask", ask)
    answers = (await survey(inventory(host("node1", 1), host("node2", 1)), store)).answers
    assert answers == {"node1": Silence("no agent is installed", "hmctl deploy"), "node2": Silence("no answer")}


async def test_a_host_without_an_agent_is_mended_by_deploy(store: OperatorStore) -> None:
    answers = (await survey(inventory(host("node1", silent_port())), store, via=Via.QUIC, timeout=1.0)).answers
    answer = answers["node1"]
    assert isinstance(answer, Silence)
    assert answer.fix == "hmctl deploy; why its agent is gone: hmctl logs node1"


@dataclass
class RelayProcess:
    """The relay as SSH shows it: our end of its stdio."""

    stdout: asyncio.StreamReader
    stdin: asyncio.StreamWriter
    ended: Completed
    killed: bool = False

    async def wait(self, *, timeout: float) -> Completed:
        return self.ended

    def kill(self) -> None:
        self.killed = True
        self.stdin.close()


class RelayRemote:
    """A host whose relay reaches the socket at `path`; without one it ends as `ended` says."""

    def __init__(self, host: Host, path: str | None, ended: Completed | None = None) -> None:
        self.host = host
        self._path = path
        self._ended = ended or Completed(0, b"", "")
        self.argv: list[str] = []
        self.process: RelayProcess | None = None

    async def run(self, argv: Sequence[str], **options: object) -> Completed:
        raise Unreachable("only the relay is here")

    async def open_process(self, argv: Sequence[str], *, sudo: bool = False, timeout: float) -> RelayProcess:
        assert sudo
        self.argv = list(argv)
        if self._path is None:
            reader = asyncio.StreamReader()
            reader.feed_eof()
            _, writer = await asyncio.open_connection(sock=_half())
        else:
            reader, writer = await asyncio.open_unix_connection(self._path)
        self.process = RelayProcess(reader, writer, self._ended)
        return self.process


def _half() -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


@asynccontextmanager
async def unix_agent(tmp_path: Path, name: str) -> AsyncIterator[str]:
    path = str(tmp_path / "agent.sock")
    listener = await serve_unix(path, router(name), local=Local(Identity(CLUSTER, Kind.NODE, name), "control", "r1"))
    try:
        yield path
    finally:
        await listener.close()


async def test_the_same_calls_through_ssh(tmp_path: Path) -> None:
    async with unix_agent(tmp_path, "node1") as path:
        remote = RelayRemote(host("node1", 1), path)
        async with await connect_remote(remote, CLUSTER) as client:
            assert (await client.report()).name == "node1"
            assert (await client.form(api.FormRequest(bootstrap="b1", voters=["node1"]))).bootstrap == "b1"
            assert (client.via, client.rtt) == (Via.SSH, None)
        assert remote.argv == ["/usr/local/bin/hypermesh-agent", "relay"]
        assert remote.process is not None
        assert remote.process.killed


async def test_another_node_and_another_cluster_are_told_apart_through_ssh(tmp_path: Path) -> None:
    async with unix_agent(tmp_path, "node7") as path:
        with pytest.raises(AnotherNode, match="runs node7, not node1") as refused:
            await connect_remote(RelayRemote(host("node1", 1), path), CLUSTER)
        assert refused.value.found == "node7"
        with pytest.raises(HandshakeRefused, match="runs node7 of cluster") as other:
            await connect_remote(RelayRemote(host("node7", 1), path), "hm-zzzzzzzzzz")
        assert not isinstance(other.value, AnotherNode)


@pytest.mark.parametrize(
    ("ended", "words", "fix"),
    [
        (Completed(127, b"", "sh: /usr/local/bin/hypermesh-agent: not found"), "no agent is installed", "hmctl deploy"),
        (Completed(1, b"", "sudo: /usr/local/bin/hypermesh-agent: command not found"), "no agent is installed", "hmctl deploy"),
        (
            Completed(1, b"", "the agent is not running: there is no /run/hypermesh/agent.sock"),
            "the agent is not running",
            "hmctl logs node1",
        ),
    ],
)
async def test_what_the_relay_says_on_its_way_out_is_the_reason(ended: Completed, words: str, fix: str) -> None:
    with pytest.raises(PeerUnreachable, match=words) as error:
        await connect_remote(RelayRemote(host("node1", 1), None, ended), CLUSTER)
    assert error.value.fix == fix
    assert error.value.host == "node1"


async def test_access_knows_when_our_certificate_ends(store: OperatorStore) -> None:
    ours = Access.of(store).ours
    assert ours is not None
    ends = pki.valid_until(ours.certificate)
    assert abs(ends - (datetime.now(UTC) + pki.OPERATOR_LIFETIME)) < timedelta(minutes=1)
