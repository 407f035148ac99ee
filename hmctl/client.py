"""Typed calls to the agents: what `hmctl` itself uses, and the Python API for whoever wants to build on it.

    async with await connect(host, store) as agent:
        report = await agent.report()

An agent is reached over QUIC (UDP) or, where that is closed, through SSH: `hypermesh-agent relay` on the host joins our SSH
channel to the agent's own socket. The calls are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from hmcore import api
from hmcore.errors import AnotherNode, CommandFailed, HandshakeRefused, HyperMeshError, PeerUnreachable, PkiError, RemoteError
from hmcore.pki import Identity, KeyPair, Kind, read_identity
from hmcore.records import NodeReport
from hmctl import lateness

if TYPE_CHECKING:
    from hmcore.config.inventory import Host
    from hmcore.stoq.connection import Connection
    from hmcore.stoq.dialogue import Dialogue, Talk
    from hmctl.remote.base import Process, Remote
    from hmctl.remote.ssh import Connector
    from hmctl.state import OperatorStore

T = TypeVar("T")
Req = TypeVar("Req")
Res = TypeVar("Res")
Up = TypeVar("Up")
Down = TypeVar("Down")

AT_ONCE = 32  # agents asked at the same time: enough to keep us busy (a handshake is 5 ms of work) as far as 50 ms away, and few enough
# that none waits for us so long that it sends everything again
RELAY = ("/usr/local/bin/hypermesh-agent", "relay")
NOT_FOUND = 127  # what a shell ends with when there is no such command
RELAY_END = 1.0  # seconds for a relay whose stream has closed to say why
SSH_TIMEOUT = 10.0  # seconds to log in and reach the agent's socket
CLIENT_ROLE = "client"  # what a client says in its hello, where nodes say control or worker


class Via(StrEnum):
    """How an agent is reached. `auto`: QUIC, and SSH where nothing answers that."""

    AUTO = "auto"
    QUIC = "quic"
    SSH = "ssh"


class AgentClient:
    """Calls to one agent, typed by hmcore/api.py. Every call is bounded by `timeout` seconds unless it is given its own."""

    def __init__(
        self, name: str, connection: Connection, *, via: Via, timeout: float, on_close: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.name = name
        self.via = via
        self._connection = connection
        self._timeout = timeout
        self._on_close = on_close

    @property
    def rtt(self) -> float | None:
        """Seconds to the agent and back, as QUIC measured it; None through SSH."""
        return self._connection.rtt

    async def call(self, method: api.Method[Req, Res], request: Req, *, timeout: float | None = None) -> Res:
        """Any call of the API. Raises TransportError, CallRefused."""
        from hmcore.stoq.rpc import invoke

        return await invoke(self._connection, method, request, timeout=self._timeout if timeout is None else timeout)

    async def open(self, dialogue: Dialogue[Req, Up, Down], request: Req) -> Talk[Req, Up, Down]:
        """A stream both ways. Raises ConnectionLost; a refusal comes with what is received."""
        from hmcore.stoq.dialogue import open_talk

        return await open_talk(self._connection, dialogue, request, timeout=self._timeout)

    async def ping(self) -> api.PingReply:
        return await self.call(api.PING, api.Empty())

    async def report(self, *, members: bool = True) -> NodeReport:
        """`members` False: without whom it knows as members, which makes it as short in a large cluster as in a small one."""
        return await self.call(api.REPORT, api.ReportRequest(members=members))

    async def reports(self, request: api.ReportsRequest, *, timeout: float) -> api.ReportsReply:
        """What other nodes report to this one."""
        return await self.call(api.REPORTS, request, timeout=timeout)

    async def state(self) -> api.StateReply:
        return await self.call(api.STATE, api.StateRequest())

    async def formation(self) -> api.Formation:
        return await self.call(api.FORMATION, api.Empty())

    async def form(self, request: api.FormRequest) -> api.Formation:
        """Tells the node that it may form the cluster, and vote."""
        return await self.call(api.FORM, request)

    async def raise_level(self, request: api.RaiseRequest) -> api.RaiseReply:
        """Has the leader raise the feature level to the highest that all members know. Raises LevelTooLow, naming who knows less."""
        return await self.call(api.RAISE, request)

    async def close(self) -> None:
        await self._connection.close()
        if self._on_close is not None:
            on_close, self._on_close = self._on_close, None
            await on_close()

    async def __aenter__(self) -> AgentClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


@dataclass(frozen=True, slots=True)
class Access:
    """What opens the agents' doors: for QUIC the CA's certificate (PEM) and our own with its key, for SSH the known hosts."""

    cluster: str
    known_hosts: Path
    authority: bytes = b""
    ours: KeyPair | None = None

    @classmethod
    def of(cls, store: OperatorStore, via: Via = Via.AUTO) -> Access:
        """Raises PkiError when the store has no certificate that is good, and no CA to issue one; through SSH none is needed."""
        try:
            return cls(store.cluster, store.known_hosts, store.ca_certificate(), store.operator_credentials(datetime.now(UTC)))
        except PkiError:
            if via is not Via.SSH:
                raise
            return cls(store.cluster, store.known_hosts)


async def connect(
    host: Host, access: Access | OperatorStore, *, via: Via | str = Via.AUTO, timeout: float = 5.0, connector: Connector | None = None
) -> AgentClient:
    """A client for the agent on `host`. `connector`: SSH connections to share, otherwise one of its own is made when it is needed.

    Raises PeerUnreachable, HandshakeRefused (with the reason), PkiError (no usable certificate of ours), RemoteError through SSH.
    """
    via = Via(via)
    access = access if isinstance(access, Access) else Access.of(access, via)
    match via:
        case Via.QUIC:
            return await _connect_quic(host, access, timeout)
        case Via.SSH:
            return await _connect_ssh(host, access, timeout, connector)
        case Via.AUTO:
            try:
                return await _connect_quic(host, access, timeout)
            except PeerUnreachable as unreachable:
                try:
                    return await _connect_ssh(host, access, timeout, connector)
                except RemoteError as error:
                    raise PeerUnreachable(f"{unreachable.message}; and over SSH: {error.message}", host=host.name, fix=error.fix) from error


async def _connect_quic(host: Host, access: Access, timeout: float) -> AgentClient:
    from hmcore.stoq.endpoint import dial
    from hmcore.stoq.greeting import Local
    from hmcore.stoq.mtls import Credentials

    if access.ours is None:
        raise PkiError("no certificate of ours to show", host=host.name, fix="hmctl ca import FILE, or --via ssh")
    connection = await dial(
        host.address,
        host.port,
        credentials=Credentials(ca=access.authority, certificate=access.ours.certificate, key=access.ours.key),
        local=Local(identity=read_identity(access.ours.certificate), role=CLIENT_ROLE, release=""),
        server=Identity(access.cluster, Kind.NODE, host.name),
        timeout=timeout,
    )
    return AgentClient(host.name, connection, via=Via.QUIC, timeout=timeout)


async def _connect_ssh(host: Host, access: Access, timeout: float, connector: Connector | None) -> AgentClient:
    from hmctl.remote.ssh import Connector

    if connector is not None:
        return await connect_remote(await connector.connect(host), access.cluster, timeout=timeout)
    own = Connector(access.known_hosts)
    try:
        return await connect_remote(await own.connect(host), access.cluster, timeout=timeout, on_close=own.close)
    except BaseException:
        await own.close()
        raise


async def connect_remote(
    remote: Remote, cluster: str, *, timeout: float = 5.0, on_close: Callable[[], Awaitable[None]] | None = None
) -> AgentClient:
    """A client for the agent on a host that we have an SSH connection to. Closing the client leaves that connection open."""
    from hmcore.stoq.local import connect_streams
    from hmctl.state import operator_name

    name = remote.host.name
    process = await remote.open_process(RELAY, sudo=True, timeout=SSH_TIMEOUT)
    try:
        connection = await connect_streams(process.stdout, process.stdin, author=operator_name(), timeout=SSH_TIMEOUT, where=RELAY[1])
    except PeerUnreachable as error:
        raise await _relay_failed(name, process, error) from error
    except BaseException:
        process.kill()
        raise
    there, wanted = connection.peer.identity, Identity(cluster, Kind.NODE, name)
    if there != wanted:  # over QUIC its certificate would have said so
        await connection.close()
        process.kill()
        if there.cluster == cluster and there.kind == Kind.NODE:
            raise AnotherNode(f"the host runs {there.name}, not {name}", found=there.name, host=name)
        raise HandshakeRefused(f"the host runs {there.name} of cluster {there.cluster}, not {name} of {cluster}", host=name)

    async def close() -> None:
        process.kill()
        if on_close is not None:
            await on_close()

    return AgentClient(name, connection, via=Via.SSH, timeout=timeout, on_close=close)


async def _relay_failed(name: str, process: Process, error: PeerUnreachable) -> HyperMeshError:
    """What the relay said on its way out is the reason; that our end of the stream closed is only how we noticed."""
    try:
        done = await process.wait(timeout=RELAY_END)
    except RemoteError:  # it neither answers nor ends
        process.kill()
        return PeerUnreachable(error.message, host=name, fix=f"hmctl logs {name}")
    if done.status == NOT_FOUND or done.stderr.rstrip().endswith("command not found"):  # as the shell, or sudo, has it
        return PeerUnreachable("no agent is installed on the host", host=name, fix="hmctl deploy")
    failed = CommandFailed(" ".join(RELAY), done.status, done.stderr, host=name)
    return PeerUnreachable(failed.message, host=name, fix=f"hmctl logs {name}")


async def ask_all(
    hosts: Sequence[Host],
    ask: Callable[[Host], Awaitable[T]],
    *,
    timeout: float,
    at_once: int = AT_ONCE,
    patience: float | None = None,
    enough: Callable[[Mapping[str, T | HyperMeshError]], bool] = lambda found: False,
) -> dict[str, T | HyperMeshError]:
    """Asks every host at the same time, each for `timeout` seconds at most: one that is dead delays nobody else.

    With `patience`, the others get no more than so many seconds once most have answered (more if these were slow): whoever is silent
    then is dead or far worse off than the rest. Until then each answer gives all of them `timeout` seconds more: as long as answers come
    in, it may be this machine that is slow. Once what was found is `enough`, nobody is waited for any more. Time that our own loop was
    late for counts for nobody. Failures of our own tree become that host's entry; anything else is a bug and ends the whole.
    """
    gate, clock = asyncio.Semaphore(at_once), asyncio.get_running_loop().time
    found: dict[str, T | HyperMeshError] = {}
    limits: dict[str, asyncio.Timeout] = {}  # of those being asked
    took: list[float] = []  # by those that answered

    def hurry() -> None:
        if enough(found):
            for limit in limits.values():
                if not limit.expired():
                    limit.reschedule(clock())
            return
        if patience is None or not took:
            return
        now = clock()
        most = 2 * len(took) > len(hosts)
        latest = now + max(patience, 3 * max(took)) if most else now + timeout
        for limit in limits.values():
            due = limit.when() or latest
            if now < due and (latest < due if most else latest > due):
                limit.reschedule(latest)

    async def one(host: Host) -> None:
        async with gate:
            began = clock()
            try:
                async with asyncio.timeout(timeout) as limits[host.name]:
                    hurry()
                    found[host.name] = await ask(host)
                    took.append(clock() - began)
            except TimeoutError:
                found[host.name] = PeerUnreachable(f"no answer within {clock() - began:.1f} s", host=host.name)
            except HyperMeshError as error:
                found[host.name] = error
            finally:
                del limits[host.name]
            hurry()

    def forgive(late: float) -> None:
        for limit in limits.values():
            if not limit.expired() and (due := limit.when()) is not None:
                limit.reschedule(due + late)

    with lateness.told(forgive):
        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(one(host), name=f"ask {host.name}")
    return {host.name: found[host.name] for host in hosts}
