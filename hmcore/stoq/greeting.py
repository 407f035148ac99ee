"""Who is at the other end, and whether we go on: what Hello and Welcome must say. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hmcore.errors import FrameError, PkiError
from hmcore.pki import Identity, Kind
from hmcore.stoq.frames import Hello, Refuse, Welcome

PROTOCOLS = (1, 2)  # the lowest and highest version of STOQ that this release speaks
LANES = 2  # the version from which on small calls share a stream


class Local(msgspec.Struct, frozen=True):
    """What we say of ourselves."""

    identity: Identity
    role: str
    release: str


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end. `identity` was proved (certificate, or the kernel's word on a socket); the rest is what it says."""

    identity: Identity
    role: str
    release: str
    protocol: int


class Refusal(Exception):
    """A verdict rather than an error: it becomes a Refuse frame."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


Identify = Callable[[Hello], Identity]
Admit = Callable[[Peer], str | None]


def certified(identity: Identity) -> Identify:
    """For connections whose handshake proved `identity`: Hello must not say otherwise."""

    def identify(hello: Hello) -> Identity:
        if (hello.cluster, hello.name) != (identity.cluster, identity.name):
            raise Refusal("identity", f"hello names {hello.name} of {hello.cluster}, the certificate {identity.name} of {identity.cluster}")
        return identity

    return identify


def vouched(cluster: str) -> Identify:
    """For sockets that only root can open: the dialer is an operator, by the name it gives as author."""

    def identify(hello: Hello) -> Identity:
        try:
            return Identity(cluster, Kind.OPERATOR, hello.author or "root")
        except PkiError as error:
            raise Refusal("identity", str(error)) from error

    return identify


def admit_all(_peer: Peer) -> str | None:
    return None


class Acceptor(msgspec.Struct, frozen=True):
    """Judges a Hello. `identify` says whose it is, `admit` may give a reason to refuse that peer all the same."""

    local: Local
    identify: Identify
    admit: Admit = admit_all
    protocols: tuple[int, int] = PROTOCOLS

    def judge(self, hello: Hello) -> tuple[Peer, Welcome] | Refuse:
        try:
            identity = self.identify(hello)
            peer = Peer(identity, hello.role, hello.release, _common(self.protocols, (hello.lowest, hello.highest)))
        except Refusal as refusal:
            return Refuse(refusal.kind, refusal.reason)
        if (reason := self.admit(peer)) is not None:
            return Refuse("not-admitted", reason)
        ours = self.local
        return peer, Welcome(peer.protocol, ours.identity.cluster, ours.identity.name, ours.role, ours.release)


class Dialer(msgspec.Struct, frozen=True):
    """Says Hello and judges the Welcome. With `expected` (the identity that the server proved) Welcome must say the same; without it
    Welcome is believed: it came through a socket of the agent's own host. `author` is whom a relay speaks for."""

    local: Local | None
    expected: Identity | None = None
    author: str = ""
    protocols: tuple[int, int] = PROTOCOLS

    def hello(self) -> Hello:
        ours = self.local
        if ours is None:
            return Hello(*self.protocols, cluster="", name="", role="", release="", author=self.author)
        return Hello(*self.protocols, ours.identity.cluster, ours.identity.name, ours.role, ours.release, self.author)

    def judge(self, welcome: Welcome) -> Peer:
        """Raises FrameError when it contradicts what was proved or offered."""
        try:
            said = Identity(welcome.cluster, Kind.NODE, welcome.name)
        except PkiError as error:
            raise FrameError(str(error)) from error
        if self.expected is not None and said != self.expected:
            raise FrameError(f"it proved to be {self.expected} and says it is {said}")
        if not self.protocols[0] <= welcome.protocol <= self.protocols[1]:
            raise FrameError(f"it chose STOQ/{welcome.protocol}, which was not offered")
        return Peer(said, welcome.role, welcome.release, welcome.protocol)


def met(greeting: Acceptor | Dialer, frame: Hello | Welcome | Refuse) -> tuple[Peer | Refuse, Welcome | Refuse | None]:
    """Who is at the other end, or why we do not go on; and what is to be said to that. Raises FrameError."""
    match greeting, frame:
        case Acceptor(), Hello():
            verdict = greeting.judge(frame)
            return (verdict, verdict) if isinstance(verdict, Refuse) else verdict
        case Dialer(), Welcome():
            return greeting.judge(frame), None
        case Dialer(), Refuse():
            return frame, None
        case _:
            raise FrameError(f"it greeted with {type(frame).__name__.lower()}")


def _common(ours: tuple[int, int], theirs: tuple[int, int]) -> int:
    """The highest version that both speak."""
    best = min(ours[1], theirs[1])
    if best < max(ours[0], theirs[0]):
        raise Refusal("protocol", f"this node speaks {_range(ours)}, the dialer {_range(theirs)}: upgrade the older one")
    return best


def _range(protocols: tuple[int, int]) -> str:
    lowest, highest = protocols
    return f"STOQ/{lowest}" if lowest == highest else f"STOQ/{lowest} to STOQ/{highest}"
