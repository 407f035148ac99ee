"""The one exception tree. Code branches on the type, never on the text; each layer adds only its own context (`raise ... from`).

HyperMeshError                 what failed, where (`host`), the command that mends it (`fix`)
├── UsageError                 the caller asked for something impossible                        exit 2
│   └── ConfigError            a document is invalid: every problem at once, with file:line     exit 2
├── Interrupted                the operator said stop                                           exit 130
├── RemoteError                a host, over SSH
│   ├── Unreachable            no route, refused, timed out
│   ├── AuthenticationFailed   the host does not accept us
│   ├── HostKeyMismatch        the host is not who it was, or nobody vouched for it
│   ├── SudoRefused            we are not root there and may not become it
│   └── CommandFailed          a command ended with a status other than zero
├── PreflightFailed            a host cannot carry a node, and why
├── FormationFailed            the cluster could not be formed, or may not be
├── LockError                  a lock of the cluster
│   ├── LockHeld               another holds it: `held` says who
│   ├── LockUnavailable        this cluster gives no locks yet
│   └── LeaseLost              it was ours, and is so no longer: whatever it guards must stop
├── TransportError             STOQ
│   ├── PeerUnreachable        no connection to the peer, or its circuit is open
│   │   └── NothingListens     its host is up and says that nobody listens there
│   ├── HandshakeRefused       TLS or hello: the peer does not accept us, or we do not accept it
│   │   └── AnotherNode        of the same cluster, but not the node that was called
│   ├── ConnectionLost         the connection ended under a call
│   ├── CallTimeout            no answer within the deadline; whether it was carried out is unknown
│   ├── Backpressure           the peer reads too slowly: the high-water mark is reached
│   └── FrameError             bytes that are no frame: oversized, truncated, or not of the schema
├── CallRefused                the other end answered: no
│   ├── PermissionDenied       the caller's role may not call this
│   ├── InvalidRequest         unknown method or malformed body
│   │   ├── LevelTooLow        the cluster's feature level does not allow it yet: not all nodes would understand it
│   │   ├── NotAsExpected      a key was changed last by another revision than the caller expects
│   │   └── TooLarge           more than the cluster keeps under one name
│   ├── SecretsLocked          the node that was asked cannot open the cluster's secrets now: ask another, or later
│   ├── NotLeader              ask `leader` instead
│   ├── NoQuorum               too few voters reachable to decide anything
│   ├── ChangeUnfinished       the voters are not yet as wished; asking again goes on from there
│   ├── TransferFailed         nobody else took the leadership over
│   └── InternalFault          the other end failed; its own log says why
├── SecretError                what was sealed cannot be opened: damaged, of another key, or of something else
├── PkiError                   a certificate, request or key that is not acceptable
├── ConsensusError
│   ├── StorageDamaged         a checksum or structure does not hold: file, offset, and how to re-seed
│   ├── StorageFull            no room for the journal
│   ├── StorageFailed          the disk fails otherwise: nobody knows what it holds, this node must stop
│   ├── ReleaseTooOld          the cluster is at a feature level that this release does not know: this node must stop
│   └── CommittedConflict      the leader contradicts what we know is committed: this node must stop
├── Undecided                  nobody answered for a change: it may have been carried out, or still be
├── PortPublished              another app has the port, on every node
├── LayerMissing               what an optional layer needs is not installed
├── LayerDown                  what a layer needs is installed, but does not answer
├── NoLease                    what is exclusive may not be started here now: its node may count as cut off
├── ContainerRefused           Docker answered about a container: no
│   ├── ImageGone              its image is not on this node
│   ├── PartGone               the container, or a network or volume that it needs, is not there
│   ├── NameTaken              another container has its name
│   ├── PortTaken              something else has its port on this node
│   └── NoSpace                the disk that Docker keeps things on is full
├── BlobError                  content that is kept by its digest: layers of images
│   ├── BlobMissing            it is not there
│   ├── BlobCorrupt            the bytes are not those that the digest names
│   ├── BlobBusy               somebody brings it just now, or too many are being served
│   └── BlobStoreFull          no room for it on the disk
├── ImageError                 images of containers
│   ├── ArchiveError           a file that is no archive of an image, or not a whole one
│   ├── ImageUnavailable       neither Docker nor a node nor a registry has it
│   │   └── RegistryDenied     its registry gives it, if at all, to somebody else
│   └── DockerMissing          this machine has no docker command
├── InitializationFailed       a required phase did not come up
├── ReleaseError               a release cannot be built, sent or run
└── LabError                   the local test hosts
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from hmcore.locks import HeldLock


class HyperMeshError(Exception):
    """What failed (the message), where (`host`, a node or host name) and the command that mends it (`fix`)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, host: str | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.host = host
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.host}: {self.message}" if self.host else self.message

    @property
    def with_fix(self) -> str:
        """In one line, for where words alone can be kept."""
        return f"{self}; fix: {self.fix}" if self.fix else str(self)


