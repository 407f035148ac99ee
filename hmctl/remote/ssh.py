"""SSH connections to hosts: opened, verified, shared and closed. One a host at most; bastions are shared; host keys are always verified.

With ssh_commands.py, where connections are used, the only home of asyncssh.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from hmcore.errors import AuthenticationFailed, HostKeyMismatch, RemoteError, Unreachable
from hmctl.remote import hostkeys
from hmctl.remote.base import FirstContact
from hmctl.remote.identity import by_hand, login_options, mend, offered, own_keys
from hmctl.remote.pool import Pool
from hmctl.remote.ssh_commands import SshRemote

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, SshTarget

# AES-GCM first: with hardware AES it moves a release several times faster than OpenSSH's own first choice does in Python.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr", "aes128-ctr")
REACH_TIMEOUT = 4.0  # seconds for the network to carry us there: three attempts of TCP; logging in may take longer on a busy host
CLOSING = 1.0  # seconds for connections to end
KEEPALIVE = 10.0  # seconds; three unanswered ones end the connection


@dataclass(slots=True)
class _Visit:
    """One attempt to connect, as the handshake's callbacks see it: how long it may take, and what the host's key turned out to be."""

    target: SshTarget
    host: str
    limit: asyncio.Timeout
    login_by: float
    reached: bool = False
    refused: HostKeyMismatch | None = None
    met: FirstContact | None = None  # accepted, if the login succeeds


@dataclass(slots=True)
class _Vouched:
    """Lines of known_hosts files, as asyncssh understands them."""

    lines: set[str] = field(default_factory=set)
    known: asyncssh.SSHKnownHosts = field(default_factory=asyncssh.SSHKnownHosts)

    def learn(self, lines: Iterable[str]) -> None:
        for text in lines:
            self.lines.add(text)
            with suppress(ValueError):  # as OpenSSH does: a line that nobody can read vouches for nobody
                self.known.load(text)


async def _closed(connection: asyncssh.SSHClientConnection) -> None:
    """Ends a connection that nobody uses; back when the host has ended it, too, or does not answer: only then is it one less there."""
    link = connection.get_extra_info("socket")  # none of its own through a bastion
    witness = None if link is None else link.dup()
    connection.close()
    try:
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSING):
                await connection.wait_closed()
                while witness is not None and await asyncio.get_running_loop().sock_recv(witness, 4096):
                    pass  # what was on its way to us
    finally:
        if witness is not None:
            witness.close()


@dataclass(slots=True)
class Connector:
    """Opens connections. `pins` is the operator's own known_hosts; `accept_new` accepts the keys of hosts met for the first time.

    A key that was accepted is pinned once a login with it has succeeded; without `keep` never, and it counts for this run only.
    `limit`: connections open at once, those to bastions included; a host whose connection had to go is connected to again when it is
    needed (docs/adr/0061).
    """

    pins: Path
    accept_new: bool = False
    keep: bool = True
    limit: int | None = None
    home: Path = field(default_factory=Path.home)
    timeout: float = 15.0  # for one connection, seconds
    ended: bool = False
    met: list[FirstContact] = field(default_factory=list)  # hosts met for the first time, accepted unseen, and logged in to
    _accepted: set[str] = field(default_factory=set)  # lines that the operator has accepted
    _pinned: dict[str, None] = field(default_factory=dict)  # of this run, whether kept or not
    _bastions: dict[SshTarget, asyncssh.SSHClientConnection] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one connection a bastion, whoever comes first
    _pool: Pool[asyncssh.SSHClientConnection] = field(init=False)
    _reader: hostkeys.Reader = field(default_factory=hostkeys.Reader)
    _vouched: dict[tuple[Path, ...], _Vouched] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pool = Pool(self.limit, _closed)

    async def connect(self, host: Host) -> SshRemote:
        """Raises Unreachable, AuthenticationFailed, HostKeyMismatch (FirstContact when the key is merely unknown)."""
        remote = SshRemote(host, self)
        self.release(host, await self.lease(host))
        return remote

    async def lease(self, host: Host) -> asyncssh.SSHClientConnection:
        """A connection to `host` that stays open until it is released. Raises what `connect` raises."""
        if host.ssh.bastion:
            await self._bastion(host.ssh.bastion, host.name)
        return await self._pool.take(host.name, lambda: self._connect(host.ssh, host.name))

    def release(self, host: Host, connection: asyncssh.SSHClientConnection) -> None:
        self._pool.give_back(host.name, connection)

    def trust(self, contact: FirstContact) -> None:
        """Accepts a key that the operator has seen; connecting again succeeds, and pins it."""
        self._accepted.add(contact.line)

    def accepts(self, contact: FirstContact) -> bool:
        return self.accept_new or contact.line in self._accepted

    async def close(self) -> None:
        """Ends all connections: hosts first, then the bastions that they came through."""
        self.ended = True
        connections = [*self._pool.forget(), *reversed(self._bastions.values())]
        for connection in connections:
            connection.abort()
        with suppress(TimeoutError):  # nobody waits for a host that no longer answers
            async with asyncio.timeout(CLOSING):
                for connection in connections:
                    await connection.wait_closed()
        self._bastions.clear()

    async def _connect(self, target: SshTarget, name: str) -> asyncssh.SSHClientConnection:
        tunnel = await self._bastion(target.bastion, name) if target.bastion else None
        known, now = self._known(target), asyncio.get_running_loop().time()
        limit = asyncio.timeout_at(now + min(REACH_TIMEOUT, self.timeout))
        visit = _Visit(target, name, limit, login_by=now + self.timeout)
        with _explained(visit):
            async with limit:
                connection = await asyncssh.connect(
                    target.address,
                    **login_options(target),
                    tunnel=tunnel,
                    client_factory=lambda: _Judge(self, visit),
                    known_hosts=known,
                    server_host_key_algs=_key_algorithms(known, target),
                    encryption_algs=CIPHERS,
                    compression_algs=None,
                    keepalive_interval=KEEPALIVE,
                    keepalive_count_max=3,
                    connect_timeout=None,  # the timeout around us covers everything
                    login_timeout=None,
                )
        if visit.met is not None and visit.met.line not in self._pinned:
            self._remember(visit.met)
        return connection

    def _remember(self, contact: FirstContact) -> None:
        self._pinned[contact.line] = None
        if self.keep:
            hostkeys.pin(self.pins, [contact.line])
        if contact.line not in self._accepted:
            self.met.append(contact)

    async def _bastion(self, target: SshTarget, name: str) -> asyncssh.SSHClientConnection:
        async with self._lock:
            if target not in self._bastions:
                await self._pool.reserve()
                try:
                    self._bastions[target] = await self._connect(target, name)
                except RemoteError as error:
                    error.message = f"its bastion {target.address}: {error.message}"
                    raise
            return self._bastions[target]

    def _lines(self, target: SshTarget) -> list[hostkeys.Line]:
        """Of the files, and of this run: who was accepted at first must not be another when we come again."""
        met = [] if self.keep else [hostkeys.Line(self.pins, number, text) for number, text in enumerate(self._pinned, start=1)]
        return self._reader.read(hostkeys.files(target.known_hosts, self.home, self.pins)) + met

    def _known(self, target: SshTarget) -> asyncssh.SSHKnownHosts:
        """What the files say now. A line is parsed once, not once for each of hundreds of hosts."""
        files = tuple(hostkeys.files(target.known_hosts, self.home, self.pins))
        texts = dict.fromkeys(line.text for line in self._lines(target))
        vouched = self._vouched.get(files)
        if vouched is None or not vouched.lines <= texts.keys():
            vouched = self._vouched[files] = _Vouched()
        vouched.learn(text for text in texts if text not in vouched.lines)
        return vouched.known

    def vouching(self, target: SshTarget, host: str, address: str, port: int) -> list[hostkeys.Line]:
        """The lines that name this host, whatever key they give."""
        found = list[hostkeys.Line]()
        if not any(self._known(target).match(host, address, port if port != 22 else None)):
            return found
        for line in self._lines(target):
            try:
                keys = asyncssh.import_known_hosts(line.text).match(host, address, port if port != 22 else None)
            except ValueError:
                continue
            if any(keys):
                found.append(line)
        return found


def _key_algorithms(known: asyncssh.SSHKnownHosts, target: SshTarget) -> list[str]:
    """Key types that we know of the host first, as OpenSSH does; then the others, so that a host that changed is recognized as such."""
    keys, authorities, *_ = known.match(target.address, "", None if target.port in (None, 22) else target.port)
    certificates = get_default_certificate_algs() if authorities else []
    ours = [algorithm for key in keys for algorithm in key.sig_algorithms]
    wanted = dict.fromkeys([*certificates, *ours, *get_default_public_key_algs()])
    return [algorithm.decode() for algorithm in wanted]


class _Judge(asyncssh.SSHClient):
    """Asked only about keys that no known_hosts file vouches for: a stranger (first contact), or someone who changed."""

    def __init__(self, connector: Connector, visit: _Visit) -> None:
        self._connector = connector
        self._visit = visit

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._visit.reached = True
        with suppress(RuntimeError):  # we gave up in this very moment
            self._visit.limit.reschedule(self._visit.login_by)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        target, name = self._visit.target, self._visit.host
        place, fingerprint = hostkeys.place(host, port), key.get_fingerprint()
        known = self._connector.vouching(target, host, addr, port)
        if known:
            self._visit.refused = changed(name, place, fingerprint, known)
            return False
        line = hostkeys.entry(host, port, key.export_public_key("openssh").decode())
        contact = FirstContact(host=name, place=place, fingerprint=fingerprint, line=line)
        if self._connector.accepts(contact):
            self._visit.met = contact
            return True
        self._visit.refused = contact
        return False


def changed(name: str, place: str, offered: str, known: Sequence[hostkeys.Line]) -> HostKeyMismatch:
    """The host offers another key than the one that `known` vouches for."""
    where = ", ".join(map(str, known))
    return HostKeyMismatch(
        f"{place} is not the host it was: it offers the key {offered}, but {where} vouches for another. Nothing was sent to it",
        host=name,
        fix=f"only if you know why it changed (reinstalled?): ssh-keygen -R {quote(place)} -f {quote(str(known[0].file))}",
    )


@contextmanager
def _explained(visit: _Visit) -> Iterator[None]:
    """Why a connection could not be opened, as one of our types, in words that say what to look at."""
    target, name = visit.target, visit.host
    where = hostkeys.place(target.address, target.port or 22)
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise visit.refused or HostKeyMismatch(f"{where} offers a key that is not acceptable: {error.reason}", host=name) from None
    except asyncssh.KeyExchangeFailed as error:
        fix = f"update its OpenSSH, or allow newer algorithms in its sshd_config; {by_hand(target)} shows what it offers"
        raise Unreachable(f"{where} and hmctl have no algorithm in common", host=name, fix=fix) from error
    except asyncssh.PermissionDenied as error:
        keys = own_keys(Path.home())
        raise AuthenticationFailed(
            f"{target} does not accept us; {offered(target, os.environ, keys)}",
            host=name,
            fix=mend(target, keys),
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise AuthenticationFailed(
            f"the key {target.key} cannot be used: {error}", host=name, fix=f"if it has a passphrase: ssh-add {target.key}"
        ) from None
    except (FileNotFoundError, PermissionError) as error:
        reason = (error.strerror or str(error)).lower()
        fix = "name another one: ssh.key in the inventory"
        raise AuthenticationFailed(f"the key {error.filename or target.key} cannot be read: {reason}", host=name, fix=fix) from None
    except TimeoutError as error:
        said = f"{where} accepts connections, but login did not end in time" if visit.reached else f"no answer from {where}"
        fix = (
            f"is sshd in trouble? {by_hand(target)} shows more"
            if visit.reached
            else f"is the host up, and the port open? ping {target.address}"
        )
        raise Unreachable(said, host=name, fix=fix) from error
    except ConnectionRefusedError:
        fix = "on its console: systemctl start ssh; or name the port where its sshd listens: ssh.port"
        raise Unreachable(f"{where} refused the connection: no sshd listens there", host=name, fix=fix) from None
    except socket.gaierror as error:
        fix = "correct its address in the inventory, or the name server's answer"
        raise Unreachable(f"no address is known for {target.address}: {error.strerror}", host=name, fix=fix) from None
    except asyncssh.ChannelOpenError as error:
        fix = f"is the host up, and does the bastion's sshd allow forwarding (AllowTcpForwarding)? {by_hand(target)} shows more"
        raise Unreachable(f"the bastion cannot reach {where}: {error.reason}", host=name, fix=fix) from None
    except asyncssh.Error as error:
        fix = f"is sshd in trouble? {by_hand(target)} shows more, and on its console: journalctl -u ssh"
        raise Unreachable(f"{where} ended the connection: {error.reason}", host=name, fix=fix) from error
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)  # asyncio's own words name the call, not the cause
        raise Unreachable(f"{where} cannot be reached ({reason})", host=name, fix=f"is it up? ping {target.address}") from None
