"""Real agents as processes on loopback: each with its own port, directory and certificate. No Docker, no systemd, no SSH."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from hmcore.api import FORM, REPORT, STATE, FormRequest, ReportRequest, StateReply, StateRequest
from hmcore.config.agent import AgentConfig, Voter, dump_agent_config
from hmcore.config.presets import settings_for
from hmcore.errors import HyperMeshError
from hmcore.pki import Identity, KeyPair, Kind, create_authority, create_request, issue, sign_request
from hmcore.records import NodeReport, Role
from hmcore.stoq.endpoint import Connection, Credentials, Local, dial
from hmcore.stoq.local import connect_unix
from hmcore.stoq.rpc import invoke
from node_agent.transport.identity import node_key

CLUSTER = "hm-integrat10"
BOOTSTRAP = "bootstrap-1"
ROOT = Path(__file__).parents[2]
WAIT = 60.0  # seconds: what everything awaited takes at most, on a machine that has other things to do
QUICK: dict[str, object] = {
    "security": {"mode": "off"},  # these agents run on the very machine of whoever tests: its kernel is not theirs to change
    "network": {"mode": "off"},  # nor its network
    "membership": {"heartbeat": 0.2, "suspect": 1.0, "down": 1.6},
    "raft": {"heartbeat": 0.1, "election_min": 0.6, "election_max": 1.0},
    "transport": {"reconnect_max": 0.3},
}

# Each phase, and the one that must be over before it begins.
NEEDS: Mapping[str, str | None] = {
    "identity": None,
    "transport": "identity",
    "consensus": "transport",
    "container": "identity",
    "security": "identity",
    "network": "consensus",
    "images": "identity",
    "apps": "consensus",
    "registry": "consensus",
    "orchestration": "registry",
    "api": "transport",
    "metrics": "identity",
}


class AgentProcess:
    """One node: its directory, its configuration, and the process while it runs."""

    def __init__(self, directory: Path, config: AgentConfig) -> None:
        self.directory = directory
        self.config = config
        self.name = config.node
        self.process: subprocess.Popen[bytes] | None = None
        self.program = ("-m", "node_agent")

    def start(self) -> None:
        self.start_with(dump_agent_config(self.config))

    def start_with(self, configuration: str) -> None:
        self.directory.joinpath("agent.yaml").write_text(configuration)
        with self.directory.joinpath("log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, "run", "--config", str(self.directory / "agent.yaml")],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},  # a program that is a file looks for modules beside itself
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT make it deaf and dumb for a while, as a machine that hangs."""
        assert self.process is not None
        self.process.send_signal(number)

    def terminate(self) -> int:
        self.send(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(30)

    @property
    def log(self) -> str:
        return self.directory.joinpath("log").read_text()


class ClusterOfProcesses:
    """Nodes node1, node2 ...: `controls` of them voters, the rest workers."""

    def __init__(self, directory: Path, controls: int = 3, workers: int = 0, *, now: datetime | None = None, **overrides: object) -> None:
        """`now`: when all certificates are issued."""
        self.now = now or datetime.now(UTC)
        self.authority = create_authority(CLUSTER, self.now)
        self._proofs: dict[Identity, KeyPair] = {}
        names = [f"node{number + 1}" for number in range(controls + workers)]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        metrics = dict(zip(names, free_ports(len(names), socket.SOCK_STREAM), strict=True))
        wanted = merged(QUICK, overrides)
        voters = tuple(Voter(name=name, address="127.0.0.1", port=ports[name]) for name in names[:controls])
        self.nodes = {
            name: AgentProcess(
                directory / name,
                AgentConfig(
                    cluster_id=CLUSTER,
                    cluster_name="integration",
                    bootstrap=BOOTSTRAP,
                    node=name,
                    role=Role.CONTROL if position < controls else Role.WORKER,
                    address="127.0.0.1",
                    port=ports[name],
                    voters=voters,
                    preset="balanced",
                    settings=settings_for("balanced", merged({"metrics": {"port": metrics[name]}}, wanted)),
                    data_dir=directory / name / "data",
                    pki_dir=directory / name / "pki",
                    socket=directory / name / "run" / "agent.sock",
                    docker_socket=directory / name / "docker.sock",
                ),
            )
            for position, name in enumerate(names)
        }
        for name, node in self.nodes.items():
            node.directory.mkdir(parents=True)
            self.certify(name)

    def certify(self, name: str, authority: KeyPair | None = None) -> None:
        """What `hmctl deploy` does: the node makes its key, the CA signs."""
        authority = authority or self.authority
        identity = Identity(CLUSTER, Kind.NODE, name)
        pki = self.nodes[name].config.pki_dir
        request = create_request(node_key(pki), identity)
        (pki / "node.pem").write_bytes(sign_request(authority, request, identity, self.now))
        (pki / "ca.pem").write_bytes(authority.certificate)

    @property
    def voters(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.config.role is Role.CONTROL]

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()

    def stop(self) -> None:
        for node in self.nodes.values():
            if node.alive:
                node.kill()

    def revive(self) -> None:
        """Start those that do not run, wake those that are stopped."""
        for node in self.nodes.values():
            if node.alive:
                node.send(signal.SIGCONT)
            else:
                node.start()

    async def open(self, name: str, kind: Kind = Kind.OPERATOR, *, caller: str = "tester", timeout: float = 2.0) -> Connection:
        """A connection to a node, as one who has a certificate of the cluster's authority. The caller's to close."""
        who = Identity(CLUSTER, kind, caller)
        proof = self._proofs.get(who)
        if proof is None:
            proof = self._proofs[who] = issue(self.authority, who, self.now)
        return await dial(
            "127.0.0.1",
            self.nodes[name].config.port,
            credentials=Credentials(self.authority.certificate, proof.certificate, proof.key),
            local=Local(who, "client", "test"),
            server=Identity(CLUSTER, Kind.NODE, name),
            timeout=timeout,
        )

    @asynccontextmanager
    async def connect(self, name: str, kind: Kind = Kind.OPERATOR, timeout: float = 2.0) -> AsyncIterator[Connection]:
        connection = await self.open(name, kind, timeout=timeout)
        try:
            yield connection
        finally:
            await connection.close()

    async def states(self, *names: str) -> dict[str, StateReply]:
        """What the named nodes (else all that run) know of the replicated state."""

        async def ask(name: str) -> StateReply:
            async with self.inside(name) as connection:
                return await invoke(connection, STATE, StateRequest(), timeout=2.0)

        asked = names or tuple(name for name, node in self.nodes.items() if node.alive)
        return dict(zip(asked, await asyncio.gather(*map(ask, asked)), strict=True))

    async def until_states(
        self, condition: Callable[[StateReply], object], what: str, of: Sequence[str] = (), seconds: float = WAIT
    ) -> dict[str, StateReply]:
        """The states as soon as those of all nodes that run (or of those named) are as wanted."""
        states: dict[str, StateReply] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    states = await self.states(*of)
                    if all(condition(state) for state in states.values()):
                        return states
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s, everywhere: {what}\n{states}") from None

    @asynccontextmanager
    async def inside(self, name: str, timeout: float = 2.0) -> AsyncIterator[Connection]:
        """By the node's own socket, which costs little and needs no transport."""
        connection = await connect_unix(str(self.nodes[name].config.socket), timeout=timeout)
        try:
            yield connection
        finally:
            await connection.close()

    async def report(self, name: str) -> NodeReport | None:
        """What the node says of itself; None when it does not answer."""
        try:
            async with self.inside(name, timeout=0.5) as connection:
                return await invoke(connection, REPORT, ReportRequest(), timeout=1.0)
        except HyperMeshError:
            return None

    async def reports(self) -> dict[str, NodeReport]:
        """Of all that answer."""
        answers = await asyncio.gather(*(self.report(name) for name in self.nodes))
        return {answer.name: answer for answer in answers if answer is not None}

    async def form(self, *names: str) -> None:
        for name in names or self.voters:
            async with self.connect(name) as connection:
                await invoke(connection, FORM, FormRequest(bootstrap=BOOTSTRAP, voters=self.voters), timeout=5.0)

    async def until(
        self, condition: Callable[[Mapping[str, NodeReport]], bool], seconds: float = WAIT, what: str = ""
    ) -> dict[str, NodeReport]:
        """The reports as soon as they are as wanted. Fails with what they were, and the logs."""
        reports: dict[str, NodeReport] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    reports = await self.reports()
                    if condition(reports):
                        return reports
                    if not any(node.alive for node in self.nodes.values()):
                        raise TimeoutError
                    await asyncio.sleep(0.05)
        except TimeoutError:
            logs = "\n".join(f"--- {name}\n{node.log[-3000:]}" for name, node in self.nodes.items())
            said = "\n".join(f"{name}: {report}" for name, report in reports.items())
            raise AssertionError(f"not within {seconds} s, or nobody is alive: {what}\n{said}\n{logs}") from None

    async def bring_up(self) -> dict[str, NodeReport]:
        """Start, form, and wait until everybody is in."""
        self.start()
        await self.until(lambda reports: len(reports) == len(self.nodes), what="all answer")
        await self.form()
        return await self.until_whole("formed")

    async def until_whole(self, what: str, seconds: float = WAIT) -> dict[str, NodeReport]:
        """The reports as soon as everybody is there and well."""
        return await self.until(lambda reports: whole(reports, len(self.nodes)), seconds, what)


def whole(reports: Mapping[str, NodeReport], size: int) -> bool:
    """One leader that all agree on, and everybody a member in good health (but for Docker, which is not here)."""
    leaders = {report.raft.leader for report in reports.values()}
    states = [[(member.name, member.state) for member in report.members] for report in reports.values()]
    return (
        len(reports) == size
        and len(leaders) == 1
        and None not in leaders
        and all(len(state) == size and all(condition in ("ready", "degraded") for _, condition in state) for state in states)
    )


def merged(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Settings `above` over those `below`, group by group."""
    old = {key: below.get(key) for key in above}
    groups = {key: {**was, **value} for key, value in above.items() if isinstance(value, dict) and isinstance(was := old[key], dict)}
    return {**below, **above, **groups}


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