class UsageError(HyperMeshError):
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a document: where it stands, what is wrong, and what would be right."""

    file: str
    line: int | None  # from 1; None when the whole document is meant
    path: str  # e.g. "hosts[2].ssh.port"
    message: str
    hint: str | None = None  # what is allowed, or the nearest match
    warning: bool = False  # said, but does not make the document invalid

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path + ': ' if self.path else ''}{self.message}{f' ({self.hint})' if self.hint else ''}"

    @property
    def marked(self) -> str:
        """As it reads among mistakes."""
        return f"warning: {self}" if self.warning else str(self)


class ConfigError(UsageError):
    """A document is invalid. `problems` holds every mistake, in the order of the file, and perhaps warnings among them.

    `unfinished`: it was not examined to its end, so there may be more."""

    def __init__(self, problems: tuple[Problem, ...], *, fix: str | None = None, unfinished: bool = False) -> None:
        super().__init__("\n".join(problem.marked for problem in problems), fix=fix)
        self.problems, self.unfinished = problems, unfinished


class Interrupted(HyperMeshError):
    exit_code = 130


class RemoteError(HyperMeshError):
    pass


class Unreachable(RemoteError):
    pass


class AuthenticationFailed(RemoteError):
    pass


class HostKeyMismatch(RemoteError):
    pass


class SudoRefused(RemoteError):
    pass


class CommandFailed(RemoteError):
    """A remote command ended with `status`. `stderr` is its last output, already trimmed for people."""

    def __init__(self, command: str, status: int, stderr: str, *, host: str | None = None, fix: str | None = None) -> None:
        said = stderr.strip().splitlines()
        super().__init__(f"`{command}` ended with {status}{': ' + said[-1] if said else ''}", host=host, fix=fix)
        self.command = command
        self.status = status
        self.stderr = stderr


class PreflightFailed(HyperMeshError):
    pass


class FormationFailed(HyperMeshError):
    pass


class LockError(HyperMeshError):
    pass


class LockHeld(LockError):
    """`held` is the holder's part as the leader tells it (hmcore/locks.py)."""

    def __init__(self, message: str, *, held: HeldLock, host: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, host=host, fix=fix)
        self.held = held


class LockUnavailable(LockError):
    pass


class LeaseLost(LockError):
    pass


class TransportError(HyperMeshError):
    pass


class PeerUnreachable(TransportError):
    pass


class NothingListens(PeerUnreachable):
    pass


class HandshakeRefused(TransportError):
    pass


class AnotherNode(HandshakeRefused):
    """A node of this cluster is there, but not the one that was called: `found` is its name."""

    def __init__(self, message: str, *, found: str, host: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, host=host, fix=fix)
        self.found = found


class ConnectionLost(TransportError):
    pass


class CallTimeout(TransportError):
    pass


class Backpressure(TransportError):
    pass


class FrameError(TransportError):
    pass


class CallRefused(HyperMeshError):
    """The other end answered with a fault. `kind` is the fault's name on the wire."""

    kind: ClassVar[str] = "refused"


class PermissionDenied(CallRefused):
    kind = "permission-denied"


class InvalidRequest(CallRefused):
    kind = "invalid-request"


class LevelTooLow(InvalidRequest):
    kind = "level-too-low"


class NotAsExpected(InvalidRequest):
    kind = "not-as-expected"


class TooLarge(InvalidRequest):
    kind = "too-large"


class SecretsLocked(CallRefused):
    kind = "secrets-locked"


class NotLeader(CallRefused):
    """Only the leader can answer. `leader` is the name of the node that leads, as far as the one asked knows."""

    kind = "not-leader"

    def __init__(self, message: str, *, leader: str | None = None, host: str | None = None, fix: str | None = None) -> None:
        super().__init__(message, host=host, fix=fix)
        self.leader = leader


class NoQuorum(CallRefused):
    kind = "no-quorum"


class ChangeUnfinished(CallRefused):
    """A change of the voters is not done in time; why, and how far it is. What was begun stays: asking again goes on from there."""

    kind = "change-unfinished"


class TransferFailed(CallRefused):
    kind = "transfer-failed"


class InternalFault(CallRefused):
    kind = "internal"


class SecretError(HyperMeshError):
    pass


class PkiError(HyperMeshError):
    pass


class ConsensusError(HyperMeshError):
    pass


class StorageDamaged(ConsensusError):
    """`path` is damaged at byte `offset`. Never loaded silently: the node refuses to start."""

    def __init__(self, message: str, *, path: str, offset: int, fix: str | None = None) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: {message}", fix=fix)
        self.path = path
        self.offset = offset


class StorageFull(ConsensusError):
    pass


class StorageFailed(ConsensusError):
    pass


class ReleaseTooOld(ConsensusError):
    """The cluster is at feature level `level`, of which this release knows nothing: going on would be to diverge."""

    def __init__(self, level: int, known: int) -> None:
        super().__init__(f"this release knows feature level {known}, the cluster is at {level}", fix="hmctl deploy")
        self.level = level


class CommittedConflict(ConsensusError):
    pass


class Undecided(HyperMeshError):
    pass


class PortPublished(HyperMeshError):
    pass


class LayerMissing(HyperMeshError):
    pass


class LayerDown(HyperMeshError):
    pass


class NoLease(HyperMeshError):
    pass


class ContainerRefused(HyperMeshError):
    pass


class ImageGone(ContainerRefused):
    pass


class PartGone(ContainerRefused):
    pass


class NameTaken(ContainerRefused):
    pass


class PortTaken(ContainerRefused):
    pass


class NoSpace(ContainerRefused):
    pass


class BlobError(HyperMeshError):
    """`kind` is its name on the wire."""

    kind: ClassVar[str] = "blob"


class BlobMissing(BlobError):
    kind = "blob-missing"


class BlobCorrupt(BlobError):
    kind = "blob-corrupt"


class BlobBusy(BlobError):
    kind = "blob-busy"


class BlobStoreFull(BlobError):
    kind = "blob-store-full"


class ImageError(HyperMeshError):
    pass


class ArchiveError(ImageError):
    pass


class ImageUnavailable(ImageError):
    pass


class RegistryDenied(ImageUnavailable):
    pass


class DockerMissing(ImageError):
    pass


class InitializationFailed(HyperMeshError):
    pass


class ReleaseError(HyperMeshError):
    pass


class LabError(HyperMeshError):
    pass
